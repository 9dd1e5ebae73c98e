//! What the writers of one process share: the gate, the count, and the record of what was acknowledged.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use crate::torture::fact::Fact;
use crate::torture::part::Tally;
use crate::torture::record::{Mark, Record};

pub(super) struct Desk {
    /// Held for reading by whoever has something under way.
    gate: Arc<RwLock<()>>,
    slow: watch::Sender<bool>,
    ended: AtomicBool,
    tally: Mutex<Tally>,
    acknowledged: Mutex<Record>,
}

impl Desk {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            gate: Arc::default(),
            slow: watch::Sender::new(false),
            ended: AtomicBool::new(false),
            tally: Mutex::default(),
            acknowledged: Mutex::new(Record::resume(path, Mark::default())?),
        })
    }

    /// Leave to begin something; none when the run is over.
    pub(super) async fn enter(&self) -> Option<OwnedRwLockReadGuard<()>> {
        let entered = Arc::clone(&self.gate).read_owned().await;
        (!self.ended.load(Ordering::Acquire)).then_some(entered)
    }

    /// The same for those who write most: they wait for the readers.
    pub(super) async fn enter_slowly(&self) -> Option<OwnedRwLockReadGuard<()>> {
        // The sender lives as long as this value.
        self.slow.subscribe().wait_for(|slow| !slow).await.ok();
        self.enter().await
    }

    /// Waits until nothing is under way. Nothing begins while the guard is held.
    pub(super) async fn hush(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    pub(super) fn slow(&self, slow: bool) {
        self.slow.send_replace(slow);
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.slow(false);
    }

    /// Notes the events of a transaction whose commit was acknowledged.
    pub(super) fn acknowledge(&self, facts: &[Fact]) -> io::Result<()> {
        let mut record = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for fact in facts {
            record.add(fact)?;
        }
        drop(record);
        let mut streams: Vec<u32> = facts.iter().map(|fact| fact.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let mut tally = self.count();
        tally.appends += streams.len() as u64;
        tally.events += facts.len() as u64;
        tally.to_several_streams += u64::from(streams.len() > 1);
        tally.head = facts.iter().map(|fact| fact.position).fold(tally.head, u64::max);
        Ok(())
    }

    pub(super) fn count(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tally(&self) -> Tally {
        *self.count()
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).mark().map(drop)
    }
}
