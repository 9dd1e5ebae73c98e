//! Appends: what a writer asks for, the checks at the door, and the answer.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::AppendError;
use crate::event::{NewEvent, check_event};
use crate::event_id::EventId;
use crate::invalid::Invalid;
use crate::limits::Limits;
use crate::metadata::{CausationId, CorrelationId};
use crate::payload::Payload;
use crate::position::Position;
use crate::request::RequestKey;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// Events for the ends of one or several streams of one tenant: all of them or none.
///
/// Each stream stands in it once, with at least one event; no event id stands in it twice. At most 10,000 events and
/// 16 MiB of payloads and metadata by default, see [`Limits`]. The store checks all of this before it writes anything.
///
/// If its outcome is unknown, send a clone of it: the event ids make that the same append.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{Append, AppendError, EventStore, EventStoreExt, ExpectedVersion, MemoryStore};
/// use annals_eventstore::{StreamId, Tenant};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let order = |id| StreamId::new(Tenant::default(), "order", id);
/// let placed = |total| store.new_event(&OrderEvent::Placed { total });
///
/// // Two orders are placed, or none.
/// let append = Append::to(order("o-17")?, ExpectedVersion::NoStream, vec![placed(12_00)?])
///     .and(order("o-18")?, ExpectedVersion::NoStream, vec![placed(7_50)?]);
/// assert_eq!(store.append_many(append).await?.streams.len(), 2);
///
/// // One wrong belief refuses all of it.
/// let append = Append::to(order("o-19")?, ExpectedVersion::NoStream, vec![placed(5_00)?])
///     .and(order("o-17")?, ExpectedVersion::NoStream, vec![placed(5_00)?]);
/// match store.append_many(append).await {
///     Err(AppendError::WrongExpectedVersion { stream, actual, .. }) => {
///         assert_eq!((stream.aggregate_id(), actual.get()), ("o-17", 1));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Append {
    tenant: Tenant,
    parts: Vec<Part>,
    request: Option<RequestKey>,
    deadline: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Part {
    stream: StreamId,
    expected: ExpectedVersion,
    events: Vec<NewEvent>,
}

impl Append {
    /// `events` for the end of `stream`, in this order, if the stream is as `expected`.
    #[must_use]
    pub fn to(stream: StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        Self {
            tenant: stream.tenant().clone(),
            parts: vec![Part { stream, expected, events }],
            request: None,
            deadline: None,
        }
    }

    /// Nothing but the memory of a request that led to no events, so that its repeat gets the same answer.
    #[must_use]
    pub fn nothing(tenant: Tenant, request: RequestKey) -> Self {
        Self { tenant, parts: Vec::new(), request: Some(request), deadline: None }
    }

    /// More events, for the end of another stream of the same tenant. What breaks that rule is refused when it is sent.
    #[must_use]
    pub fn and(mut self, stream: StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        self.parts.push(Part { stream, expected, events });
        self
    }

    /// The same append under a request key, which is stored with it: as long as the key is remembered, another append
    /// under it does nothing and gets the first answer.
    #[must_use]
    pub fn with_request(mut self, request: RequestKey) -> Self {
        self.request = Some(request);
        self
    }

    /// The same append, withdrawn if it still waits for its turn at `deadline`; it then fails with
    /// [`AppendError::DeadlineExceeded`] and nothing is stored. Once the store is at it, it is answered, however late.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same append, whenever it may be sent.
    pub(crate) fn without_deadline(mut self) -> Self {
        self.deadline = None;
        self
    }

    /// The request key that goes with it.
    pub(crate) fn request(&self) -> Option<&RequestKey> {
        self.request.as_ref()
    }

    /// Checks everything that can be checked without the store. Every store does this first; a wrapper around a store
    /// may do it before it hands the append on.
    ///
    /// # Errors
    /// [`AppendError::Invalid`] with the field `append`, `tenant`, `stream`, `events`, `event_id`, `event_type`,
    /// `schema_version`, `payload` or `metadata` (`metadata.name` for a note called `name`).
    pub fn check(self, limits: &Limits) -> Result<CheckedAppend, AppendError> {
        if self.parts.is_empty() && self.request.is_none() {
            return Err(Invalid::new("append", "has no stream", "give it at least one event").into());
        }
        let mut streams = HashSet::new();
        let mut ids = HashSet::new();
        let mut bytes = 0;
        let mut all_ids = Vec::new();
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            if *part.stream.tenant() != self.tenant {
                return Err(Invalid::new(
                    "tenant",
                    format!("of stream `{}` is not `{}`, the tenant of the append", part.stream, self.tenant),
                    "append to the streams of each tenant apart",
                )
                .into());
            }
            if part.events.is_empty() {
                return Err(Invalid::new(
                    "events",
                    format!("for stream `{}` are none", part.stream),
                    "give at least one event",
                )
                .into());
            }
            let mut events = Vec::with_capacity(part.events.len());
            for event in part.events {
                let event = CheckedEvent::of(event, limits)?;
                if !ids.insert(event.event_id) {
                    return Err(Invalid::new(
                        "event_id",
                        format!("`{}` stands twice in the append", event.event_id),
                        "give each event an id of its own",
                    )
                    .into());
                }
                bytes += event.bytes();
                all_ids.extend_from_slice(event.event_id.get().as_bytes());
                events.push(event);
            }
            if !streams.insert(part.stream.clone()) {
                return Err(Invalid::new(
                    "stream",
                    format!("`{}` stands twice in the append", part.stream),
                    "put its events into one part",
                )
                .into());
            }
            parts.push(CheckedPart { stream: part.stream, expected: part.expected, events });
        }
        if ids.len() > limits.append_events {
            return Err(Invalid::new(
                "events",
                format!("are {}, the most in one append is {}", ids.len(), limits.append_events),
                "split the append",
            )
            .into());
        }
        if bytes > limits.append_bytes {
            return Err(Invalid::new(
                "events",
                format!("have {bytes} bytes, the most in one append is {}", limits.append_bytes),
                "split the append",
            )
            .into());
        }
        let append_id = (ids.len() > 1).then(|| Uuid::new_v5(&APPEND_NAMESPACE, &all_ids));
        Ok(CheckedAppend {
            tenant: self.tenant,
            parts,
            append_id,
            request: self.request,
            deadline: self.deadline,
            bytes,
            event_count: ids.len(),
        })
    }
}

/// The namespace of append ids. An append id is a digest of its event ids in order, so that a repeat of a part of an
/// append, or of several appends as one, is told from the append itself without looking for its other events.
const APPEND_NAMESPACE: Uuid = Uuid::from_u128(0x3b0a_8a8e_52a1_4c39_8f52_70f0_9a1e_6d10);

/// An append that has passed every check a store need not be asked for. What is in it is for the stores of this crate.
#[derive(Clone, Debug)]
pub struct CheckedAppend {
    pub(crate) tenant: Tenant,
    pub(crate) parts: Vec<CheckedPart>,
    /// `None` for an append of at most one event.
    pub(crate) append_id: Option<Uuid>,
    pub(crate) request: Option<RequestKey>,
    pub(crate) deadline: Option<Instant>,
    /// Payloads and metadata, in bytes.
    pub(crate) bytes: usize,
    pub(crate) event_count: usize,
}

impl CheckedAppend {
    /// The stream that errors about the whole append name.
    pub(crate) fn first_stream(&self) -> StreamId {
        self.parts.first().map_or_else(
            || {
                StreamId::stored(
                    self.tenant.clone(),
                    Arc::from("request"),
                    self.request.as_ref().map_or("none", |r| r.key()).into(),
                )
            },
            |part| part.stream.clone(),
        )
    }

    /// Every event with its stream, in the order of the append.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&StreamId, &CheckedEvent)> {
        self.parts.iter().flat_map(|part| part.events.iter().map(move |event| (&part.stream, event)))
    }
}

/// The events of a checked append for one stream; never empty.
#[derive(Clone, Debug)]
pub(crate) struct CheckedPart {
    pub(crate) stream: StreamId,
    pub(crate) expected: ExpectedVersion,
    pub(crate) events: Vec<CheckedEvent>,
}

/// An event whose metadata is written out and whose size is known to fit.
#[derive(Clone, Debug)]
pub(crate) struct CheckedEvent {
    pub(crate) event_id: EventId,
    pub(crate) name: Arc<str>,
    pub(crate) schema_version: u32,
    pub(crate) payload: Payload,
    pub(crate) metadata: Arc<str>,
    pub(crate) correlation_id: Option<CorrelationId>,
    pub(crate) causation_id: Option<CausationId>,
}

impl CheckedEvent {
    fn of(event: NewEvent, limits: &Limits) -> Result<Self, Invalid> {
        // The fields are open, so they may have been changed since `NewEvent::raw` looked at them.
        check_event(&event.name, event.schema_version)?;
        let bytes = event.payload.as_str().len();
        if bytes > limits.event_bytes {
            return Err(Invalid::new(
                "payload",
                format!("of `{}` has {bytes} bytes, the most is {}", event.name, limits.event_bytes),
                "keep large contents outside and their address in the event",
            ));
        }
        Ok(Self {
            event_id: event.event_id,
            metadata: event.metadata.to_json(limits.metadata_bytes)?.into(),
            correlation_id: event.metadata.correlation_id,
            causation_id: event.metadata.causation_id,
            name: event.name,
            schema_version: event.schema_version,
            payload: event.payload,
        })
    }

    fn bytes(&self) -> usize {
        self.payload.as_str().len() + self.metadata.len()
    }
}

/// The answer to an append: what it did, or, for a repeat, what it did the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// One entry per stream, in the order of the append; empty for an append of nothing.
    pub streams: Vec<AppendedStream>,
    /// The position of the last event, which is what a reader of one's own writes waits for; [`Position::START`] for an
    /// append of nothing.
    pub position: Position,
    /// When the store recorded the events, in whole microseconds.
    pub recorded_at: Timestamp,
    /// Whether this append was stored before and this is the first answer again.
    pub repeated: bool,
}

impl Appended {
    /// An answer, whose position is the greatest of `streams`; for those who implement a store.
    #[must_use]
    pub fn new(streams: Vec<AppendedStream>, recorded_at: Timestamp, repeated: bool) -> Self {
        let position = streams.iter().flat_map(|s| s.positions.iter().copied()).max().unwrap_or_default();
        Self { streams, position, recorded_at, repeated }
    }

    /// The version of the first stream after the append, which is all there is to know after an append to one stream;
    /// [`StreamVersion::NONE`] for an append of nothing.
    #[must_use]
    pub fn version(&self) -> StreamVersion {
        self.streams.first().map_or(StreamVersion::NONE, |s| s.version)
    }
}

/// What an append did to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedStream {
    /// The stream.
    pub stream: StreamId,
    /// Its version after the append, which is that of the last appended event.
    pub version: StreamVersion,
    /// The position of each appended event, in the order of their versions.
    pub positions: Vec<Position>,
}
