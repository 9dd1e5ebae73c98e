//! Is this append one that is stored already? The rule, for every store.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::appended::{Appended, AppendedStream};
use crate::checked::CheckedAppend;
use crate::error::{AppendError, Repeat};
use crate::event::{EventId, RecordedEvent};
use crate::payload::Payload;
use crate::position::Position;
use crate::stream::{StreamId, StreamVersion};

/// What the rule must know about a stored event that has one of an append's ids.
#[derive(Clone, Debug)]
pub(crate) struct StoredEvent {
    pub(crate) stream: StreamId,
    pub(crate) version: StreamVersion,
    pub(crate) position: Position,
    pub(crate) name: Arc<str>,
    pub(crate) schema_version: u32,
    pub(crate) payload: Payload,
    pub(crate) append_id: Option<Uuid>,
    pub(crate) recorded_at: Timestamp,
}

impl StoredEvent {
    /// What the rule must know of a recorded event.
    pub(crate) fn of(event: &RecordedEvent) -> Self {
        Self {
            stream: event.stream.clone(),
            version: event.version,
            position: event.position,
            name: event.name.clone(),
            schema_version: event.schema_version,
            payload: event.payload.clone(),
            append_id: event.append_id,
            recorded_at: event.recorded_at,
        }
    }
}

impl CheckedAppend {
    /// Whether this same append is stored already, and if so, its first answer. `stored` must return the recorded event with
    /// an id, of any tenant and stream, if there is one.
    ///
    /// Call it in the transaction of the append, before the versions: a duplicate gets its answer whatever version it expects.
    ///
    /// # Errors
    /// [`AppendError::EventIdTaken`] if some of the ids are stored, but not as this append.
    pub fn find_repeat<'a>(
        &self,
        mut stored: impl FnMut(EventId) -> Option<&'a RecordedEvent>,
    ) -> Result<Option<Appended>, AppendError> {
        let found = self.events().filter_map(|(_, event)| stored(event.event_id));
        find_duplicate(self, &found.map(|event| (event.event_id, StoredEvent::of(event))).collect())
    }
}

/// Decides between a new append (`None`), the very append that is stored already (its first answer), and a mixture,
/// which is refused. `stored` holds every stored event that has an id of the append; it may hold others.
pub(crate) fn find_duplicate(
    append: &CheckedAppend,
    stored: &HashMap<EventId, StoredEvent>,
) -> Result<Option<Appended>, AppendError> {
    let found = append.events().filter(|(_, event)| stored.contains_key(&event.event_id)).count();
    if found == 0 {
        return Ok(None);
    }
    let taken = |event_id: EventId, stream: &StreamId, how: Repeat| {
        Err(AppendError::EventIdTaken { event_id, stream: stream.clone(), how })
    };
    let mut recorded_at = None;
    for (stream, event) in append.events() {
        let Some(known) = stored.get(&event.event_id) else { continue };
        if known.stream != *stream {
            return taken(event.event_id, stream, Repeat::OtherStream);
        }
        let same_content =
            known.name == event.name && known.schema_version == event.schema_version && known.payload == event.payload;
        if !same_content {
            return taken(event.event_id, stream, Repeat::OtherContent);
        }
        if found < append.event_count {
            return taken(event.event_id, stream, Repeat::OnlySome);
        }
        if known.append_id != append.append_id {
            return taken(event.event_id, stream, Repeat::OtherAppend);
        }
        recorded_at.get_or_insert(known.recorded_at);
    }
    let streams = append
        .parts
        .iter()
        .map(|part| AppendedStream {
            stream: part.stream.clone(),
            version: part
                .events
                .last()
                .and_then(|e| stored.get(&e.event_id))
                .map_or(StreamVersion::NONE, |e| e.version),
            positions: part.events.iter().filter_map(|e| stored.get(&e.event_id)).map(|e| e.position).collect(),
        })
        .collect();
    Ok(recorded_at.map(|at| Appended::new(streams, at, true)))
}
