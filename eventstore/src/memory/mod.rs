//! The store for tests and for small things that need not survive the process: the contract, as briefly as it can be
//! kept.

mod builder;
mod log;
mod requests;
mod snapshots;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::append::{Append, Appended};
use crate::as_of::AsOf;
use crate::clock::{Clock, IdSource};
use crate::error::{AppendError, ReadError};
use crate::filter::{Filter, StreamFilter};
use crate::limits::Limits;
use crate::position::{After, Checkpoint, Incarnation, Position};
use crate::request::RequestKey;
use crate::snapshot::{SnapshotQueue, SnapshotStore};
use crate::store::{EventStore, Page, StreamInfo, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

pub use builder::MemoryStoreBuilder;

use log::Log;

/// An event store in the memory of the process.
///
/// It keeps the whole contract except the first obligation: a crash loses everything. Clones are handles of one store. It
/// needs no runtime, holds no lock while it waits, and answers in the order of the calls. Its memory grows with the log.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, MemoryStore, StreamId, Tenant};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
/// let placed = store.new_event(&OrderEvent::Placed { total: 12_00 })?;
/// let done = store.append(&stream, ExpectedVersion::NoStream, vec![placed]).await?;
/// assert_eq!(done.version().get(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    incarnation: Incarnation,
    limits: Limits,
    clock: Box<dyn Clock>,
    ids: Box<dyn IdSource>,
    log: Mutex<Log>,
    snapshots: SnapshotQueue,
    head: watch::Sender<Position>,
}

impl MemoryStore {
    /// An empty store with the machine's clock, ids that grow with time, and the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Begins the making of an empty store with another clock, other ids or other limits.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder::default()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Only a clock that panics can poison the lock, and the log reads the clock before it changes anything.
        self.inner.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("incarnation", &self.inner.incarnation).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn ids(&self) -> &dyn IdSource {
        &*self.inner.ids
    }

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        if self.log().closed {
            return Err(AppendError::Closed);
        }
        // The checks read the whole append, so they are made before the lock is taken again.
        let append = append.check(&self.inner.limits)?;
        let appended = self.log().append(append, &*self.inner.clock)?;
        self.inner.head.send_if_modified(|head| {
            let grown = appended.position > *head;
            *head = appended.position.max(*head);
            grown
        });
        Ok(appended)
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        self.log().find_request(tenant, request, &*self.inner.clock)
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        self.log().load_page(stream, after, limit)
    }

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        self.log().read_page(self.inner.incarnation, after, filter, limit)
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.log().streams_page(filter, after, limit)
    }

    async fn head(&self) -> Result<Checkpoint, ReadError> {
        self.log().head(self.inner.incarnation)
    }

    async fn log_as_of(&self, as_of: AsOf) -> Result<Checkpoint, ReadError> {
        self.log().as_of(self.inner.incarnation, as_of, &*self.inner.clock)
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.log().check_checkpoint(self.inner.incarnation, checkpoint)
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.inner.head.subscribe()
    }

    async fn close(&self) {
        self.log().closed = true;
        self.inner.snapshots.close().await;
        // Wake waiting readers, so that they see that the handle is closed.
        self.inner.head.send_modify(|_| {});
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        Some(self)
    }
}
