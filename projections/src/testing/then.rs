//! What a projection makes of given events, checked in every way in which a runner may cut them into batches.

use std::any::type_name;
use std::collections::{BTreeSet, HashMap};

use annals_eventstore::{EventId, Position, RecordedEvent, StreamId, Tenant};
use uuid::Uuid;

use crate::batch::Batch;
use crate::changes::Changes;
use crate::column::{Column, ColumnValue};
use crate::error::EventPlace;
use crate::folding::{Folding, Step, Stop};
use crate::key_order::KeyOrder;
use crate::member::{AnyProjection, Typed};
use crate::memory_table::MemoryTable;
use crate::projection::Projection;
use crate::read_model::ReadModel;
use crate::slots::with_tenant;

/// Up to this many events every way of cutting them into batches is tried; beyond it, batches of every size and every
/// single cut.
const ALL_CUTS_UP_TO: usize = 10;

/// A projection and the events it is given; [`given_events`](crate::testing::given_events) makes it and has an example.
///
/// Up to 10 events are cut into batches in every way there is; more, into batches of every size and in two at every
/// place.
///
/// [`ProjectionTest::then_rows`] also lets a second tenant have the same events, with the same ids, and checks that the rows
/// of each are those that it has alone. So a read model whose key forgets the tenant is found, although no test names one.
pub struct ProjectionTest<P: Projection> {
    typed: Typed<P>,
    events: Vec<RecordedEvent>,
    across_tenants: bool,
}

/// What is left when the events are through, or one of them could not be applied.
struct Ended {
    rows: Vec<Vec<ColumnValue>>,
    stop: Option<Stop>,
}

impl<P: Projection> ProjectionTest<P> {
    #[track_caller]
    pub(crate) fn new(projection: P, events: Vec<RecordedEvent>) -> Self {
        let typed = Typed::new(projection);
        for event in &events {
            assert!(
                typed.names().iter().any(|name| **name == *event.name),
                "{} is read by no variant of `{}`; if `{}` passes over it on purpose, write `.except(\"{}\")` before `with`",
                EventPlace::of(event),
                type_name::<P::Event>(),
                type_name::<P>(),
                event.name,
            );
        }
        let wanted = |event: &RecordedEvent| typed.tenant().is_none_or(|tenant| tenant == event.stream.tenant());
        let is_given = !events.is_empty();
        let events: Vec<RecordedEvent> = events.into_iter().filter(wanted).collect();
        assert!(
            !is_given || !events.is_empty(),
            "`{}` wants the events of tenant `{}` alone, and none of them is given; name it by `GivenEvent::tenant`",
            type_name::<P>(),
            typed.tenant().cloned().unwrap_or_default(),
        );
        Self { typed, events, across_tenants: false }
    }

    /// The read model has rows of several tenants together on purpose: a second tenant with the same events is not tried.
    #[must_use]
    pub fn across_tenants(mut self) -> Self {
        self.across_tenants = true;
        self
    }

    /// Checks that the read model is exactly `expected`, in any order, however the events are cut into batches, and that it
    /// keeps tenants apart. If the read model is per tenant, all given events are of one.
    ///
    /// # Panics
    /// If it is not, with both sides as tables, or if the projection stops, with the reason.
    #[track_caller]
    pub fn then_rows(&self, expected: impl IntoIterator<Item = P::Row>) {
        let first = self.events.first().map(|event| event.stream.tenant().clone()).unwrap_or_default();
        assert!(
            !P::Row::TABLE.per_tenant || self.events.iter().all(|event| *event.stream.tenant() == first),
            "`{}` is per tenant, and events of several are given; check the rows of each by `then_rows_of`",
            P::Row::TABLE.name
        );
        self.check_rows(&first, expected, |_| true);
        if !self.across_tenants && self.typed.tenant().is_none() {
            self.check_tenants_apart();
        }
    }

    /// Checks that the rows of `tenant` are exactly `expected`, in any order, however the events are cut into batches: for a read
    /// model per tenant.
    ///
    /// # Panics
    /// If they are not, with both sides as tables, if the projection stops, with the reason, or if the read model is not per
    /// tenant.
    #[track_caller]
    pub fn then_rows_of(&self, tenant: &Tenant, expected: impl IntoIterator<Item = P::Row>) {
        let table = P::Row::TABLE.name;
        assert!(P::Row::TABLE.per_tenant, "`{table}` is not per tenant; check its rows by `then_rows`");
        let is_its_own = tenant.to_column();
        self.check_rows(tenant, expected, |row| row[0] == is_its_own);
    }

    #[track_caller]
    fn check_rows(
        &self,
        tenant: &Tenant,
        expected: impl IntoIterator<Item = P::Row>,
        looked_at: impl Fn(&[ColumnValue]) -> bool,
    ) {
        let mut table = MemoryTable::new(P::Row::TABLE);
        let tenant = P::Row::TABLE.per_tenant.then_some(tenant);
        let written = expected.into_iter().map(|row| with_tenant(tenant, row.to_columns())).collect();
        table.write(&Changes { written, ..Changes::default() });
        let expected = table.rows();
        for cuts in cuts(self.events.len()) {
            let ended = self.run(&self.events, &cuts);
            if let Some(stop) = ended.stop {
                panic!("the projection stopped: {}", describe(&stop));
            }
            let rows: Vec<_> = ended.rows.into_iter().filter(|row| looked_at(row)).collect();
            assert!(
                rows == expected,
                "with batches that begin behind events {cuts:?} the rows of `{}` are\n{}but expected are\n{}",
                P::Row::TABLE.name,
                show::<P::Row>(&rows),
                show::<P::Row>(&expected)
            );
        }
    }

    /// Lets the events happen to a second tenant too, each directly after it or all of them after all, and checks that both
    /// have the rows that each has alone.
    #[track_caller]
    fn check_tenants_apart(&self) {
        let second = of_second_tenants(&self.events);
        let own = || self.events.iter().cloned().map(|event| (0, event));
        let others = || second.iter().cloned().map(|event| (1, event));
        self.check_apart(own().zip(others()).flat_map(|(one, other)| [one, other]));
        // Here what the second one does finds rows of the first that stay.
        self.check_apart(own().chain(others()));
    }

    /// Checks that the rows of events of two, each marked by whose it is, are those that each of the two has alone.
    #[track_caller]
    fn check_apart(&self, events: impl Iterator<Item = (usize, RecordedEvent)>) {
        let marked: Vec<_> = (1..).zip(events).map(|(number, (whose, event))| (whose, at(number, event))).collect();
        let of = |one: usize| {
            let own = marked.iter().filter(|(whose, _)| *whose == one);
            own.map(|(_, event)| event.clone()).collect::<Vec<_>>()
        };
        let alone: Vec<_> = [of(0), of(1)].iter().flat_map(|events| self.run(events, &[]).rows).collect();
        let both: Vec<RecordedEvent> = marked.into_iter().map(|(_, event)| event).collect();
        let one_by_one: Vec<usize> = (1..both.len()).collect();
        let sorted = |mut rows: Vec<Vec<ColumnValue>>| {
            rows.sort_by_cached_key(|row| KeyOrder::of(row.clone()));
            rows
        };
        let alone = sorted(alone);
        for cuts in [vec![], one_by_one] {
            let ended = self.run(&both, &cuts);
            let stopped = ended.stop.map(|stop| format!("the projection stopped {}\n", describe(&stop)));
            let together = sorted(ended.rows);
            assert!(
                stopped.is_none() && together == alone,
                "`{}` merges tenants: when a second tenant has the same events, with the same ids, its rows are\n{}{}but each \
                 tenant alone has\n{}Declare `#[read_model(.., per_tenant)]`, or put the tenant into the key. If it merges \
                 tenants on purpose, write `.across_tenants()` before `then_rows`.",
                P::Row::TABLE.name,
                show::<P::Row>(&together),
                stopped.unwrap_or_default(),
                show::<P::Row>(&alone)
            );
        }
    }

    /// Checks that the projection stops before the event with this number (from 1), and that the reason contains `why`,
    /// however the events are cut into batches.
    ///
    /// # Panics
    /// If it does not, with the reason it gave, or if there is no event with this number.
    #[track_caller]
    pub fn then_stops_before(&self, number: usize, why: &str) {
        let event = number.checked_sub(1).and_then(|at| self.events.get(at));
        let position = event.map(|event| event.position).unwrap_or_else(|| {
            panic!("there is no event {number}; the projection gets {}, counted from 1", self.events.len())
        });
        for cuts in cuts(self.events.len()) {
            let Some(stop) = self.run(&self.events, &cuts).stop else {
                panic!("the projection should have stopped, but applied every event");
            };
            let said = describe(&stop);
            let at = stop.event.as_ref().map(|event| event.position);
            assert!(at == Some(position), "the projection should have stopped before event {number}, but: {said}");
            assert!(said.contains(why), "the reason should contain `{why}`, but is: {said}");
        }
    }

    /// Folds the events batch by batch; a batch ends behind each of `cuts`, and the rows go through the table in between.
    #[track_caller]
    fn run(&self, events: &[RecordedEvent], cuts: &[usize]) -> Ended {
        let mut table = MemoryTable::new(P::Row::TABLE);
        let mut from = 0;
        for &to in cuts.iter().chain([&events.len()]) {
            let batch = Batch::decode(&events[from..to], &[self.typed.decoder()]);
            while from < to {
                let after = if from == 0 { Position::START } else { events[from - 1].position };
                let mut folding = Folding::of(self.typed.fold(&batch, after));
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
}

/// The same events of other tenants: one for each of theirs.
fn of_second_tenants(events: &[RecordedEvent]) -> Vec<RecordedEvent> {
    let given: BTreeSet<&str> = events.iter().map(|event| event.stream.tenant().as_str()).collect();
    let names = std::iter::once("second".to_owned()).chain((3..).map(|number| format!("tenant {number}")));
    let names = names.filter(|name| !given.contains(name.as_str()));
    let seconds: HashMap<&str, String> = given.iter().copied().zip(names).collect();
    let second = |event: &RecordedEvent| {
        let stream = &event.stream;
        let tenant = Tenant::new(&seconds[stream.tenant().as_str()]).expect("a valid name");
        let stream = StreamId::new(tenant, stream.aggregate_type(), stream.aggregate_id()).expect("checked before");
        let mut event = event.clone();
        event.stream = stream;
        event
    };
    events.iter().map(second).collect()
}

/// The same event at another place in the log, with an id of its own.
fn at(number: i64, mut event: RecordedEvent) -> RecordedEvent {
    let id = u128::try_from(number).expect("counts from 1");
    event.position = Position::new(number).expect("counts from 1");
    event.event_id = EventId::new(Uuid::from_u128(id)).expect("not nil");
    event
}

/// Ways of cutting so many events: behind which of them a batch ends before the last.
fn cuts(events: usize) -> Vec<Vec<usize>> {
    if events <= ALL_CUTS_UP_TO {
        let ways = 1_u32 << events.saturating_sub(1);
        return (0..ways).map(|way| (1..events).filter(|at| way & (1 << (at - 1)) != 0).collect()).collect();
    }
    let sizes = (1..=events).map(|size| (size..events).step_by(size).collect());
    let single = (1..events).map(|at| vec![at]);
    sizes.chain(single).collect()
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
