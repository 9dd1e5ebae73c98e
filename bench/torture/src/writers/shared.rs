//! What the writers of one process share, and the streams that only one of them appends to.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::{PgConnection, Row};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use crate::fact::{Fact, OWN_STREAMS, UNIT_STREAMS, aggregate_id, aggregate_type};
use crate::progress::Tally;
use crate::record::{Mark, Record};

/// The pause lock, the tally, and the record of what was acknowledged.
pub(super) struct Shared {
    /// Held for reading during each transaction.
    running: Arc<RwLock<()>>,
    slow: watch::Sender<bool>,
    ended: AtomicBool,
    tally: Mutex<Tally>,
    acknowledged: Mutex<Record>,
}

impl Shared {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            running: Arc::default(),
            slow: watch::Sender::new(false),
            ended: AtomicBool::new(false),
            tally: Mutex::default(),
            acknowledged: Mutex::new(Record::resume(path, Mark::default())?),
        })
    }

    /// Permission for one transaction; none when the run is over.
    pub(super) async fn begin(&self) -> Option<OwnedRwLockReadGuard<()>> {
        let running = Arc::clone(&self.running).read_owned().await;
        (!self.ended.load(Ordering::Acquire)).then_some(running)
    }

    /// The same for the fastest writers: they wait while readers are far behind.
    pub(super) async fn begin_slowly(&self) -> Option<OwnedRwLockReadGuard<()>> {
        // The sender exists as long as this value.
        self.slow.subscribe().wait_for(|slow| !slow).await.ok();
        self.begin().await
    }

    /// Waits until no transaction is running. None begins while the guard is held.
    pub(super) async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.running).write_owned().await
    }

    pub(super) fn set_slow(&self, slow: bool) {
        self.slow.send_replace(slow);
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.set_slow(false);
    }

    /// Records the events of a transaction whose commit was acknowledged. Returns the number of streams.
    pub(super) fn acknowledge(&self, facts: &[Fact]) -> io::Result<u64> {
        let mut record = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for fact in facts {
            record.add(fact)?;
        }
        drop(record);
        let mut streams: Vec<u32> = facts.iter().map(|fact| fact.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let mut tally = self.tally();
        tally.appends += streams.len() as u64;
        tally.events += facts.len() as u64;
        tally.to_several_streams += u64::from(streams.len() > 1);
        tally.head = facts.iter().map(|fact| fact.position).fold(tally.head, u64::max);
        Ok(streams.len() as u64)
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).mark().map(drop)
    }
}

const VERSION: &str = "
    SELECT version
    FROM annals.events
    WHERE tenant = 'default' AND aggregate_type = $1 AND aggregate_id = $2
    ORDER BY version DESC
    LIMIT 1
";

/// The streams that only one writer appends to, and their versions as far as it knows them.
pub(super) struct OwnStreams {
    first: u32,
    /// None where the outcome of a commit is unknown.
    versions: Vec<Option<i64>>,
}

impl OwnStreams {
    /// Those of this writer, which are empty yet.
    pub(super) fn of(writer: u32) -> Self {
        Self::share(writer, 0, 1)
    }

    /// The `n`-th of `shares` equal parts of them.
    pub(super) fn share(writer: u32, n: u32, shares: u32) -> Self {
        let count = OWN_STREAMS / shares;
        Self { first: 10_000 + writer * OWN_STREAMS + n * count, versions: vec![Some(0); count as usize] }
    }

    /// Those of this writer if it appends in units of work.
    pub(super) fn of_units(writer: u32) -> Self {
        let first = UNIT_STREAMS.start + writer * OWN_STREAMS;
        Self { first, ..Self::of(writer) }
    }

    /// One of them for any number.
    pub(super) fn stream(&self, number: u32) -> u32 {
        self.first + number % self.versions.len() as u32
    }

    pub(super) fn contains(&self, stream: u32) -> bool {
        self.known(stream).is_some()
    }

    /// The version of a stream in a transaction that has added `facts`; queried if it is not known.
    pub(super) async fn version(
        &mut self,
        stream: u32,
        facts: &[Fact],
        connection: &mut PgConnection,
    ) -> Result<i64, sqlx::Error> {
        if let Some(added) = facts.iter().rev().find(|fact| fact.stream == stream) {
            return Ok(added.version.into());
        }
        if let Some(known) = self.known(stream).flatten() {
            return Ok(known);
        }
        let query = sqlx::query(VERSION).bind(aggregate_type(stream)).bind(aggregate_id(stream));
        let found = query.fetch_all(connection).await?.first().map_or(0, |row| row.get(0));
        self.set(stream, Some(found));
        Ok(found)
    }

    /// The version of a stream that has no commit with an unknown outcome.
    pub(super) fn known_version(&self, stream: u32) -> i64 {
        self.known(stream).flatten().unwrap_or_default()
    }

    /// Sets the version of a stream; none if it is unknown. Streams of others are ignored.
    pub(super) fn set(&mut self, stream: u32, version: Option<i64>) {
        if let Some(known) = stream.checked_sub(self.first).and_then(|index| self.versions.get_mut(index as usize)) {
            *known = version;
        }
    }

    /// Takes the versions from committed facts.
    pub(super) fn commit(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.set(fact.stream, Some(fact.version.into()));
        }
    }

    /// Makes all versions unknown.
    pub(super) fn forget(&mut self) {
        self.versions.fill(None);
    }

    fn known(&self, stream: u32) -> Option<Option<i64>> {
        self.versions.get(stream.checked_sub(self.first)? as usize).copied()
    }
}
