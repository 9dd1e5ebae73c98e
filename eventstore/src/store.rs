//! The contract of an event store, in words. `conformance` is the same contract as clauses that run.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::append::{Append, Appended};
use crate::as_of::{AsOf, read_up_to};
use crate::clock::IdSource;
use crate::error::{AppendError, ReadError};
use crate::event::{NewEvent, RecordedEvent};
use crate::filter::{Filter, StreamFilter};
use crate::forward_event_store;
use crate::limits::Limits;
use crate::position::{After, Checkpoint, Incarnation, Position};
use crate::request::RequestKey;
use crate::snapshot::SnapshotStore;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// An append-only log of events in streams, with one order over all of them.
///
/// This is what a store can do; [`EventStoreExt`](crate::EventStoreExt) reads of any length with it, and
/// [`AggregateStore`](crate::AggregateStore) decides over it. Methods that read a page are for those who build on it.
///
/// It is open to implement: for another engine, or by a wrapper around a store
/// ([`forward_event_store!`](crate::forward_event_store)).
///
/// # Obligations on the implementer
/// 1. An acknowledged append survives every crash. 2. Versions of a stream are 1..n: unique, without gaps. 3. All events of
/// an append appear, contiguous in their stream, or none. 4. A reader that has seen position `p` never later meets a new
/// event at or before `p`, and misses none. 5. Positions in a stream increase with versions. 6. Nothing changes or removes a
/// recorded event. 7. The same event ids, or the same request key, again: one append, the first answer. 8. Tenants never
/// see or change each other's events. 9. A refused append stores nothing.
///
/// # How to implement it
/// `append_many` does this, in this order, and stores nothing if it refuses:
///
/// 1. A closed handle refuses everything. [`Append::check`] with the handle's limits does all checks that need no store.
/// 2. From here on in one transaction, or under one lock: [`CheckedAppend::check_deadline`](crate::CheckedAppend::check_deadline);
///    then what `find_request` does, if there is a request key, whose first answer [`Appended::again`] marks as repeated;
///    then [`CheckedAppend::find_repeat`](crate::CheckedAppend::find_repeat) with the stored events that have its ids;
///    then [`CheckedPart::version_after`](crate::CheckedPart::version_after) for every part, with the version of its
///    stream and the id of the stream's last event.
/// 3. Every event becomes a [`RecordedEvent::new`], with the next version of its stream, a position above all that any
///    reader has seen, the append's id, and one time for all. The request key is stored with fingerprint, answer and
///    [`RequestKey::expires`], also if there are no events; its lifetime counts from the time of the last stored event if
///    the clock is earlier than that.
/// 4. When all of that is durable: answer with [`Appended::new`] and wake the receivers of `watch`.
///
/// If appends commit concurrently, a reader must not get a position while a lower one may still appear: obligation 4 is
/// the hard one. Pages are filled by a [`PageBudget`](crate::PageBudget); [`Filter::matches`] and [`StreamFilter::matches`]
/// define a filter, `conditions` of both is what an engine can evaluate; names are compared byte for byte.
/// [`Page::checkpoint`] moves on over events that do not match. [`Checkpoint::check`] is the rule of `check_checkpoint`.
///
/// The proof is one line in a test, `conformance::suite! { mine => MyBackend }` (feature `conformance`; the module has an
/// example): a test of every clause of this contract, none of which a store may fail. A complete store on this public
/// face alone is `eventstore/tests/it/third_party_store.rs` in the repository.
///
/// # Limits of reads
/// Every method with a `limit` refuses 0 ([`Invalid`](crate::Invalid) with the field `limit`) and takes a limit above
/// [`MAX_PAGE_EVENTS`](crate::MAX_PAGE_EVENTS) for that number.
///
/// # Cancel safety
/// Dropping the future of a read is harmless. Dropping the future of an append leaves its outcome unknown; append the same
/// event ids again to find out. No dropped future leaves a transaction open or a lock or a connection in use.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AppendError, EventStore, EventStoreExt, ExpectedVersion, MemoryStore, StreamId, Tenant};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
/// let placed = store.new_event(&OrderEvent::Placed { total: 12_00 })?;
/// let done = store.append(&stream, ExpectedVersion::NoStream, vec![placed]).await?;
///
/// // Another writer with the same expected version is refused.
/// let late = store.new_event(&OrderEvent::Placed { total: 7_50 })?;
/// let refused = store.append(&stream, ExpectedVersion::NoStream, vec![late]).await;
/// assert!(matches!(refused, Err(AppendError::WrongExpectedVersion { actual, .. }) if actual == done.version()));
///
/// let paid = store.new_event(&OrderEvent::Paid { amount: 12_00 })?;
/// assert_eq!(store.append(&stream, done.version().into(), vec![paid]).await?.version().get(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// The incarnation of the store; the same for all handles of the store, on every machine.
    fn incarnation(&self) -> Incarnation;

    /// How much this handle accepts.
    fn limits(&self) -> &Limits;

    /// Makes ids for new events; [`EventStoreExt::new_event`](crate::EventStoreExt::new_event) takes them from here.
    fn ids(&self) -> &dyn IdSource;

    /// Appends events to one or several streams of one tenant: all of them or none.
    ///
    /// The request key, if there is one, is looked up before anything else; then the event ids; then the expected
    /// versions. One round trip whatever the number of events and streams. Once answered, the append is on disk, unless the
    /// store was opened with weaker durability, and visible to every reader.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{Append, EventStore, EventStoreExt, ExpectedVersion, Fingerprint, MemoryStore};
    /// use annals_eventstore::{RequestKey, StreamId, Tenant};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = MemoryStore::new();
    /// let order = |id| StreamId::new(Tenant::default(), "order", id);
    /// let placed = |total| store.new_event(&OrderEvent::Placed { total });
    ///
    /// let append = Append::to(order("o-17")?, ExpectedVersion::NoStream, vec![placed(12_00)?])
    ///     .and(order("o-18")?, ExpectedVersion::Any, vec![placed(7_50)?, placed(5_00)?])
    ///     .with_request(RequestKey::new("client-4711", Fingerprint::of(&("place", "o-17", "o-18"))?)?);
    /// let first = store.append_many(append.clone()).await?;
    /// let versions: Vec<_> = first.streams.iter().map(|part| part.version.get()).collect();
    /// assert_eq!(versions, [1, 2]);
    ///
    /// // The same again, because the answer was lost: one append, the first answer.
    /// let again = store.append_many(append).await?;
    /// assert!(again.repeated);
    /// assert_eq!((again.streams, again.recorded_at), (first.streams, first.recorded_at));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AppendError::WrongExpectedVersion`] if an expected version is wrong; [`AppendError::Invalid`] naming the field;
    /// [`AppendError::EventIdTaken`] and [`AppendError::RequestKeyReused`] for a duplicate that differs; see
    /// [`AppendError`] for others. Unless its family is *outcome unknown*, nothing is stored.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; append the same event ids again to find out.
    async fn append_many(&self, append: Append) -> Result<Appended, AppendError>;

    /// The first answer to a request, marked as repeated, if one with this key is stored.
    ///
    /// # Errors
    /// [`AppendError::RequestKeyReused`] if the key was used with another fingerprint; [`AppendError::Unavailable`],
    /// which is transient; [`AppendError::Broken`] if the stored answer cannot be read; [`AppendError::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError>;

    /// Events of one stream after `after`, in the order of their versions: a prefix of the present ones, at most `limit`
    /// events and about 16 MiB, at least one if there is one. Nothing for a stream that does not exist or is not
    /// longer.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] for a limit of 0; [`ReadError::Damaged`] naming a row that annals did not write;
    /// [`ReadError::Broken`] if the store as a whole is not what was opened; [`ReadError::Unavailable`], which is transient;
    /// [`ReadError::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError>;

    /// Events of the whole log after `after` that match `filter`, in the order of their positions: at most `limit`
    /// events and about 16 MiB.
    ///
    /// A page may have fewer events than there are, even none, if [`Page::checkpoint`] gives how far it has read and
    /// [`Page::end`] is not set: a filter that matches little is answered in pieces of bounded work.
    ///
    /// If `after` names an event, it is checked in the same snapshot as the page, by [`After::check`], before any other answer
    /// about the log; so a reader that names what it has seen never continues in another log.
    ///
    /// # Errors
    /// [`ReadError::StoreRewound`] if `after` names an event and the log has none or another one at its position;
    /// [`ReadError::AheadOfLog`] if `after` is a position beyond the last event; others as of [`EventStore::load_page`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError>;

    /// Streams after `after`, ordered by tenant, aggregate type and id bytewise, at most `limit`. A page may be short;
    /// only an empty one means that no stream follows.
    ///
    /// # Errors
    /// As of [`EventStore::load_page`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError>;

    /// The last event of the log that no reader can miss any more; the start if there is none.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`], which is transient; [`ReadError::Damaged`]; [`ReadError::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn head(&self) -> Result<Checkpoint, ReadError>;

    /// The last event of the log as of a position or a time: where the prefix of the log ends that [`AsOf`] defines. The start
    /// if nothing was there yet.
    ///
    /// It first waits for running writers, if one of them could still change the answer. Asked again for the position of its
    /// answer, it gives the same.
    ///
    /// The provided method reads the log from its beginning, and refuses a time after which no event is stored. It requires that
    /// the events of an append follow each other in the log. A store does better that knows its writers and its clock; then all
    /// events that are stored after an answer must have later times than the one that was asked for.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] with the field `position` beyond the end of the log, `time` if it is not over, or `as_of` for a
    /// version; [`ReadError::Unavailable`], which is transient, among others if a transaction with an append stays open;
    /// others as of [`EventStore::head`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn log_as_of(&self, as_of: AsOf) -> Result<Checkpoint, ReadError> {
        read_up_to(self, as_of).await
    }

    /// Checks that the event at a checkpoint is the one that the reader has seen.
    ///
    /// # Errors
    /// [`ReadError::StoreRewound`] if it is not, or if the checkpoint is of another incarnation; [`ReadError::Invalid`]
    /// with the field `checkpoint` if it has a position and no event id; others as of [`EventStore::head`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError>;

    /// Notifies of new events, those of other handles too: the receiver wakes when the head may have moved to the position
    /// it holds. Values may be skipped, and the position is a hint, never a promise.
    fn watch(&self) -> watch::Receiver<Position>;

    /// Waits until queued appends are answered, then stops the handle's tasks and wakes every receiver of
    /// [`EventStore::watch`]. Later calls fail with `Closed`, through every clone of the handle. Closing twice is harmless.
    ///
    /// Commit, roll back or drop units of work, transactions and readers first. What is still open is waited for as long as a
    /// call waits for it: `SqliteOptions::busy_timeout` or `PostgresOptions::connection_timeout`. After that an error in the log
    /// says so, and its connection is closed when it ends.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the handle closed, perhaps with tasks that are still at it; closing again waits for
    /// them.
    async fn close(&self);

    /// Appends `events` to the end of `stream`, in this order: all of them or none. The trait's own page has an
    /// example.
    ///
    /// Versions continue the stream without gaps. A reader that has seen position `p` never later meets a new event at
    /// or before `p`.
    ///
    /// # Errors
    /// As of [`EventStore::append_many`]; [`AppendError::WrongExpectedVersion`] if `expected` does not hold.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; append the same event ids again to find out.
    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended, AppendError> {
        self.append_many(Append::to(stream.clone(), expected, events)).await
    }

    /// Where snapshots of aggregates are saved; `None` if the store has no place for them. Those that put something in
    /// front of a store forward it.
    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        None
    }
}

/// Some events of one stream: what [`EventStore::load_page`] gives.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamPage {
    /// The events, in the order of their versions.
    pub events: Vec<RecordedEvent>,
    /// Whether the stream had no more events when the page was read. It may be false for a full page though none follow.
    pub end: bool,
}

impl StreamPage {
    /// A page; for those who implement a store.
    #[must_use]
    pub fn new(events: Vec<RecordedEvent>, end: bool) -> Self {
        Self { events, end }
    }
}

/// Some events of the log, and how far the log was read: what [`EventStore::read_page`] and
/// [`Pages`](crate::Pages) give.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The events that match the filter, in the order of their positions.
    pub events: Vec<RecordedEvent>,
    /// The last event of the whole log that this page covers, whether it matches the filter or not; `None` if the page begins
    /// at the head, so that there was nothing to read.
    pub checkpoint: Option<Checkpoint>,
    /// Whether the log had no more events when the page was read. It may be false for a full page though none follow.
    pub end: bool,
}

impl Page {
    /// A page; for those who implement a store.
    #[must_use]
    pub fn new(events: Vec<RecordedEvent>, checkpoint: Option<Checkpoint>, end: bool) -> Self {
        Self { events, checkpoint, end }
    }
}

/// A stream and how long it is: what a listing gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The stream.
    pub stream: StreamId,
    /// The version of its last event.
    pub version: StreamVersion,
}

impl EventStore for Arc<dyn EventStore> {
    forward_event_store!(self => (**self));
}
