//! A store that counts its calls, and fails on request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::append::{Append, Appended};
use crate::error::{AppendError, BackendError, ReadError};
use crate::forward_event_store;
use crate::memory::MemoryStore;
use crate::position::Incarnation;
use crate::request::RequestKey;
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

/// What happens to one call of `append_many`.
pub(super) enum Fault {
    /// It is refused for now.
    Unavailable,
    /// The answer is lost; the append is stored or not.
    AnswerLost { stored: bool },
    /// Another append is stored first.
    Rival(Append),
    /// It is refused so.
    Refused(AppendError),
    /// The store is another one from now on, with the same incarnation.
    FailOver(MemoryStore),
    /// Nothing goes wrong.
    None,
}

/// A call that reached the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Append,
    FindRequest,
    /// After which version, and how many events were returned.
    Load {
        after: i64,
        events: usize,
    },
}

#[derive(Clone)]
pub(super) struct Spy {
    pub(super) inner: MemoryStore,
    /// The store after a failover.
    later: Arc<Mutex<Option<MemoryStore>>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Comes before the next look for a request is answered, but after it was made.
    after_find: Arc<Mutex<Option<Append>>>,
    calls: Arc<Mutex<Vec<Call>>>,
    page: usize,
    /// A version that pages leave out, as if its row were missing.
    gone: i64,
    pub(super) incarnation: Arc<Mutex<Incarnation>>,
}

impl Spy {
    pub(super) fn new() -> Self {
        let inner = MemoryStore::new();
        Self {
            incarnation: Arc::new(Mutex::new(inner.incarnation())),
            inner,
            later: Arc::default(),
            faults: Arc::default(),
            after_find: Arc::default(),
            calls: Arc::default(),
            page: usize::MAX,
            gone: 0,
        }
    }

    /// The same, with pages of at most `events`.
    pub(super) fn paged(mut self, events: usize) -> Self {
        self.page = events;
        self
    }

    /// The same, without the event of this version.
    pub(super) fn without(mut self, version: i64) -> Self {
        self.gone = version;
        self
    }

    /// What happens to the next appends.
    pub(super) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Clears the remaining faults.
    pub(super) fn calm(&self) {
        self.faults.lock().unwrap().clear();
    }

    pub(super) fn after_next_find(&self, append: Append) {
        *self.after_find.lock().unwrap() = Some(append);
    }

    pub(super) fn fail_over(&self, later: MemoryStore) {
        *self.later.lock().unwrap() = Some(later);
    }

    fn now(&self) -> MemoryStore {
        self.later.lock().unwrap().as_ref().unwrap_or(&self.inner).clone()
    }

    /// The calls since the last time.
    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

#[async_trait]
impl EventStore for Spy {
    forward_event_store!(self => self.inner; except incarnation, append_many, find_request, load_page);

    fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock().unwrap()
    }

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        self.note(Call::Append);
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        let stream = append.clone().check(self.limits())?.first_stream();
        match fault {
            Fault::None => {}
            Fault::Refused(error) => return Err(error),
            Fault::FailOver(later) => self.fail_over(later),
            Fault::Unavailable => return Err(AppendError::Unavailable { source: BackendError::new("unavailable") }),
            Fault::Rival(rival) => drop(self.now().append_many(rival).await.unwrap()),
            Fault::AnswerLost { stored } => {
                if stored {
                    self.now().append_many(append).await?;
                }
                return Err(AppendError::OutcomeUnknown { stream, source: BackendError::new("connection lost") });
            }
        }
        self.now().append_many(append).await
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        self.note(Call::FindRequest);
        let found = self.now().find_request(tenant, request).await;
        let after = self.after_find.lock().unwrap().take();
        if let Some(append) = after {
            self.now().append_many(append).await.unwrap();
        }
        found
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        let mut page = self.now().load_page(stream, after, limit.min(self.page)).await?;
        page.events.retain(|event| event.version.get() != self.gone);
        self.note(Call::Load { after: after.get(), events: page.events.len() });
        Ok(page)
    }
}
