//! What a projection makes of given events, checked in every way in which a runner may cut them into batches.

use std::any::type_name;

use annals_eventstore::{EventId, Position, RecordedEvent, StreamId, Tenant};
use uuid::Uuid;

use crate::changes::Changes;
use crate::column::{Column, ColumnValue};
use crate::error::{EventPlace, StopCause};
use crate::folding::Stop;
use crate::key_order::KeyOrder;
use crate::known_rows::with_tenant;
use crate::member::{AnyProjection, Typed};
use crate::memory_table::MemoryTable;
use crate::parking::Parked;
use crate::projection::Projection;
use crate::read_model::ReadModel;
use crate::stream_options::{MOST_SLOTS, Streams};
use crate::testing::given::AGGREGATE;
use crate::testing::run::{Ended, Way, run};

/// Up to this many events every way of cutting them into batches is tried; beyond it, batches of every size and every
/// single cut.
const ALL_CUTS_UP_TO: usize = 10;

/// A projection and the events it is given; [`given_events`](crate::testing::given_events) makes it and has an example.
///
/// Up to 10 events are cut into batches in every way there is; more, into batches of every size and in two at every
/// place. A stream projection gets them by slots too, of several numbers.
///
/// [`ProjectionTest::then_rows`] also lets a second tenant have the same events, with the same ids, and checks that the rows
/// of each are those that it has alone. So a read model whose key forgets the tenant is found, although no test names one.
pub struct ProjectionTest<P: Projection> {
    typed: Typed<P>,
    events: Vec<RecordedEvent>,
    across_tenants: bool,
}

impl<P: Projection> ProjectionTest<P> {
    #[track_caller]
    pub(crate) fn new(projection: P, events: Vec<RecordedEvent>) -> Self {
        let typed = Typed::new(projection);
        typed.kind().check(P::NAME).unwrap_or_else(|error| panic!("{error}"));
        for event in &events {
            assert!(
                event.is_of::<P::Event>(),
                "{} is read by no variant of `{}`; if `{}` passes over it on purpose, write `.except(\"{}\")` before `with`",
                EventPlace::of(event),
                type_name::<P::Event>(),
                type_name::<P>(),
                event.name,
            );
        }
        let wanted = |event: &RecordedEvent| typed.tenant().is_none_or(|tenant| tenant == event.stream.tenant());
        let is_given = !events.is_empty();
        let mut events: Vec<RecordedEvent> = events.into_iter().filter(wanted).collect();
        assert!(
            !is_given || !events.is_empty(),
            "`{}` wants the events of tenant `{}` alone, and none of them is given; name it by `GivenEvent::tenant`",
            type_name::<P>(),
            typed.tenant().cloned().unwrap_or_default(),
        );
        if let Some(Streams { aggregates: [aggregate], .. }) = typed.kind().0 {
            // Where a test names no aggregate type, the events are of those streams that have rows.
            events.iter_mut().filter(|event| event.stream.aggregate_type() == AGGREGATE).for_each(|event| {
                event.stream = StreamId::new(event.stream.tenant().clone(), aggregate, event.stream.aggregate_id())
                    .unwrap_or_else(|error| panic!("`AGGREGATES`: {error}"));
            });
        }
        Self { typed, events, across_tenants: P::ACROSS_TENANTS }
    }

    /// The read model has rows of several tenants together on purpose: a second tenant with the same events is not tried. A
    /// projection that says so itself, by [`Projection::ACROSS_TENANTS`], does not need it.
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
        // A stream projection whose rows do not tell tenants apart refuses a second one.
        let refuses = self.typed.kind().0.is_some_and(|streams| !streams.tenant_in_key);
        if !self.across_tenants && !refuses && self.typed.tenant().is_none() {
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
        let expected = table_of(tenant, expected);
        for (how, ended) in self.each_way(false) {
            if let Some(stop) = ended.stop {
                panic!("the projection stopped: {}", describe_stop(&stop));
            }
            let rows: Vec<_> = ended.rows.into_iter().filter(|row| looked_at(row)).collect();
            assert_rows::<P::Row>(&how, &rows, &expected);
        }
    }

    /// Folds the events in every way, and gives words for the way with the end.
    fn each_way(&self, parks: bool) -> impl Iterator<Item = (String, Ended)> {
        let how = |cuts: &[usize]| format!("with batches that begin behind events {cuts:?}");
        let all = self.events.len();
        let whole = cuts(all).into_iter().map(move |cuts| (how(&cuts), cuts, 1));
        let numbers: &[u32] = if self.typed.kind().0.is_some() { &[2, 3, MOST_SLOTS] } else { &[] };
        let in_slots = numbers.iter().flat_map(move |&slots| {
            [vec![], (1..all).collect()].map(|cuts| (format!("with {slots} slots, {}", how(&cuts)), cuts, slots))
        });
        whole.chain(in_slots).map(move |(how, cuts, slots)| {
            let ended = run(&self.typed, &self.events, Way { cuts: &cuts, slots, parks });
            (how, ended)
        })
    }

    /// Lets the events happen to a second tenant too, each directly after it or all of them after all, and checks that both
    /// have the rows that each has alone.
    #[track_caller]
    fn check_tenants_apart(&self) {
        let second = self.events.iter().map(of_second_tenant).collect::<Vec<_>>();
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
        let alone: Vec<_> =
            [of(0), of(1)].iter().flat_map(|events| run(&self.typed, events, Way::of(&[])).rows).collect();
        let both: Vec<RecordedEvent> = marked.into_iter().map(|(_, event)| event).collect();
        let one_by_one: Vec<usize> = (1..both.len()).collect();
        let sorted = |mut rows: Vec<Vec<ColumnValue>>| {
            rows.sort_by_cached_key(|row| KeyOrder::of(row.clone()));
            rows
        };
        let alone = sorted(alone);
        for cuts in [vec![], one_by_one] {
            let ended = run(&self.typed, &both, Way::of(&cuts));
            let stopped = ended.stop.map(|stop| format!("the projection stopped {}\n", describe_stop(&stop)));
            let together = sorted(ended.rows);
            assert!(
                stopped.is_none() && together == alone,
                "`{}` merges tenants: when a second tenant has the same events, with the same ids, its rows are\n{}{}but each \
                 tenant alone has\n{}Declare `#[read_model(.., per_tenant)]`, or put the tenant into the key. If it merges \
                 tenants on purpose, write `const ACROSS_TENANTS: bool = true;` in the projection.",
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
            let Some(stop) = run(&self.typed, &self.events, Way::of(&cuts)).stop else {
                panic!("the projection should have stopped, but applied every event");
            };
            let said = describe_stop(&stop);
            let at = stop.event.as_ref().map(|event| event.position);
            assert!(at == Some(position), "the projection should have stopped before event {number}, but: {said}");
            assert!(said.contains(why), "the reason should contain `{why}`, but is: {said}");
        }
    }

    /// Checks that a stream projection with dead letters parks the streams of exactly the events with these numbers (from 1), each for
    /// a reason that contains the text beside it, and that the rows are exactly `expected` then, however the events are cut into
    /// batches and the streams divided into slots.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// use annals_eventstore::Recorded;
    /// use annals_projections::testing::given_events;
    /// use annals_projections::{ProjectionError, StreamProjection, StreamRow};
    ///
    /// struct PerTill;
    ///
    /// impl StreamProjection for PerTill {
    ///     type Event = TillEvent;
    ///     type Row = Takings;
    ///     const AGGREGATES: &'static [&'static str] = &["till"];
    ///
    ///     fn apply(&self, event: &Recorded<TillEvent>, row: &mut StreamRow<Takings>) -> Result<(), ProjectionError> {
    ///         let TillEvent::Sold { cents } = event.event;
    ///         if cents < 0 {
    ///             return Err(ProjectionError::new("who pays the customer?"));
    ///         }
    ///         let till = row.key().clone();
    ///         row.get_or_insert_with(|| Takings { till, cents: 0 }).cents += cents;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let sold = |cents| TillEvent::Sold { cents };
    /// given_events([("t-1", sold(4_50)), ("t-1", sold(-1)), ("t-1", sold(9_99)), ("t-2", sold(1_00))])
    ///     .with(PerTill.dead_letter())
    ///     .then_parks(
    ///         [(2, "who pays the customer?")],
    ///         [Takings { till: "t-1".into(), cents: 4_50 }, Takings { till: "t-2".into(), cents: 1_00 }],
    ///     );
    /// ```
    ///
    /// # Panics
    /// If others are parked, or the rows are others; if it stops, as it does for a stream that it is not declared for; or if the
    /// projection has no dead letters.
    #[track_caller]
    pub fn then_parks<'w>(
        &self,
        parked: impl IntoIterator<Item = (usize, &'w str)>,
        expected: impl IntoIterator<Item = P::Row>,
    ) {
        assert!(self.typed.parks(), "`{}` parks no streams; write `.dead_letter()` behind it", P::NAME);
        let parked: Vec<_> = parked.into_iter().map(|(event, why)| (self.events[event - 1].position, why)).collect();
        let first = self.events.first().map(|event| event.stream.tenant().clone()).unwrap_or_default();
        let expected = table_of(&first, expected);
        for (how, ended) in self.each_way(true) {
            if let Some(stop) = ended.stop {
                panic!("the projection stopped: {}", describe_stop(&stop));
            }
            let found: Vec<_> = ended
                .parked
                .iter()
                .map(|Parked { event, cause }| (event.position, describe(Some(event), cause)))
                .collect();
            let same = found.len() == parked.len()
                && found
                    .iter()
                    .zip(&parked)
                    .all(|(found, (position, why))| found.0 == *position && found.1.contains(why));
            assert!(same, "{how} the streams of {parked:?} should be parked, but are\n{found:#?}");
            assert_rows::<P::Row>(&how, &ended.rows, &expected);
        }
    }
}

/// Rows of one tenant as a table gives them back.
fn table_of<R: ReadModel>(tenant: &Tenant, rows: impl IntoIterator<Item = R>) -> Vec<Vec<ColumnValue>> {
    let mut table = MemoryTable::new(R::TABLE);
    let tenant = R::TABLE.per_tenant.then_some(tenant);
    let written = rows.into_iter().map(|row| with_tenant(tenant, row.to_columns())).collect();
    table.write(&Changes { written, ..Changes::default() });
    table.rows()
}

#[track_caller]
fn assert_rows<R: ReadModel>(how: &str, rows: &[Vec<ColumnValue>], expected: &[Vec<ColumnValue>]) {
    assert!(
        rows == expected,
        "{how} the rows of `{}` are\n{}but expected are\n{}",
        R::TABLE.name,
        show::<R>(rows),
        show::<R>(expected)
    );
}

/// The same event of a tenant beside its own, which no other tenant has beside it.
fn of_second_tenant(event: &RecordedEvent) -> RecordedEvent {
    let stream = &event.stream;
    let beside = |name: &str| Tenant::new(name).expect("a valid name");
    let tenant = Tenant::new(format!("second {}", stream.tenant())).unwrap_or_else(|_| beside("second"));
    let stream = StreamId::new(tenant, stream.aggregate_type(), stream.aggregate_id()).expect("checked before");
    let mut event = event.clone();
    event.stream = stream;
    event
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

fn describe_stop(stop: &Stop) -> String {
    describe(stop.event.as_ref(), &stop.cause)
}

/// A reason with everything behind it.
fn describe(event: Option<&EventPlace>, cause: &StopCause) -> String {
    let mut text = event.map_or_else(String::new, |event| format!("before {event}: "));
    let mut cause: Option<&dyn std::error::Error> = Some(cause);
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
