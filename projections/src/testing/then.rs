//! What a projection makes of given events, checked in every way in which a runner may cut them into batches.

use std::sync::Arc;

use annals_eventstore::{Position, Recorded};

use crate::batch::Batch;
use crate::column::ColumnValue;
use crate::fold::Fold;
use crate::folding::{Folding, Step, Stop};
use crate::projection::Projection;
use crate::read_model::ReadModel;
use crate::testing::MemoryTable;

/// Up to this many events every way of cutting them into batches is tried; beyond it, batches of every size and every
/// single cut.
const ALL_CUTS_UP_TO: usize = 10;

/// A projection and the events it is given; [`given_events`](crate::testing::given_events) makes it and has an example.
///
/// Up to 10 events are cut into batches in every way there is; more, into batches of every size and in two at every
/// place.
pub struct ProjectionTest<P: Projection> {
    projection: Arc<P>,
    events: Vec<Recorded<P::Event>>,
}

/// What is left when the events are through, or one of them could not be applied.
struct Ended {
    rows: Vec<Vec<ColumnValue>>,
    stop: Option<Stop>,
}

impl<P: Projection> ProjectionTest<P>
where
    P::Event: Clone,
{
    pub(crate) fn new(projection: P, events: Vec<Recorded<P::Event>>) -> Self {
        let tenant = projection.tenant();
        let events = events.into_iter().filter(|e| tenant.as_ref().is_none_or(|t| t == e.stream.tenant())).collect();
        Self { projection: Arc::new(projection), events }
    }

    /// Checks that the read model is exactly `expected`, in any order, however the events are cut into batches.
    ///
    /// # Panics
    /// If it is not, with both sides as tables, or if the projection stops, with the reason.
    pub fn then_rows(&self, expected: impl IntoIterator<Item = P::Row>) {
        let mut table = MemoryTable::new(P::Row::TABLE);
        let written = expected.into_iter().map(|row| row.to_columns()).collect();
        table.write(&crate::changes::Changes { written, ..Default::default() });
        let expected = table.rows();
        for cuts in self.cuts() {
            let ended = self.run(&cuts);
            if let Some(stop) = ended.stop {
                panic!("the projection stopped: {}", describe(&stop));
            }
            assert!(
                ended.rows == expected,
                "with batches that begin behind events {cuts:?} the rows of `{}` are\n{}but expected are\n{}",
                P::Row::TABLE.name,
                show::<P::Row>(&ended.rows),
                show::<P::Row>(&expected)
            );
        }
    }

    /// Checks that the projection stops before the event with this number (from 1), and that the reason contains `why`,
    /// however the events are cut into batches.
    ///
    /// # Panics
    /// If it does not, with the reason it gave, or if there is no event with this number.
    pub fn then_stops_before(&self, number: usize, why: &str) {
        let position = self.events[number - 1].position;
        for cuts in self.cuts() {
            let stop = self.run(&cuts).stop.expect("the projection should have stopped, but applied every event");
            let said = describe(&stop);
            let at = stop.event.as_ref().map(|event| event.position);
            assert!(at == Some(position), "the projection should have stopped before event {number}, but: {said}");
            assert!(said.contains(why), "the reason should contain `{why}`, but is: {said}");
        }
    }

    /// Folds the events batch by batch; a batch ends behind each of `cuts`, and the rows go through the table in between.
    fn run(&self, cuts: &[usize]) -> Ended {
        let mut table = MemoryTable::new(P::Row::TABLE);
        let mut from = 0;
        for &to in cuts.iter().chain([&self.events.len()]) {
            let batch = Batch::of_recorded(&self.events[from..to]);
            while from < to {
                let after = if from == 0 { Position::START } else { self.events[from - 1].position };
                let fold = Fold::new(Arc::clone(&self.projection), None, &batch, after);
                let mut folding = Folding::of(Box::new(fold));
                let outcome = loop {
                    match folding.step() {
                        Step::Ready(outcome) => break *outcome,
                        Step::Load(keys) => {
                            folding.supply(table.load(&keys)).unwrap_or_else(|error| panic!("{error}"));
                        }
                    }
                };
                table.write(&outcome.changes);
                from += outcome.applied;
                if outcome.stop.is_some() {
                    return Ended { rows: table.rows(), stop: outcome.stop };
                }
            }
        }
        Ended { rows: table.rows(), stop: None }
    }

    /// Ways of cutting the events: behind which of them a batch ends before the last.
    fn cuts(&self) -> Vec<Vec<usize>> {
        let events = self.events.len();
        if events <= ALL_CUTS_UP_TO {
            let ways = 1_u32 << events.saturating_sub(1);
            return (0..ways).map(|way| (1..events).filter(|at| way & (1 << (at - 1)) != 0).collect()).collect();
        }
        let sizes = (1..=events).map(|size| (size..events).step_by(size).collect());
        let single = (1..events).map(|at| vec![at]);
        sizes.chain(single).collect()
    }
}

/// A reason with everything behind it.
fn describe(stop: &Stop) -> String {
    let mut text = stop.event.as_ref().map_or_else(String::new, |event| format!("before {event}: "));
    let mut cause: Option<&dyn std::error::Error> = Some(&stop.cause);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
        if cause.is_some() {
            text.push_str(": ");
        }
    }
    text
}

/// Rows as lines of text.
fn show<R: ReadModel>(rows: &[Vec<ColumnValue>]) -> String {
    let line = |row: &Vec<ColumnValue>| {
        let values = R::TABLE.columns.iter().zip(row).map(|(column, value)| format!("{}: {value}", column.name));
        format!("    {}\n", values.collect::<Vec<_>>().join(", "))
    };
    if rows.is_empty() { "    (no rows)\n".to_owned() } else { rows.iter().map(line).collect() }
}
