//! A page of the log on its way to the folds: each event decoded once, whatever the number of projections that want it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_eventstore::{Event, EventId, Parts, Position, ReadError, Recorded, RecordedEvent, TraceParent};
use jiff::Timestamp;

use crate::error::{EventPlace, StopCause};
use crate::fold::panic_text;

/// The events of a page, decoded for some event types.
#[derive(Default)]
pub(crate) struct Batch {
    decoded: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

/// How to decode one event type; the same for every projection that folds it.
#[derive(Clone, Copy)]
pub(crate) struct Decoder {
    event_type: TypeId,
    decode: fn(&[RecordedEvent]) -> Arc<dyn Any + Send + Sync>,
}

/// Two are the same if they decode the same type.
impl PartialEq for Decoder {
    fn eq(&self, other: &Self) -> bool {
        self.event_type == other.event_type
    }
}

impl Decoder {
    pub(crate) fn of<E: Event>() -> Self {
        Self { event_type: TypeId::of::<E>(), decode: decode_all::<E> }
    }
}

/// One stored event that a type knows by its name: what it is read as, or why it cannot be read as that type.
pub(crate) struct Decoded<E> {
    pub(crate) place: EventPlace,
    pub(crate) event_id: EventId,
    pub(crate) recorded_at: Timestamp,
    pub(crate) parts: Result<Parts<Recorded<E>>, Unreadable>,
}

/// Why an event cannot be read as a type.
#[derive(Clone, Debug)]
pub(crate) enum Unreadable {
    Read(Arc<ReadError>),
    /// The type's own `decode` panicked.
    Panicked(Arc<str>),
}

impl From<Unreadable> for StopCause {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Read(error) => Self::Read(error),
            Unreadable::Panicked(text) => Self::Panicked(text.to_string()),
        }
    }
}

impl Batch {
    /// Decodes `events` by every decoder, once per event type.
    pub(crate) fn decode(events: &[RecordedEvent], decoders: &[Decoder]) -> Self {
        let mut batch = Self::default();
        for decoder in decoders {
            batch.decoded.entry(decoder.event_type).or_insert_with(|| (decoder.decode)(events));
        }
        batch
    }

    /// The events that `E` knows by name, in the order of their positions.
    pub(crate) fn of<E: Event>(&self) -> Arc<Vec<Decoded<E>>> {
        self.decoded
            .get(&TypeId::of::<E>())
            .and_then(|decoded| Arc::clone(decoded).downcast().ok())
            .unwrap_or_else(|| Arc::new(Vec::new()))
    }
}

fn decode_all<E: Event>(events: &[RecordedEvent]) -> Arc<dyn Any + Send + Sync> {
    let decoded: Vec<Decoded<E>> = events
        .iter()
        .filter(|event| event.is_of::<E>())
        .map(|event| Decoded {
            place: EventPlace::of(event),
            event_id: event.event_id,
            recorded_at: event.recorded_at,
            parts: decode(event),
        })
        .collect();
    Arc::new(decoded)
}

fn decode<E: Event>(event: &RecordedEvent) -> Result<Parts<Recorded<E>>, Unreadable> {
    match catch_unwind(AssertUnwindSafe(|| event.typed())) {
        Ok(read) => read.map_err(|error| Unreadable::Read(Arc::new(error))),
        Err(panic) => Err(Unreadable::Panicked(panic_text(panic.as_ref()).into())),
    }
}

impl<E> Decoded<E> {
    /// The W3C trace context under which it was recorded, unless that says that the trace is not kept.
    pub(crate) fn trace_parent(&self) -> Option<&str> {
        let first = self.parts.as_ref().ok()?.as_slice().first()?;
        let trace_parent = first.metadata.trace_parent.as_ref().map(TraceParent::as_str)?;
        (!trace_parent.ends_with("-00")).then_some(trace_parent)
    }

    pub(crate) fn position(&self) -> Position {
        self.place.position
    }
}
