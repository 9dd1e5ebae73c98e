//! What one statement stores of a group of appends. Pure: depends on expected versions and on what was read of the streams.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::append::{Appended, CheckedAppend, CheckedEvent};
use crate::duplicate::{StoredEvent, find_duplicate};
use crate::error::AppendError;
use crate::event::EventId;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion};

/// What was read for a group. Versions were read first and ids last: an append that moved a stream before its version was
/// read is found by its ids.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) heads: HashMap<StreamId, Head>,
    /// By the place of the append in the group.
    pub(crate) remembered: HashMap<usize, Result<Appended, AppendError>>,
    pub(crate) stored: HashMap<EventId, StoredEvent>,
}

/// Where a stream ends.
#[derive(Clone, Copy, Default)]
pub(crate) struct Head {
    pub(crate) version: i64,
    pub(crate) last_event: Option<EventId>,
}

/// A stream of the statement.
pub(crate) struct Slot<'a> {
    pub(crate) stream: &'a StreamId,
    /// The version that it must have; `None` for any.
    pub(crate) head: Option<i64>,
    /// How many events the statement adds to it.
    added: i64,
    /// The last of them.
    last_event: Option<EventId>,
}

/// A row of the statement.
pub(crate) struct Row<'a> {
    pub(crate) slot: usize,
    /// Its version minus that of its stream.
    pub(crate) above: i64,
    pub(crate) event: &'a CheckedEvent,
    pub(crate) append_id: Option<Uuid>,
    /// The event before it, if the statement must check that it is stored.
    pub(crate) last_event: Option<EventId>,
}

/// An append that the statement carries, and where its rows are.
pub(crate) struct Carried {
    pub(crate) place: usize,
    pub(crate) first_row: usize,
    pub(crate) last_row: usize,
}

/// One statement, and the appends that need none.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    pub(crate) slots: Vec<Slot<'a>>,
    pub(crate) rows: Vec<Row<'a>>,
    pub(crate) carried: Vec<Carried>,
    /// Appends that are answered once the statement has succeeded.
    pub(crate) answered: Vec<(usize, Result<Appended, AppendError>)>,
    /// Appends that cannot be decided without reading the stored state.
    pub(crate) deferred: Vec<usize>,
}

impl<'a> Plan<'a> {
    /// Plans the appends at `places`, in that order; each has one stream and at least one event. Without facts every
    /// expected version is assumed to hold, unless an append before it in the group contradicts it.
    pub(crate) fn of(appends: &'a [CheckedAppend], places: &[usize], mut facts: Option<&mut Facts>) -> Self {
        let mut plan = Plan::default();
        let mut slots: HashMap<&'a StreamId, usize> = HashMap::with_capacity(places.len());
        // Streams with a postponed append. Later appends to them are postponed too, so that each is decided in order.
        let mut put_off: HashSet<&'a StreamId> = HashSet::new();
        // Streams for which some append names a version.
        let parts = places.iter().map(|place| &appends[*place].parts[0]);
        let parts = parts.filter(|part| facts.is_some() && part.expected != ExpectedVersion::Any);
        let named: HashSet<&'a StreamId> = parts.map(|part| &part.stream).collect();
        for &place in places {
            let append = &appends[place];
            let stream = &append.parts[0].stream;
            if put_off.contains(stream) {
                plan.deferred.push(place);
                continue;
            }
            if let Some(facts) = &mut facts
                && let Some(answer) = facts.answer(append, place)
            {
                plan.answered.push((place, answer));
                continue;
            }
            let known = facts.as_deref().map(|facts| facts.heads.get(stream).copied().unwrap_or_default());
            plan.add(append, place, &mut slots, known, named.contains(stream));
            if plan.deferred.last() == Some(&place) {
                put_off.insert(stream);
            }
        }
        plan
    }

    fn add(
        &mut self,
        append: &'a CheckedAppend,
        place: usize,
        slots: &mut HashMap<&'a StreamId, usize>,
        known: Option<Head>,
        named: bool,
    ) {
        let part = &append.parts[0];
        let expected = part.expected.version().map(StreamVersion::get);
        let slot = slots.get(&part.stream).copied();
        // The version before this append, and the last event: read, assumed, or left to the statement.
        let (head, last_event) = match slot.map(|slot| &self.slots[slot]) {
            Some(slot) => (slot.head.map(|head| head.saturating_add(slot.added)), slot.last_event),
            None => match known {
                Some(known) => (Some(known.version), known.last_event),
                None => (expected, part.expected.last_event()),
            },
        };
        let holds = match (head, expected) {
            // Without facts a stream must be one that the group has added to, or its version is read.
            (_, None) if part.expected == ExpectedVersion::StreamExists => {
                slot.is_some() || head.is_some_and(|head| head > 0)
            }
            (_, None) => true,
            (Some(head), Some(expected)) => {
                head == expected && part.expected.last_event().is_none_or(|id| last_event == Some(id))
            }
            (None, Some(_)) => false,
        };
        if !holds {
            match (known, head) {
                (Some(_), Some(actual)) => {
                    let (stream, actual) = (part.stream.clone(), StreamVersion::stored(actual));
                    let conflict = AppendError::WrongExpectedVersion { stream, expected: part.expected, actual };
                    self.answered.push((place, Err(conflict)));
                }
                _ => self.deferred.push(place),
            }
            return;
        }
        let count = i64::try_from(part.events.len()).unwrap_or(i64::MAX);
        if let Some(actual) = head
            && actual.checked_add(count).is_none()
        {
            // Only the stored state shows that a stream is full, never an expected version.
            if known.is_none() {
                self.deferred.push(place);
                return;
            }
            let full = AppendError::StreamFull { stream: part.stream.clone(), actual: StreamVersion::stored(actual) };
            self.answered.push((place, Err(full)));
            return;
        }
        let mut before = None;
        let slot = slot.unwrap_or_else(|| {
            before = part.expected.last_event();
            // Appends that name no version accept any, so the version that was read need not hold.
            let head = known.map(|known| known.version).filter(|_| named).or(expected);
            self.slots.push(Slot { stream: &part.stream, head, added: 0, last_event: None });
            slots.insert(&part.stream, self.slots.len() - 1);
            self.slots.len() - 1
        });
        let first_row = self.rows.len();
        for event in &part.events {
            self.slots[slot].added += 1;
            let above = self.slots[slot].added;
            self.rows.push(Row { slot, above, event, append_id: append.append_id, last_event: before.take() });
            self.slots[slot].last_event = Some(event.event_id);
        }
        self.carried.push(Carried { place, first_row, last_row: self.rows.len() - 1 });
    }
}

impl Facts {
    /// The answer to an append that was stored before, or whose ids belong to other events.
    fn answer(&mut self, append: &CheckedAppend, place: usize) -> Option<Result<Appended, AppendError>> {
        self.remembered.remove(&place).or_else(|| find_duplicate(append, &self.stored).transpose())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
