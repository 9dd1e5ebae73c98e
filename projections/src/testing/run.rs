//! One way of folding given events: cut into batches, and by slots.

use std::sync::Arc;

use annals_eventstore::{Position, RecordedEvent};

use crate::batch::Batch;
use crate::column::ColumnValue;
use crate::folding::{Folding, Step, Stop};
use crate::member::{AnyProjection, Typed};
use crate::memory_table::MemoryTable;
use crate::parking::{Parked, ParkedStreams};
use crate::projection::Projection;
use crate::read_model::ReadModel;
use crate::slot::Slot;

/// A way of folding the events.
#[derive(Clone, Copy)]
pub(super) struct Way<'c> {
    /// Behind how many events a batch ends before the last.
    pub(super) cuts: &'c [usize],
    /// How many slots the streams are divided into; one slot is folded after the other.
    pub(super) slots: u32,
    /// Whether streams are parked.
    pub(super) parks: bool,
}

impl<'c> Way<'c> {
    /// All streams together, until an event cannot be applied.
    pub(super) fn of(cuts: &'c [usize]) -> Self {
        Self { cuts, slots: 1, parks: false }
    }
}

/// What is left when the events are through, or one of them could not be applied.
pub(super) struct Ended {
    pub(super) rows: Vec<Vec<ColumnValue>>,
    pub(super) stop: Option<Stop>,
    /// The streams that were parked, in the order of their events.
    pub(super) parked: Vec<Parked>,
}

/// Folds the events, with the rows going through the table between batches.
#[track_caller]
pub(super) fn run<P: Projection>(typed: &Typed<P>, events: &[RecordedEvent], way: Way<'_>) -> Ended {
    let mut table = MemoryTable::new(P::Row::TABLE);
    let mut parked = Vec::new();
    let mut stop = None;
    for number in 0..way.slots {
        stop = run_slot(typed, events, way, Slot::new(number, way.slots), &mut table, &mut parked);
        if stop.is_some() {
            break;
        }
    }
    parked.sort_by_key(|parked: &Parked| parked.event.position);
    Ended { rows: table.rows(), stop, parked }
}

#[track_caller]
fn run_slot<P: Projection>(
    typed: &Typed<P>,
    events: &[RecordedEvent],
    way: Way<'_>,
    slot: Slot,
    table: &mut MemoryTable,
    parked: &mut Vec<Parked>,
) -> Option<Stop> {
    let mut streams: Arc<ParkedStreams> = Arc::default();
    let mut from = 0;
    for &to in way.cuts.iter().chain([&events.len()]) {
        let batch = Batch::decode(&events[from..to], &[typed.decoder()]);
        while from < to {
            let after = if from == 0 { Position::START } else { events[from - 1].position };
            let mut folding = Folding::of(typed.fold(&batch, after, slot));
            if way.parks {
                folding = folding.parking(Arc::clone(&streams));
            }
            let outcome = loop {
                match folding.step() {
                    Step::Ready(outcome) => break *outcome,
                    Step::Load(keys) => folding.supply(table.load(&keys)),
                }
            };
            table.write(&outcome.changes);
            let of = |parked: &Parked| (parked.event.stream.clone(), parked.event.position);
            Arc::make_mut(&mut streams).extend(outcome.parked.iter().map(of));
            parked.extend(outcome.parked);
            if outcome.stop.is_some() {
                return outcome.stop;
            }
            from = match outcome.applied {
                all if all == folding.fold().len() => to,
                some => {
                    let last = folding.fold().place(some - 1).position;
                    events.partition_point(|event| event.position <= last)
                }
            };
        }
    }
    None
}
