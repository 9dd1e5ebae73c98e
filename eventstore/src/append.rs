//! Appends: the request of a writer, and its checks.

use std::collections::HashSet;

use tokio::time::Instant;

pub(crate) use crate::appended::{Appended, AppendedStream};
pub(crate) use crate::checked::{CheckedAppend, CheckedEvent, CheckedPart};

use crate::checked::append_id;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::context::Context;
use crate::error::AppendError;
use crate::event::NewEvent;
use crate::invalid::Invalid;
use crate::limits::Limits;
use crate::request::RequestKey;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// Events for the ends of one or several streams of one tenant: all of them or none.
///
/// It contains each stream once, with at least one event, and each event id once. At most 10,000 events and
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
/// // One wrong expected version refuses all of it.
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
    parts: Vec<AppendPart>,
    request: Option<RequestKey>,
    deadline: Option<Instant>,
    /// Without parts: the streams that the answer names, each at the version that led to no events.
    about: Vec<AppendedStream>,
}

/// The events of an [`Append`] for one stream: what [`Append::parts`] gives.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AppendPart {
    /// The stream.
    pub stream: StreamId,
    /// The version that the writer expects.
    pub expected: ExpectedVersion,
    /// The events to append, in this order.
    pub events: Vec<NewEvent>,
}

impl Append {
    /// `events` for the end of `stream`, in this order, if the stream is as `expected`.
    #[must_use]
    pub fn to(stream: StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        Self {
            tenant: stream.tenant().clone(),
            parts: vec![AppendPart { stream, expected, events }],
            request: None,
            deadline: None,
            about: Vec::new(),
        }
    }

    /// A request key alone, for a request that led to no events: its repeat gets the same answer.
    #[must_use]
    pub fn request_only(tenant: Tenant, request: RequestKey) -> Self {
        Self::request_about(tenant, request, Vec::new())
    }

    /// The same for a request about streams, so that the key is not taken for that of a request about others.
    pub(crate) fn request_about(tenant: Tenant, request: RequestKey, streams: Vec<(StreamId, StreamVersion)>) -> Self {
        let at = |(stream, version)| AppendedStream { stream, version, positions: Vec::new() };
        let about = streams.into_iter().map(at).collect();
        Self { tenant, parts: Vec::new(), request: Some(request), deadline: None, about }
    }

    /// More events, for the end of another stream of the same tenant. What breaks that rule is refused when it is sent.
    #[must_use]
    pub fn and(mut self, stream: StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        self.parts.push(AppendPart { stream, expected, events });
        self
    }

    /// The same append under a request key, which is stored with it: until the key expires, another append
    /// under it does nothing and gets the first answer.
    #[must_use]
    pub fn with_request(mut self, request: RequestKey) -> Self {
        self.request = Some(request);
        self
    }

    /// The same append, answered at `deadline` at the latest. If it still waits for its turn then, it is withdrawn and fails with
    /// [`AppendError::DeadlineExceeded`]: nothing is stored. If it was sent, it fails with [`AppendError::OutcomeUnknown`]: it may
    /// be stored, then or later, and appending the same event ids again tells.
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

    /// The same append as one of a request: its events take from the circumstances what their metadata lack.
    ///
    /// # Errors
    /// [`Invalid`] with the field `tenant` or `request_key` if the append is not one of the request.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn within(mut self, context: &Context) -> Result<Self, Invalid> {
        if self.tenant != *context.tenant() {
            let what =
                format!("of the append is `{}`, that of the unit of work is `{}`", self.tenant, context.tenant());
            return Err(Invalid::new("tenant", what, "append to streams of the tenant of the context"));
        }
        if let Some(request) = &self.request {
            let what = format!("`{}` is one of a single append", request.key());
            return Err(Invalid::new("request_key", what, "give the key to the context of the unit of work"));
        }
        let metadata = context.event_metadata();
        for event in self.parts.iter_mut().flat_map(|part| &mut part.events) {
            event.metadata = std::mem::take(&mut event.metadata).or(&metadata);
        }
        self.deadline = self.deadline.or(context.deadline());
        Ok(self)
    }

    /// Whose streams they are.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The streams, the expected version of each, and the events for it; empty for an append of a request key alone.
    #[must_use]
    pub fn parts(&self) -> &[AppendPart] {
        &self.parts
    }

    /// The request key that goes with it, if there is one.
    #[must_use]
    pub fn request(&self) -> Option<&RequestKey> {
        self.request.as_ref()
    }

    /// The moment at which it is withdrawn, if there is one.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Checks everything that can be checked without the store. Every store does this first; a wrapper around a store
    /// may do it before it forwards the append.
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
                        format!("`{}` is in the append twice", event.event_id),
                        "give each event its own id",
                    )
                    .into());
                }
                bytes += event.bytes();
                events.push(event);
            }
            if !streams.insert(part.stream.clone()) {
                return Err(Invalid::new(
                    "stream",
                    format!("`{}` is in the append twice", part.stream),
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
        Ok(CheckedAppend {
            tenant: self.tenant,
            append_id: append_id(&parts),
            parts,
            request: self.request,
            deadline: self.deadline,
            about: self.about,
            bytes,
            event_count: ids.len(),
        })
    }
}
