//! Streams that a fold has set aside, so that the others go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use annals_eventstore::{Position, StreamId};

use crate::error::{EventPlace, StopCause};

/// A stream that is set aside because of an event that cannot be applied or read. Its row is as the events before that one left it.
#[derive(Debug)]
pub(crate) struct Parked {
    /// The event; it names the stream.
    pub(crate) event: EventPlace,
    pub(crate) cause: StopCause,
}

/// How many events of a parked stream were passed over; the one that it was parked for is not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassedOver {
    pub(crate) stream: StreamId,
    pub(crate) events: u64,
}

/// Streams that are parked, each from the event at this position on. Those before it are not passed over: they are applied again
/// after the checkpoint was put back, or the read model begun anew.
pub(crate) type ParkedStreams = HashMap<StreamId, Position>;

/// The parked streams that a fold knows of.
#[derive(Debug)]
pub(crate) struct Parking {
    /// Those that were parked before the batch.
    before: Arc<ParkedStreams>,
    /// Those that are parked in it, with the number of the event in the batch and why.
    here: HashMap<StreamId, (usize, StopCause)>,
}

impl Parking {
    pub(crate) fn of(before: Arc<ParkedStreams>) -> Self {
        Self { before, here: HashMap::new() }
    }

    /// Whether the event with this number is not applied.
    pub(crate) fn passes_over(&self, index: usize, event: &EventPlace) -> bool {
        let is_parked_before = self.before.get(&event.stream).is_some_and(|parked_at| *parked_at <= event.position);
        is_parked_before || self.here.get(&event.stream).is_some_and(|(parked_at, _)| *parked_at <= index)
    }

    /// Parks the stream from the event with this number on.
    pub(crate) fn park(&mut self, index: usize, stream: StreamId, cause: StopCause) {
        self.here.insert(stream, (index, cause));
    }

    /// The streams that are parked at one of `events`, by their places; and how many of the events were passed over.
    pub(crate) fn take(&mut self, events: &[&EventPlace]) -> (Vec<Parked>, Vec<PassedOver>) {
        let mut passed_over: BTreeMap<&StreamId, u64> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            let is_first = self.here.get(&event.stream).is_some_and(|(parked_at, _)| *parked_at == index);
            if !is_first && self.passes_over(index, event) {
                *passed_over.entry(&event.stream).or_default() += 1;
            }
        }
        let mut parked: Vec<_> = self.here.drain().filter(|(_, (index, _))| *index < events.len()).collect();
        parked.sort_unstable_by_key(|(_, (index, _))| *index);
        let parked =
            parked.into_iter().map(|(_, (index, cause))| Parked { event: events[index].clone(), cause }).collect();
        let passed_over =
            passed_over.into_iter().map(|(stream, events)| PassedOver { stream: stream.clone(), events }).collect();
        (parked, passed_over)
    }
}
