//! Events: a fact in the user's type, on its way into a store, and as the store gives it back.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

pub(crate) use crate::event_id::EventId;

use crate::clock::whole_micros;
use crate::error::{DecodeError, Invalid, ReadError};
use crate::metadata::Metadata;
use crate::name::check_name;
use crate::parts::Parts;
use crate::payload::Payload;
use crate::position::{Checkpoint, Incarnation, Position};
use crate::stream::{StreamId, StreamVersion};

/// A fact in the past tense, in the domain's own type. Derive it; `#[derive(Event)]` has the words and an example.
///
/// # Obligations on the implementer
/// `decode(shape.name, shape.version, encode())` gives an equal event for every value, and `read` gives that event alone;
/// names and schema versions are chosen once and never change their meaning. All of them are pure.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type of events",
    label = "no event type",
    note = "write `#[derive(Event, Serialize, Deserialize)]` on `{Self}`, and name what is stored by `#[event(name = \"..\")]`"
)]
pub trait Event: Sized + Send + Sync + 'static {
    /// Every name and schema version that this type writes. No two have the same name.
    const SHAPES: &'static [EventShape];

    /// Every name and schema version that this type reads: those that it writes, and those that were written before. A
    /// projection, and any other reader that decodes events of this type, gets the events with these names.
    const READS: &'static [EventShape] = Self::SHAPES;

    /// The name and schema version under which this value is stored; one of [`Event::SHAPES`].
    fn shape(&self) -> &'static EventShape;

    /// The value's payload as JSON.
    ///
    /// # Errors
    /// [`Invalid`] naming the field that JSON, PostgreSQL's JSONB or our limits cannot hold (non-finite numbers,
    /// U+0000, ..).
    fn encode(&self) -> Result<Payload, Invalid>;

    /// Reads the payload of a name and schema version that this type writes.
    ///
    /// # Errors
    /// [`DecodeError`] if the name or the schema version is unknown or the payload does not fit.
    fn decode(name: &str, schema_version: u32, payload: &Payload) -> Result<Self, DecodeError>;

    /// Reads a stored payload, also one that was written before: what every read of this library calls.
    ///
    /// # Errors
    /// [`DecodeError`] if the name or the schema version is none of [`Event::READS`], the payload does not fit, or a step
    /// from an older version fails.
    fn read(name: &str, schema_version: u32, payload: &Payload) -> Result<Parts<Self>, DecodeError> {
        Self::decode(name, schema_version, payload).map(Parts::one)
    }
}

/// Under which name and schema version the values of a type, or of one variant of it, are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventShape {
    /// The stored name, for example `order.placed`: 1 to 200 bytes without control characters, not beginning with `$` or `__`.
    pub name: &'static str,
    /// The schema version, from 1.
    pub version: u32,
    /// Where it is declared in the code, for example `OrderEvent::Placed`, or how an old version is read; only for display,
    /// never stored.
    pub rust_name: &'static str,
}

/// An event with its id and metadata, not yet stored.
///
/// [`EventStoreExt::new_event`](crate::EventStoreExt::new_event) makes one of a domain event under a new id,
/// [`EventStoreExt::new_raw_event`](crate::EventStoreExt::new_raw_event) of JSON. Names and sizes are checked when it is appended.
///
/// ```
/// use annals_eventstore::{EventId, IdSource, Metadata, NewEvent, Payload, TimeOrderedIds};
///
/// // From an import: the payload is JSON already.
/// let payload = Payload::from_json(r#"{ "total": 1200 }"#)?;
/// let mut metadata = Metadata::default();
/// metadata.extra.insert("source".to_owned(), "orders-2019.csv".to_owned());
/// let id = EventId::new(TimeOrderedIds.next_id())?;
/// let event = NewEvent::raw(id, "order.placed", 1, payload)?.with_metadata(metadata);
/// assert_eq!(event.payload.as_str(), r#"{"total": 1200}"#);
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewEvent {
    /// Unique over the store. Appending the same ids again is the same append.
    pub event_id: EventId,
    /// The stored name: 1 to 200 bytes without control characters, not beginning with `$` or `__`.
    pub name: Arc<str>,
    /// The schema version of the payload, from 1.
    pub schema_version: u32,
    /// The event itself, as JSON.
    pub payload: Payload,
    /// The metadata stored with it.
    pub metadata: Metadata,
}

impl NewEvent {
    /// Encodes `event` under the id `event_id`.
    ///
    /// # Errors
    /// [`Invalid`] as of [`Event::encode`]; with the field `payload` if the encoded event could not be read again, for example because of
    /// a field with `skip_serializing_if` and without `default`.
    pub fn of<E: Event>(event_id: EventId, event: &E) -> Result<Self, Invalid> {
        Self::with_copy(event_id, event).map(|(new, _)| new)
    }

    /// The same, with the event as it will be read.
    pub(crate) fn with_copy<E: Event>(event_id: EventId, event: &E) -> Result<(Self, E), Invalid> {
        let shape = event.shape();
        let new = Self::raw(event_id, shape.name, shape.version, event.encode()?)?;
        let copy = E::decode(&new.name, new.schema_version, &new.payload).map_err(|error| {
            Invalid::new(
                "payload",
                format!("of `{}` could be stored, but not read again: {}", new.name, error.reason()),
                "correct its `Serialize` or `Deserialize`",
            )
        })?;
        Ok((new, copy))
    }

    /// An event whose payload is JSON already: from an import, another language, or a test. It has no metadata.
    ///
    /// # Errors
    /// [`Invalid`] with the field `event_type` if no event could have the name, or `schema_version` if that is 0.
    pub fn raw(
        event_id: EventId,
        name: impl AsRef<str>,
        schema_version: u32,
        payload: Payload,
    ) -> Result<Self, Invalid> {
        check_event(name.as_ref(), schema_version)?;
        Ok(Self { event_id, name: name.as_ref().into(), schema_version, payload, metadata: Metadata::default() })
    }

    /// The same event with other metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }
}

/// Checks what a store relies on in a new event.
pub(crate) fn check_event(name: &str, schema_version: u32) -> Result<(), Invalid> {
    check_name("event_type", name)?;
    if schema_version == 0 {
        return Err(Invalid::new("schema_version", "is 0", "count schema versions from 1"));
    }
    Ok(())
}

/// An event as a store gives it back: with its stream, version, position and time, and its payload as JSON.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, EventStoreExt, MemoryStore};
/// use futures::TryStreamExt;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let orders = store.aggregate::<Order>();
/// let done = orders.execute(&OrderId::new("o-17")?, |order| order.place(12_00)).await?;
///
/// let recorded = store.load(&done.stream).try_next().await?.expect("it was just placed");
/// assert_eq!((&*recorded.name, recorded.payload.as_str()), ("order.placed", r#"{"total": 1200}"#));
/// for event in recorded.typed::<OrderEvent>()? {
///     assert_eq!(event.aggregate_id::<OrderId>()?.as_str(), "o-17");
///     assert!(matches!(event.event, OrderEvent::Placed { total: 12_00 }));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// Its place in the whole log.
    pub position: Position,
    /// Its id.
    pub event_id: EventId,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its place in the stream, from 1.
    pub version: StreamVersion,
    /// Its stored name.
    pub name: Arc<str>,
    /// The schema version of its payload, from 1.
    pub schema_version: u32,
    /// The event itself, as JSON.
    pub payload: Payload,
    /// The metadata stored with it.
    pub metadata: Metadata,
    /// Shared by the events of one append; `None` when it was alone.
    pub append_id: Option<Uuid>,
    /// When the store recorded it, in whole microseconds. Order never follows from it.
    pub recorded_at: Timestamp,
}

impl RecordedEvent {
    /// The bytes of its payload and metadata.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.as_str().len() + self.metadata.bytes()
    }

    /// A recorded event; for those who implement a store, and for tests. The time is truncated to microseconds.
    ///
    /// A store creates it from a [`CheckedEvent`](crate::CheckedEvent) (`event.into()`) or, when it reads an event back,
    /// from [`NewEvent::raw`] with [`NewEvent::with_metadata`].
    ///
    /// ```
    /// use annals_eventstore::{EventId, NewEvent, Payload, Position, RecordedEvent, StreamId, StreamVersion, Tenant};
    /// use jiff::Timestamp;
    /// use uuid::Uuid;
    ///
    /// let event = NewEvent::raw(
    ///     EventId::new(Uuid::from_u128(17))?,
    ///     "order.placed",
    ///     1,
    ///     Payload::from_json(r#"{"total":1200}"#)?,
    /// )?;
    /// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
    /// let (version, position) = (StreamVersion::new(1)?, Position::new(40)?);
    /// let recorded = RecordedEvent::new(event, stream, version, position, None, Timestamp::UNIX_EPOCH);
    /// assert_eq!((&*recorded.name, recorded.position.get()), ("order.placed", 40));
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    #[must_use]
    pub fn new(
        event: NewEvent,
        stream: StreamId,
        version: StreamVersion,
        position: Position,
        append_id: Option<Uuid>,
        recorded_at: Timestamp,
    ) -> Self {
        let NewEvent { event_id, name, schema_version, payload, metadata } = event;
        let recorded_at = whole_micros(recorded_at);
        Self { position, event_id, stream, version, name, schema_version, payload, metadata, append_id, recorded_at }
    }

    /// The checkpoint of a reader of the whole log that has finished this event, in the store's present incarnation.
    #[must_use]
    pub fn checkpoint(&self, incarnation: Incarnation) -> Checkpoint {
        Checkpoint { incarnation, position: self.position, event_id: Some(self.event_id) }
    }

    /// Reads the payload as the domain's own type: one event, or none or several where an upcaster drops or splits it.
    ///
    /// # Errors
    /// [`ReadError::Undecodable`] naming the event, if its name or schema version is unknown, its payload does not fit, or
    /// a step from an older version fails.
    pub fn decode<E: Event>(&self) -> Result<Parts<E>, ReadError> {
        E::read(&self.name, self.schema_version, &self.payload).map_err(|source| ReadError::Undecodable {
            stream: self.stream.clone(),
            version: self.version,
            position: self.position,
            name: self.name.to_string(),
            schema_version: self.schema_version,
            source,
        })
    }

    /// Reads the payload as the domain's own type and keeps the other fields.
    ///
    /// # Errors
    /// As of [`RecordedEvent::decode`].
    pub fn typed<E: Event>(&self) -> Result<Parts<Recorded<E>>, ReadError> {
        let mut parts = 0..;
        Ok(self.decode()?.map(|event| Recorded {
            event,
            part: parts.next().unwrap_or(u32::MAX),
            position: self.position,
            event_id: self.event_id,
            stream: self.stream.clone(),
            version: self.version,
            metadata: self.metadata.clone(),
            recorded_at: self.recorded_at,
        }))
    }
}

/// A recorded event in the domain's own type, as projections get it. Created by [`RecordedEvent::typed`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recorded<E> {
    /// The event itself.
    pub event: E,
    /// Which of the events that the stored one is read as, from 0; it is 0 unless an upcaster splits the stored event.
    /// These have the other fields in common, so a key that is derived from an event is made of its id and this.
    pub part: u32,
    /// Its place in the whole log.
    pub position: Position,
    /// Its id.
    pub event_id: EventId,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its place in the stream, from 1.
    pub version: StreamVersion,
    /// The metadata stored with it.
    pub metadata: Metadata,
    /// When the store recorded it, in whole microseconds. Order never follows from it.
    pub recorded_at: Timestamp,
}

impl<E> Recorded<E> {
    /// A recorded event from its fields, without metadata: for tests of folds.
    #[must_use]
    pub fn new(
        event: E,
        stream: StreamId,
        version: StreamVersion,
        position: Position,
        event_id: EventId,
        recorded_at: Timestamp,
    ) -> Self {
        Self { event, part: 0, position, event_id, stream, version, metadata: Metadata::default(), recorded_at }
    }

    /// The aggregate's typed id, read from the name of the stream.
    ///
    /// # Errors
    /// [`Invalid`] with the field `aggregate_id` if the text is not such an id: the stream is of another kind of
    /// aggregate.
    pub fn aggregate_id<I: std::str::FromStr>(&self) -> Result<I, Invalid> {
        self.stream.aggregate_id().parse().map_err(|_| {
            Invalid::new(
                "aggregate_id",
                format!("`{}` is not a {}", self.stream.aggregate_id(), std::any::type_name::<I>()),
                "read it as the id type it was written with",
            )
        })
    }
}
