//! One batch of one projection, step by step: what to load, and at last what to write. Pure; the runner and the test kit
//! call `step`.

use std::sync::Arc;

use annals_eventstore::Position;

use crate::changes::Changes;
use crate::column::ColumnValue;
use crate::error::{EventPlace, StopCause};
use crate::fold::{AnyFold, Loaded, Round};
use crate::parking::{Parked, ParkedStreams, PassedOver};

/// After this many rounds that did not pay the folding tries only half of the events: chains of lookups that lead from event to
/// event cost a round each, and a shorter batch makes a round cheaper.
const ROUNDS_BEFORE_HALVING: usize = 16;

/// A round pays if it asks for at least one row for so many events that it applies again.
const EVENTS_PER_ROW: usize = 16;

/// After this many rounds, also if they paid, the same: an event that never has enough must come to be tried alone.
const MOST_ROUNDS_TOGETHER: usize = 1_000;

/// The most rounds for a single event.
const MOST_ROUNDS: usize = 20_000;

/// The most rounds for a single event that make no more lookups than the one before. So many are taken for a fold that is not pure.
const MOST_STALLED: usize = 1_000;

/// About how many bytes of rows are loaded for a batch, which ends before the first event that needs more; and about how many a batch
/// writes, by what those before it wrote.
pub(crate) const MOST_LOADED: usize = 16 << 20;

/// What to do next.
pub(crate) enum Step {
    /// Load the rows of these keys, supply them, and step again.
    Load(Vec<Vec<ColumnValue>>),
    /// Write this.
    Ready(Box<Outcome>),
}

/// What became of a batch, or of its beginning.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How many events the changes stand for; those that were passed over are among them.
    pub(crate) applied: usize,
    /// What to write.
    pub(crate) changes: Changes,
    /// Why the projection cannot go on behind those events, if it cannot.
    pub(crate) stop: Option<Stop>,
    /// The streams to park, in the order of the events that they are parked for. Their rows in `changes` are as they were before these.
    pub(crate) parked: Vec<Parked>,
    /// How many events of each parked stream were passed over.
    pub(crate) passed_over: Vec<PassedOver>,
}

/// Why a projection cannot go on, and whose fault it is.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) event: Option<EventPlace>,
    pub(crate) cause: StopCause,
}

impl Stop {
    /// What is no single event's fault.
    pub(crate) fn of(cause: StopCause) -> Self {
        Self { event: None, cause }
    }
}

/// A fold on its way through a batch.
pub(crate) struct Folding {
    fold: Box<dyn AnyFold>,
    /// How many events are tried; later ones wait for another folding, or until someone fixes the fold.
    limit: usize,
    rounds: usize,
    /// How many of them did not pay.
    unpaid: usize,
    /// How many rounds of a single event were no step forward, and how many lookups the last one made.
    stalled: usize,
    looked_up: usize,
    stop: Option<Stop>,
}

impl Folding {
    pub(crate) fn of(fold: Box<dyn AnyFold>) -> Self {
        let limit = fold.len();
        Self { fold, limit, rounds: 0, unpaid: 0, stalled: 0, looked_up: 0, stop: None }
    }

    /// The same of a stream projection that parks streams, of which `parked` are parked already. An event that cannot be applied then
    /// ends its stream and not the work.
    pub(crate) fn parking(mut self, parked: Arc<ParkedStreams>) -> Self {
        self.fold.allow_parking(parked);
        self
    }

    /// The same for so many events at most.
    pub(crate) fn at_most(mut self, events: usize) -> Self {
        self.limit = self.limit.min(events);
        self
    }

    /// The first event cannot be applied.
    pub(crate) fn refuse_first(&mut self, cause: StopCause) {
        self.set_aside(vec![(0, cause)]);
    }

    /// The same for the events that are not after `end`.
    pub(crate) fn up_to(fold: Box<dyn AnyFold>, end: Position) -> Self {
        let events: Vec<usize> = (0..fold.len()).collect();
        let limit = events.partition_point(|&event| fold.place(event).position <= end);
        Self { limit, ..Self::of(fold) }
    }

    /// How many events are tried.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn fold(&self) -> &dyn AnyFold {
        self.fold.as_ref()
    }

    /// Continues until rows are missing or the work is done. An event that cannot be applied ends the work before it; what the
    /// events before it made is kept.
    pub(crate) fn step(&mut self) -> Step {
        while self.limit > 0 {
            match self.fold.round(self.limit) {
                // What is in memory is enough for the events before.
                Round::Missing { first, .. } if self.room() == 0 => self.limit = first.max(1),
                Round::Missing { keys, .. } if self.limit == 1 => {
                    self.count_round_of_one();
                    match self.rounds < MOST_ROUNDS && self.stalled < MOST_STALLED {
                        true => return Step::Load(keys),
                        false => self.set_aside(vec![(0, StopCause::NeverSatisfied(self.rounds))]),
                    }
                }
                Round::Missing { keys, .. } => {
                    self.rounds += 1;
                    self.unpaid += usize::from(keys.len() * EVENTS_PER_ROW < self.limit);
                    if self.unpaid <= ROUNDS_BEFORE_HALVING && self.rounds <= MOST_ROUNDS_TOGETHER {
                        return Step::Load(keys);
                    }
                    self.only(self.limit / 2);
                }
                Round::Failed(failed) => self.set_aside(failed),
                Round::Done => match self.fold.changes() {
                    Ok(changes) => return self.ready(changes),
                    Err(bad) => {
                        self.set_aside(bad.into_iter().map(|(by, error)| (by, StopCause::Row(error))).collect());
                    }
                },
            }
        }
        self.ready(Changes::default())
    }

    fn ready(&mut self, changes: Changes) -> Step {
        let (parked, passed_over) = self.fold.take_parked(self.limit);
        let outcome = Outcome { applied: self.limit, changes, stop: self.stop.take(), parked, passed_over };
        Step::Ready(Box::new(outcome))
    }

    /// How many bytes of rows may be loaded for the last step. More are loaded only for a single event.
    pub(crate) fn room(&self) -> usize {
        if self.limit == 1 { usize::MAX } else { MOST_LOADED.saturating_sub(self.fold.loaded()) }
    }

    /// Takes what the table has of the rows that the last step asked for.
    pub(crate) fn supply(&mut self, loaded: impl Into<Loaded>) {
        let Err(error) = self.fold.supply(loaded.into()) else { return };
        // Which event asked for the row shows when it is alone.
        match self.limit {
            1 => self.set_aside(vec![(0, StopCause::Row(error))]),
            events => self.only(events / 2),
        }
    }

    /// Tries so many events from now on.
    fn only(&mut self, limit: usize) {
        (self.limit, self.rounds, self.unpaid) = (limit, 0, 0);
    }

    fn count_round_of_one(&mut self) {
        self.rounds += 1;
        // The same event makes the same lookups again, and then another.
        self.stalled += usize::from(self.fold.looked_up() <= self.looked_up);
        self.looked_up = self.fold.looked_up();
    }

    /// Parks the streams of these events, up to the first for which the projection must stop.
    fn set_aside(&mut self, mut failed: Vec<(usize, StopCause)>) {
        failed.sort_by_key(|(index, _)| *index);
        for (index, cause) in failed {
            if let Err(cause) = self.fold.park(index, cause) {
                return self.stop_before(index, cause);
            }
        }
    }

    fn stop_before(&mut self, index: usize, cause: StopCause) {
        self.stop = Some(Stop { event: Some(self.fold.place(index)), cause });
        self.limit = index;
    }
}
