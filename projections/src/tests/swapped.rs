//! A store that is replaced by another one behind the reader's back, as by a restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use annals_eventstore::{
    After, Append, AppendError, Appended, BackendError, Checkpoint, EventStore, Filter, IdSource, Incarnation, Limits,
    MemoryStore, Page, Position, ReadError, RequestKey, StreamFilter, StreamId, StreamInfo, StreamPage, StreamVersion,
    Tenant,
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

    /// Wakes the reader because of new events.
    pub(crate) fn announce(&self) {
        self.0.head.send_replace(Position::START);
    }

    pub(crate) fn checks(&self) -> u64 {
        self.0.checks.load(Ordering::SeqCst)
    }

    /// The same without a lost connection, and nobody is woken.
    pub(crate) fn swap_unnoticed(&self) {
        self.0.swapped.store(true, Ordering::SeqCst);
    }

    fn now(&self) -> &MemoryStore {
        if self.0.swapped.load(Ordering::SeqCst) { &self.0.second } else { &self.0.first }
    }
}

#[async_trait]
impl EventStore for Swapped {
    fn incarnation(&self) -> Incarnation {
        self.now().incarnation()
    }

    fn limits(&self) -> &Limits {
        self.now().limits()
    }

    fn ids(&self) -> &dyn IdSource {
        self.now().ids()
    }

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        self.now().append_many(append).await
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        self.now().find_request(tenant, request).await
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        self.now().load_page(stream, after, limit).await
    }

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        if self.0.failing.swap(0, Ordering::SeqCst) > 0 {
            return Err(ReadError::Unavailable { source: BackendError::new("the connection is lost") });
        }
        self.now().read_page(after, filter, limit).await
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.now().streams_page(filter, after, limit).await
    }

    async fn head(&self) -> Result<Checkpoint, ReadError> {
        self.now().head().await
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.0.checks.fetch_add(1, Ordering::SeqCst);
        self.now().check_checkpoint(checkpoint).await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.0.head.subscribe()
    }

    async fn close(&self) {
        self.now().close().await;
    }
}
