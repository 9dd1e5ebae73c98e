//! Methods that every store has, built on the contract.

use std::sync::Arc;

use crate::error::Invalid;
use crate::event::{Event, EventId, NewEvent};
use crate::filter::{Filter, StreamFilter};
use crate::payload::Payload;
use crate::position::After;
use crate::read::events::EventStream;
use crate::read::pages::Pages;
use crate::read::stream_pages::StreamPages;
use crate::read::streams::Streams;
use crate::read::subscription::Subscription;
use crate::store::EventStore;
use crate::stream::{StreamId, StreamVersion};

/// Reads of any length and the making of new events, for every store whose handle can be cloned.
///
/// Nothing is read before the value that a method gives is polled, within a tokio runtime. While its consumer works on
/// one page, at most one more is read ahead.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{After, AggregateStore, EventStoreExt, Filter, MemoryStore};
/// use futures::TryStreamExt;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let orders = store.aggregate::<Order>();
/// let first = orders.execute(&OrderId::new("o-17")?, |order| order.place(12_00)).await?;
/// orders.execute(&OrderId::new("o-18")?, |order| order.place(7_50)).await?;
///
/// // One stream.
/// let events: Vec<_> = store.load(&first.stream).try_collect().await?;
/// assert_eq!(events.len(), 1);
///
/// // The whole log, and the log after a position.
/// let events: Vec<_> = store.read_all(After::START, Filter::all()).try_collect().await?;
/// assert_eq!(events.len(), 2);
/// let events: Vec<_> = store.read_all(first.position, Filter::all()).try_collect().await?;
/// assert_eq!(events[0].stream.aggregate_id(), "o-18");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait EventStoreExt: EventStore + Clone {
    /// The events of one stream, in the order of their versions; none if there is no such stream.
    ///
    /// What comes is a prefix of the stream that reaches at least to where the stream ended when the read began.
    ///
    /// # Errors
    /// The last item is a [`ReadError`](crate::ReadError) if a page could not be read;
    /// [`ReadError::StoreRewound`](crate::ReadError::StoreRewound) if the stream got another history between two pages.
    ///
    /// # Cancel safety
    /// Dropping the value, or the future of one of its items, is harmless; so it is for all methods below.
    fn load(&self, stream: &StreamId) -> EventStream {
        self.load_after(stream, StreamVersion::NONE)
    }

    /// The events of one stream after a version, in the order of their versions; none if the stream is not longer.
    ///
    /// # Errors
    /// As of [`EventStoreExt::load`].
    fn load_after(&self, stream: &StreamId, after: StreamVersion) -> EventStream {
        EventStream::of_stream(StreamPages::new(self.shared(), stream.clone(), after))
    }

    /// The events of the log after a position or a checkpoint, in the order of their positions, up to the head as it is when the end is
    /// reached.
    ///
    /// # Errors
    /// The last item is [`ReadError::AheadOfLog`](crate::ReadError::AheadOfLog) if `after` is a position after the last
    /// event, [`ReadError::StoreRewound`](crate::ReadError::StoreRewound) if an event that was read before, or that
    /// `after` names, is missing, or any other error of a page.
    fn read_all(&self, after: impl Into<After>, filter: Filter) -> EventStream {
        EventStream::of_log(self.pages(after, filter))
    }

    /// The events of the log after a position or a checkpoint, in the order of their positions, and then each as it comes: none is
    /// missed, none comes twice.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, EventStore, EventStoreExt, Filter, MemoryStore};
    /// use futures::StreamExt;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let store = MemoryStore::new();
    /// let from_now_on = store.head().await?;
    /// let mut placed = store.subscribe(from_now_on, Filter::all().event_name("order.placed")?);
    ///
    /// let orders = store.aggregate::<Order>();
    /// orders.execute(&OrderId::new("o-17")?, |order| order.place(12_00)).await?;
    ///
    /// let event = placed.next().await.expect("it never ends")?;
    /// assert_eq!(event.stream.aggregate_id(), "o-17");
    /// assert!(matches!(event.decode()?.as_slice(), [OrderEvent::Placed { total: 12_00 }]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The stream ends with [`ReadError::AheadOfLog`](crate::ReadError::AheadOfLog) if `after` is a position after the
    /// last event, with [`ReadError::StoreRewound`](crate::ReadError::StoreRewound) if an event that was read before, or
    /// that `after` names, is missing, and with [`ReadError::Closed`](crate::ReadError::Closed) when the store is closed.
    /// Transient errors are retried.
    ///
    /// # Cancel safety
    /// Dropping the future of one event loses none: the next one waits for the same.
    fn subscribe(&self, after: impl Into<After>, filter: Filter) -> Subscription {
        Subscription::new(self.pages(after, filter))
    }

    /// The log after a position or a checkpoint page by page, and then as it grows, with the position up to which it has been
    /// read: for readers that keep a checkpoint. [`Pages`] has an example.
    ///
    /// # Errors
    /// As of [`Pages::next`].
    fn pages(&self, after: impl Into<After>, filter: Filter) -> Pages {
        Pages::new(self.shared(), after.into(), filter)
    }

    /// The streams of the store with their versions, ordered by tenant, aggregate type and id bytewise. [`Streams`] has
    /// an example.
    ///
    /// # Errors
    /// The last item is a [`ReadError`](crate::ReadError) if a page could not be read.
    fn streams(&self, filter: StreamFilter) -> Streams {
        Streams::new(self.shared(), filter)
    }

    /// Encodes `event` under a new id of this store, ready to be appended.
    ///
    /// Make it once per event and keep it for a repeat of the append: the id is what makes a repeat harmless.
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
    /// let done = store.append(&stream, ExpectedVersion::NoStream, vec![placed.clone()]).await?;
    ///
    /// // The same event again is the same append.
    /// assert!(store.append(&stream, ExpectedVersion::NoStream, vec![placed]).await?.repeated);
    /// assert_eq!(done.version().get(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Invalid`] as of [`NewEvent::of`]; also if the store's source of ids gives the nil UUID.
    fn new_event<E: Event>(&self, event: &E) -> Result<NewEvent, Invalid> {
        NewEvent::of(EventId::new(self.ids().next_id())?, event)
    }

    /// An event whose payload is JSON already, under a new id of this store: from an import, or in a test, as an older build
    /// stored it.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, EventStore, EventStoreExt, ExpectedVersion, MemoryStore};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = MemoryStore::new();
    /// let (orders, id) = (store.aggregate::<Order>(), OrderId::new("o-17")?);
    /// let placed = store.new_raw_event("order.placed", 1, r#"{"total": 1200}"#)?;
    /// store.append(&orders.stream(&id)?, ExpectedVersion::NoStream, vec![placed]).await?;
    /// assert!(orders.load(&id).await?.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Invalid`] as of [`Payload::from_json`] and [`NewEvent::raw`]; also if the store's source of ids gives the nil UUID.
    fn new_raw_event(&self, name: &str, schema_version: u32, json: &str) -> Result<NewEvent, Invalid> {
        NewEvent::raw(EventId::new(self.ids().next_id())?, name, schema_version, Payload::from_json(json)?)
    }

    /// The same store as a trait object in a shared pointer; the pointer is a store too.
    fn shared(&self) -> Arc<dyn EventStore> {
        Arc::new(self.clone())
    }
}

impl<S: EventStore + Clone> EventStoreExt for S {}
