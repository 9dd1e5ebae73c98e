//! Which events behind the checkpoint are handled. Pure.

use std::collections::VecDeque;

use annals_eventstore::{Checkpoint, EventId, Position};

/// The events that were read and are not all handled up to there, in the order of the log.
pub(crate) struct Window {
    /// The number of the first event in `events`.
    first: u64,
    events: VecDeque<Pending>,
    /// The last event up to which all are handled.
    handled: Checkpoint,
    /// Where the log was read to.
    read: Checkpoint,
}

struct Pending {
    position: Position,
    event_id: EventId,
    done: bool,
}

impl Window {
    pub(crate) fn new(at: Checkpoint) -> Self {
        Self { first: 0, events: VecDeque::new(), handled: at, read: at }
    }

    /// How many events it holds.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn read(&self) -> &Checkpoint {
        &self.read
    }

    /// Takes in an event behind all others, and gives its number.
    pub(crate) fn push(&mut self, position: Position, event_id: EventId) -> u64 {
        self.events.push_back(Pending { position, event_id, done: false });
        self.first + self.events.len() as u64 - 1
    }

    /// The events that were taken in are all that concern the reactor up to `read`.
    pub(crate) fn read_to(&mut self, read: Checkpoint) {
        self.read = read;
    }

    /// The event with this number is handled.
    pub(crate) fn done(&mut self, number: u64) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(pending) = at.and_then(|at| self.events.get_mut(at)) {
            pending.done = true;
        }
        while let Some(pending) = self.events.pop_front_if(|pending| pending.done) {
            self.first += 1;
            self.handled = Checkpoint {
                incarnation: self.read.incarnation,
                position: pending.position,
                event_id: Some(pending.event_id),
            };
        }
    }

    /// Up to where everything is handled.
    pub(crate) fn handled(&self) -> Checkpoint {
        if self.events.is_empty() { self.read } else { self.handled }
    }
}
