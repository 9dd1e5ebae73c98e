//! A store that is replaced by another one behind the reader's back, as by a restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use annals_eventstore::{
    After, BackendError, Checkpoint, EventStore, Filter, MemoryStore, Page, Position, ReadError, forward_event_store,
};
use async_trait::async_trait;
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Swapped(Arc<Inner>);

struct Inner {
    first: MemoryStore,
    second: MemoryStore,
    swapped: AtomicBool,
    /// How many more reads fail: the connection is lost once.
    failing: AtomicU8,
    /// How many checkpoints were compared.
    checks: AtomicU64,
    head: watch::Sender<Position>,
}

impl Swapped {
    pub(crate) fn new(first: MemoryStore, second: MemoryStore) -> Self {
        let head = watch::Sender::new(Position::START);
        Self(Arc::new(Inner {
            first,
            second,
            swapped: AtomicBool::new(false),
            failing: AtomicU8::new(0),
            checks: AtomicU64::new(0),
            head,
        }))
    }

    pub(crate) fn swap(&self) {
        self.swap_unnoticed();
        self.0.failing.store(1, Ordering::SeqCst);
        self.0.head.send_replace(Position::START);
    }

    /// The same without a lost connection, and nobody is woken.
    pub(crate) fn swap_unnoticed(&self) {
        self.0.swapped.store(true, Ordering::SeqCst);
    }

    /// Wakes the reader because of new events.
    pub(crate) fn announce(&self) {
        self.0.head.send_replace(Position::START);
    }

    pub(crate) fn checks(&self) -> u64 {
        self.0.checks.load(Ordering::SeqCst)
    }

    fn now(&self) -> &MemoryStore {
        if self.0.swapped.load(Ordering::SeqCst) { &self.0.second } else { &self.0.first }
    }
}

#[async_trait]
impl EventStore for Swapped {
    forward_event_store!(self => self.now(); except read_page, check_checkpoint, watch);

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        if self.0.failing.swap(0, Ordering::SeqCst) > 0 {
            return Err(ReadError::Unavailable { source: BackendError::new("the connection is lost") });
        }
        self.now().read_page(after, filter, limit).await
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.0.checks.fetch_add(1, Ordering::SeqCst);
        self.now().check_checkpoint(checkpoint).await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.0.head.subscribe()
    }
}
