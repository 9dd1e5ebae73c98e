//! Appends that have passed the checks: the input of a store.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use crate::appended::AppendedStream;
use crate::error::AppendError;
use crate::event::{NewEvent, check_event};
use crate::event_id::EventId;
use crate::invalid::Invalid;
use crate::limits::{Limits, MAX_EVENT_BYTES, MAX_METADATA_BYTES};
use crate::metadata::{CausationId, CorrelationId, Metadata};
use crate::payload::Payload;
use crate::request::RequestKey;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// An append that has passed every check that needs no store; for those who implement a store.
/// [`Append::check`](crate::Append::check) creates it, [`EventStore`](crate::EventStore) describes its use.
///
/// No part of it is empty, all streams are of its tenant, no stream and no event id is in it twice, and nothing in
/// it is larger than the limits it was checked with.
#[derive(Clone, Debug)]
pub struct CheckedAppend {
    pub(crate) tenant: Tenant,
    pub(crate) parts: Vec<CheckedPart>,
    /// `None` for an append of at most one event.
    pub(crate) append_id: Option<Uuid>,
    pub(crate) request: Option<RequestKey>,
    pub(crate) deadline: Option<Instant>,
    /// The streams of the answer to an append of a request key alone, without positions.
    pub(crate) about: Vec<AppendedStream>,
    /// Payloads and metadata, in bytes.
    pub(crate) bytes: usize,
    pub(crate) event_count: usize,
}

impl CheckedAppend {
    /// Whose streams, and whose request key, they are.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// One part per stream, in the order of the append; none for an append of a request key alone, which has a request key.
    #[must_use]
    pub fn parts(&self) -> &[CheckedPart] {
        &self.parts
    }

    /// The parts themselves, for a store that takes ownership.
    #[must_use]
    pub fn into_parts(self) -> Vec<CheckedPart> {
        self.parts
    }

    /// Every event with its stream, in the order of the append.
    pub fn events(&self) -> impl Iterator<Item = (&StreamId, &CheckedEvent)> {
        self.parts.iter().flat_map(|part| part.events.iter().map(move |event| (&part.stream, event)))
    }

    /// How many events it has in all its parts.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.event_count
    }

    /// How many bytes its payloads and metadata have, for the bounds of a queue or a batch.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What its events share once they are recorded: a digest of their ids in order. `None` for an append of at most
    /// one event.
    #[must_use]
    pub fn append_id(&self) -> Option<Uuid> {
        self.append_id
    }

    /// The request key to be stored with it, if there is one.
    #[must_use]
    pub fn request(&self) -> Option<&RequestKey> {
        self.request.as_ref()
    }

    /// The moment at which it is withdrawn if it still waits for its turn.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The stream that errors about the whole append name.
    #[must_use]
    pub fn first_stream(&self) -> StreamId {
        let key = || self.request.as_ref().map_or("none", |request| request.key());
        self.parts.first().map_or_else(|| of_request(&self.tenant, key()), |part| part.stream.clone())
    }

    /// Refuses the append if its deadline has passed. Call it when the append leaves the queue, before anything is written.
    ///
    /// # Errors
    /// [`AppendError::DeadlineExceeded`].
    pub fn check_deadline(&self) -> Result<(), AppendError> {
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => {
                Err(AppendError::DeadlineExceeded { stream: self.first_stream() })
            }
            _ => Ok(()),
        }
    }
}

/// The namespace of append ids. An append id is a digest of its event ids in order, so that a duplicate of a part of an
/// append, or of several appends as one, is distinguished from the append itself without reading its other events.
const APPEND_NAMESPACE: Uuid = Uuid::from_u128(0x3b0a_8a8e_52a1_4c39_8f52_70f0_9a1e_6d10);

/// The append id of the events of these parts; none for a single event.
pub(crate) fn append_id(parts: &[CheckedPart]) -> Option<Uuid> {
    let ids = parts.iter().flat_map(|part| &part.events).map(|event| event.event_id.get());
    let bytes: Vec<u8> = ids.flat_map(Uuid::into_bytes).collect();
    (bytes.len() > size_of::<Uuid>()).then(|| Uuid::new_v5(&APPEND_NAMESPACE, &bytes))
}

/// The events of a [`CheckedAppend`] for one stream; never empty.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckedPart {
    /// The stream.
    pub stream: StreamId,
    /// The version that the writer expects.
    pub expected: ExpectedVersion,
    /// The events to append, in this order.
    pub events: Vec<CheckedEvent>,
}

impl CheckedPart {
    /// The version of the stream once this part is appended to it at version `actual`, where its last event is
    /// `last_event`. Call it in the transaction of the append, for every part before anything is written; of several wrong
    /// expected versions the first is reported.
    ///
    /// # Errors
    /// [`AppendError::WrongExpectedVersion`] if the writer expects otherwise; [`AppendError::StreamFull`].
    pub fn version_after(
        &self,
        actual: StreamVersion,
        last_event: Option<EventId>,
    ) -> Result<StreamVersion, AppendError> {
        let stream = || self.stream.clone();
        if !self.expected.holds(actual, last_event) {
            return Err(AppendError::WrongExpectedVersion { stream: stream(), expected: self.expected, actual });
        }
        actual.plus(self.events.len()).ok_or_else(|| AppendError::StreamFull { stream: stream(), actual })
    }
}

/// An event of a [`CheckedAppend`]: its names are sound and its size fits. [`NewEvent::from`] makes the event of it
/// that [`RecordedEvent::new`](crate::RecordedEvent::new) takes.
#[derive(Clone, Debug)]
pub struct CheckedEvent {
    pub(crate) event_id: EventId,
    pub(crate) name: Arc<str>,
    pub(crate) schema_version: u32,
    pub(crate) payload: Payload,
    /// How many bytes a store may return for it.
    payload_bytes: usize,
    /// The metadata that has no column of its own, as JSON.
    pub(crate) metadata: Arc<str>,
    pub(crate) correlation_id: Option<CorrelationId>,
    pub(crate) causation_id: Option<CausationId>,
    /// The metadata as it was given.
    given: Metadata,
}

impl CheckedEvent {
    pub(crate) fn of(event: NewEvent, limits: &Limits) -> Result<Self, Invalid> {
        // The fields are open, so they may have been changed since `NewEvent::raw` checked them.
        check_event(&event.name, event.schema_version)?;
        let most = limits.event_bytes.min(MAX_EVENT_BYTES);
        let bytes = event.payload.as_str().len();
        if bytes > most {
            return Err(Invalid::new(
                "payload",
                format!("of `{}` has {bytes} bytes, the most is {most}", event.name),
                "keep large contents outside and their address in the event",
            ));
        }
        Ok(Self {
            event_id: event.event_id,
            payload_bytes: event.payload.written_out(most)?,
            metadata: event.metadata.to_json(limits.metadata_bytes.min(MAX_METADATA_BYTES))?.into(),
            correlation_id: event.metadata.correlation_id.clone(),
            causation_id: event.metadata.causation_id.clone(),
            given: event.metadata,
            name: event.name,
            schema_version: event.schema_version,
            payload: event.payload,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.payload_bytes + self.metadata.len()
    }

    /// Its id, which no other event of the store may have.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        self.event_id
    }

    /// Its stored name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The schema version of its payload, from 1.
    #[must_use]
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// The event itself, as JSON. [`Payload::from_json`] reads it back.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The metadata stored with it.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.given
    }

    /// Its metadata as one JSON object, without the correlation and causation id, for which a store may want columns or
    /// headers of their own. [`Metadata::from_json`] reads it back.
    #[must_use]
    pub fn metadata_json(&self) -> &str {
        &self.metadata
    }
}

impl From<CheckedEvent> for NewEvent {
    fn from(event: CheckedEvent) -> Self {
        let CheckedEvent { event_id, name, schema_version, payload, given, .. } = event;
        Self { event_id, name, schema_version, payload, metadata: given }
    }
}

/// What an error names that is about a request without events.
pub(crate) fn of_request(tenant: &Tenant, key: &str) -> StreamId {
    StreamId::stored(tenant.clone(), "request".into(), key.into())
}
