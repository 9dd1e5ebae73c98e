//! A store that fails on the n-th call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::append::{Append, Appended};
use crate::as_of::AsOf;
use crate::error::{AppendError, BackendError, ErrorFamily, ReadError};
use crate::filter::{Filter, StreamFilter};
use crate::forward_event_store;
use crate::position::{After, Checkpoint};
use crate::request::RequestKey;
use crate::store::{EventStore, Page, StreamInfo, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

/// When a planned failure strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Before the store is called: nothing happens, and the error is *transient*.
    Before,
    /// After the store has done it, on the way back. An append then has an *unknown outcome*; a read is *transient*.
    After,
}

/// A wrapper around a store that fails when a test requests it, and otherwise forwards every call.
///
/// Calls of `append_many` (and `append`), `find_request`, `load_page`, `read_page`, `streams_page`, `head` and
/// `check_checkpoint` are counted from 1, over all clones; those about snapshots are not. To find what a program cannot bear, run it with a failure of
/// call 1, then of call 2, and so on until it makes fewer calls than that.
///
/// ```
/// use annals_eventstore::testing::{Fault, FaultyStore};
/// use annals_eventstore::{EventStore, MemoryStore};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = FaultyStore::new(MemoryStore::new());
/// store.fail_call(2, Fault::Before);
/// assert!(store.head().await.is_ok());
/// assert!(store.head().await.is_err_and(|e| e.is_transient()));
/// assert_eq!(store.calls(), 2);
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    inner: S,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    faults: BTreeMap<u64, Fault>,
}

impl<S: EventStore> FaultyStore<S> {
    /// A wrapper around `inner` that does not fail until a fault is set.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Makes call number `call` fail, counted from 1 since the store was made; a call that is over stays as it was.
    pub fn fail_call(&self, call: u64, fault: Fault) {
        self.plan().faults.insert(call, fault);
    }

    /// Makes the next `calls` calls fail.
    pub fn fail_next(&self, calls: u64, fault: Fault) {
        let mut plan = self.plan();
        let done = plan.calls;
        plan.faults.extend((1..=calls).map(|next| (done + next, fault)));
    }

    /// How many calls have been made, failed ones included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    /// The wrapped store, without injected faults: to read what is really stored.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and returns whether it must fail.
    fn count(&self) -> Option<Fault> {
        let mut plan = self.plan();
        plan.calls += 1;
        let call = plan.calls;
        plan.faults.remove(&call)
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
        let fault = self.count();
        if fault == Some(Fault::Before) {
            return Err(ReadError::Unavailable { source: planned() });
        }
        let answer = read.await?;
        if fault == Some(Fault::After) { Err(ReadError::Unavailable { source: planned() }) } else { Ok(answer) }
    }
}

fn planned() -> BackendError {
    BackendError::new("a failure that the test has planned")
}

#[async_trait]
impl<S: EventStore> EventStore for FaultyStore<S> {
    forward_event_store!(self => self.inner; except append_many, find_request, load_page, read_page, streams_page, head, log_as_of, check_checkpoint);

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        match self.count() {
            None => self.inner.append_many(append).await,
            Some(Fault::Before) => Err(AppendError::Unavailable { source: planned() }),
            Some(Fault::After) => {
                // An append that the check refuses is refused even if the answer is lost.
                let stream = append.clone().check(self.limits())?.first_stream();
                match self.inner.append_many(append).await {
                    Err(error) if error.family() == ErrorFamily::Invalid => Err(error),
                    _ => Err(AppendError::OutcomeUnknown { stream, source: planned() }),
                }
            }
        }
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        let fault = self.count();
        if fault == Some(Fault::Before) {
            return Err(AppendError::Unavailable { source: planned() });
        }
        let answer = self.inner.find_request(tenant, request).await?;
        if fault == Some(Fault::After) { Err(AppendError::Unavailable { source: planned() }) } else { Ok(answer) }
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        self.read(self.inner.load_page(stream, after, limit)).await
    }

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        self.read(self.inner.read_page(after, filter, limit)).await
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.read(self.inner.streams_page(filter, after, limit)).await
    }

    async fn head(&self) -> Result<Checkpoint, ReadError> {
        self.read(self.inner.head()).await
    }

    async fn log_as_of(&self, as_of: AsOf) -> Result<Checkpoint, ReadError> {
        self.read(self.inner.log_as_of(as_of)).await
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.read(self.inner.check_checkpoint(checkpoint)).await
    }
}
