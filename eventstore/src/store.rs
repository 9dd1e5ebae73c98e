//! The contract of an event store, in words. `conformance` is the same contract as clauses that run.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::append::{Append, Appended};
use crate::clock::IdSource;
use crate::error::{AppendError, ReadError};
use crate::event::{NewEvent, RecordedEvent};
use crate::filter::{Filter, StreamFilter};
use crate::limits::Limits;
use crate::position::{Checkpoint, Incarnation, Position};
use crate::request::RequestKey;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// An append-only log of events in streams, with one order over all of them.
///
/// # Obligations on the implementer
/// 1. What is acknowledged is kept, whatever crashes. 2. Versions of a stream are 1..n: unique, without holes.
/// 3. All events of an append appear, contiguous in their stream, or none. 4. Whoever has seen position `p` never later
/// meets a new event at or before `p`, and misses none. 5. Positions in a stream rise with versions. 6. Nothing changes or
/// removes a recorded event. 7. The same event ids, or the same request key, again: one append, the first answer.
/// 8. Tenants never see or change each other's events. 9. A refused append leaves no trace.
///
/// # Limits of reads
/// Every method with a `limit` refuses 0 ([`Invalid`](crate::Invalid) with the field `limit`) and takes a limit above
/// [`MAX_PAGE_EVENTS`](crate::MAX_PAGE_EVENTS) for that number.
///
/// # Cancel safety
/// Dropping the future of a read is harmless. Dropping the future of an append leaves its outcome unknown; append the same
/// event ids again to find out.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Which life of the store this is.
    fn incarnation(&self) -> Incarnation;

    /// How much the store accepts.
    fn limits(&self) -> &Limits;

    /// Makes ids for new events.
    fn ids(&self) -> &dyn IdSource;

    /// Appends events to one or several streams of one tenant: all of them or none.
    ///
    /// The request key, if there is one, is looked up before anything else; then the event ids; then the expected
    /// versions. One round trip whatever the number of events and streams.
    ///
    /// # Errors
    /// See [`AppendError`]; unless its family is *outcome unknown*, nothing is stored.
    async fn append_many(&self, append: Append) -> Result<Appended, AppendError>;

    /// The first answer to a request, if one with this key is remembered.
    ///
    /// # Errors
    /// [`AppendError::RequestKeyReused`] if the key was used with another fingerprint.
    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError>;

    /// Events of one stream after `after`, in the order of their versions: a prefix of what is there, at most `limit`
    /// events and about 16 MiB, at least one if there is one.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError>;

    /// Events of the whole log after `after`, in the order of their positions: at most `limit` events and about 16 MiB.
    ///
    /// # Errors
    /// [`ReadError::AheadOfLog`] if `after` is beyond the last event.
    async fn read_page(&self, after: Position, filter: &Filter, limit: usize) -> Result<Page, ReadError>;

    /// Streams after `after`, ordered by tenant, aggregate type and id bytewise, at most `limit`.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError>;

    /// The last event of the log that no reader can miss any more.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn head(&self) -> Result<Checkpoint, ReadError>;

    /// Checks that the event at a checkpoint is the one that the reader has seen.
    ///
    /// # Errors
    /// [`ReadError::StoreRewound`] if it is not, or if the checkpoint is of another incarnation.
    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError>;

    /// Tells of new events: the receiver wakes when the head may have moved to the position it holds. Values may be
    /// skipped, and the position is a hint, never a promise.
    fn watch(&self) -> watch::Receiver<Position>;

    /// Lets what is queued be answered, then stops the handle's tasks and wakes every receiver of
    /// [`EventStore::watch`]. Later calls fail with `Closed`, through every clone of the handle.
    async fn close(&self);

    /// Appends `events` to the end of `stream`: all of them or none.
    ///
    /// # Errors
    /// As of [`EventStore::append_many`].
    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended, AppendError> {
        self.append_many(Append::to(stream.clone(), expected, events)).await
    }
}

/// Some events of one stream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamPage {
    /// The events, in the order of their versions.
    pub events: Vec<RecordedEvent>,
    /// Whether the stream had no more events when the page was read. A page that is full may say no though none follow.
    pub end: bool,
}

impl StreamPage {
    /// A page; for those who implement a store.
    #[must_use]
    pub fn new(events: Vec<RecordedEvent>, end: bool) -> Self {
        Self { events, end }
    }
}

/// Some events of the log, and how far the log was looked at.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The events that the filter wants, in the order of their positions.
    pub events: Vec<RecordedEvent>,
    /// The last event of the whole log that this page accounts for, whether the filter wants it or not; `None` if the
    /// page begins at the head, so that there was nothing to look at.
    pub upto: Option<Checkpoint>,
    /// Whether the log had no more events when the page was read. A page that is full may say no though none follow.
    pub end: bool,
}

impl Page {
    /// A page; for those who implement a store.
    #[must_use]
    pub fn new(events: Vec<RecordedEvent>, upto: Option<Checkpoint>, end: bool) -> Self {
        Self { events, upto, end }
    }
}

/// A stream and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The stream.
    pub stream: StreamId,
    /// The version of its last event.
    pub version: StreamVersion,
}

#[async_trait]
impl EventStore for Arc<dyn EventStore> {
    fn incarnation(&self) -> Incarnation {
        (**self).incarnation()
    }

    fn limits(&self) -> &Limits {
        (**self).limits()
    }

    fn ids(&self) -> &dyn IdSource {
        (**self).ids()
    }

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        (**self).append_many(append).await
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        (**self).find_request(tenant, request).await
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        (**self).load_page(stream, after, limit).await
    }

    async fn read_page(&self, after: Position, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        (**self).read_page(after, filter, limit).await
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        (**self).streams_page(filter, after, limit).await
    }

    async fn head(&self) -> Result<Checkpoint, ReadError> {
        (**self).head().await
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        (**self).check_checkpoint(checkpoint).await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        (**self).watch()
    }

    async fn close(&self) {
        (**self).close().await;
    }
}
