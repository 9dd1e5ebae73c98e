//! Rows per tenant with a key of several columns: required, loaded together, and removed by what their keys begin with.
//! However the events are cut into batches, the rows are those of a plain map per tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_eventstore::{Position, Recorded, Tenant};
use annals_macros::{Event, ReadModel};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::fixture::{Fixture, model};
use crate::batch::{Batch, Decoder};
use crate::database::contract::LookUp;
use crate::fold::Fold;
use crate::folding::{Folding, Step};
use crate::slot::Slot;
use crate::testing::{GivenEvent, given_events};
use crate::{Column, ColumnValue, IndexSpec, Projection, ProjectionError, ReadModel, RowKey, Rows, TableSpec};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub(super) enum LineEvent {
    #[event(name = "line.added")]
    Added { customer: String, order: i64, line: u32 },
    #[event(name = "line.counted")]
    Counted { customer: String, order: i64, line: u32 },
    /// Counts in two lines that must be there.
    #[event(name = "line.paired")]
    Paired { customer: String, order: i64, lines: [u32; 2] },
    /// Takes what a line has, which must be there, into another: the second is looked up when the first is known.
    #[event(name = "line.merged")]
    Merged { customer: String, order: i64, lines: [u32; 2] },
    #[event(name = "line.removed")]
    Removed { customer: String, order: i64, line: u32 },
    #[event(name = "order.erased")]
    OrderErased { customer: String, order: i64 },
    #[event(name = "customer.erased")]
    CustomerErased { customer: String },
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "lines", key("customer", "order_no", "line"), index = "cents", per_tenant)]
pub(super) struct Line {
    customer: String,
    order_no: i64,
    line: u32,
    cents: i64,
}

pub(super) struct Lines;

impl Projection for Lines {
    type Event = LineEvent;
    type Row = Line;

    fn apply(&self, event: &Recorded<LineEvent>, rows: &mut Rows<Line>) -> Result<(), ProjectionError> {
        match event.event.clone() {
            LineEvent::Added { customer, order, line } => {
                rows.upsert(Line { customer, order_no: order, line, cents: 0 });
            }
            LineEvent::Counted { customer, order, line } => {
                let new = || Line { customer: customer.clone(), order_no: order, line, cents: 0 };
                rows.get_or_insert_with(&(customer.clone(), order, line), new)?.cents += 1;
            }
            LineEvent::Paired { customer, order, lines } => {
                let keys = lines.map(|line| (customer.clone(), order, line));
                rows.prefetch(&keys)?;
                for key in &keys {
                    rows.require(key)?.cents += 10;
                }
            }
            LineEvent::Merged { customer, order, lines: [from, to] } => {
                let [from, key] = [from, to].map(|line| (customer.clone(), order, line));
                let cents = rows.require(&from)?.cents;
                rows.remove(&from);
                let new = || Line { customer: customer.clone(), order_no: order, line: to, cents: 0 };
                rows.get_or_insert_with(&key, new)?.cents += cents + 1;
            }
            LineEvent::Removed { customer, order, line } => rows.remove(&(customer, order, line)),
            LineEvent::OrderErased { customer, order } => rows.remove_by_prefix(&(customer, order)),
            LineEvent::CustomerErased { customer } => rows.remove_by_prefix(&customer),
        }
        Ok(())
    }
}

pub(super) type Table = BTreeMap<(String, i64, u32), i64>;

/// What the projection means, written without it; false if a row is missing.
pub(super) fn take_in(table: &mut Table, event: &LineEvent) -> bool {
    match event.clone() {
        LineEvent::Added { customer, order, line } => drop(table.insert((customer, order, line), 0)),
        LineEvent::Counted { customer, order, line } => *table.entry((customer, order, line)).or_default() += 1,
        LineEvent::Paired { customer, order, lines } => {
            let keys = lines.map(|line| (customer.clone(), order, line));
            if !keys.iter().all(|key| table.contains_key(key)) {
                return false;
            }
            for key in keys {
                *table.get_mut(&key).unwrap() += 10;
            }
        }
        LineEvent::Merged { customer, order, lines: [from, to] } => {
            let Some(cents) = table.remove(&(customer.clone(), order, from)) else { return false };
            *table.entry((customer, order, to)).or_default() += cents + 1;
        }
        LineEvent::Removed { customer, order, line } => drop(table.remove(&(customer, order, line))),
        LineEvent::OrderErased { customer, order } => table.retain(|key, _| (&key.0, key.1) != (&customer, order)),
        LineEvent::CustomerErased { customer } => table.retain(|key, _| key.0 != customer),
    }
    true
}

pub(super) fn rows_of(table: &Table) -> Vec<Line> {
    let row = |((customer, order_no, line), cents): (&(String, i64, u32), &i64)| Line {
        customer: customer.clone(),
        order_no: *order_no,
        line: *line,
        cents: *cents,
    };
    table.iter().map(row).collect()
}

/// Names that begin like each other, and like the end of a text.
const CUSTOMERS: [&str; 4] = ["", "a", "ab", "a\u{1}"];

fn random_event(rng: &mut Rng) -> LineEvent {
    let customer = CUSTOMERS[rng.usize(..CUSTOMERS.len())].to_owned();
    let (order, line) = (rng.i64(-1..2), rng.u32(..2));
    match rng.u32(..10) {
        0 | 1 => LineEvent::Added { customer, order, line },
        2 | 3 => LineEvent::Counted { customer, order, line },
        4 => LineEvent::Paired { customer, order, lines: [0, 1] },
        5 | 6 => LineEvent::Merged { customer, order, lines: [line, 1 - line] },
        7 => LineEvent::Removed { customer, order, line },
        8 => LineEvent::OrderErased { customer, order },
        _ => LineEvent::CustomerErased { customer },
    }
}

/// Events that can all be applied, and the table that they make.
pub(super) fn random_events(rng: &mut Rng, events: usize) -> (Vec<LineEvent>, Table) {
    let mut table = Table::new();
    let mut event = || loop {
        let event = random_event(rng);
        if take_in(&mut table, &event) {
            return event;
        }
    };
    let events = (0..events).map(|_| event()).collect();
    (events, table)
}

pub(super) fn seeded() -> Rng {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    Rng::with_seed(seed)
}

#[test]
fn any_batches_remove_by_the_beginning_of_keys_what_a_plain_map_removes() {
    let mut rng = seeded();
    for _ in 0..200 {
        let many = rng.usize(1..14);
        let (events, table) = random_events(&mut rng, many);
        given_events(events.into_iter().map(|event| ("l", event))).with(Lines).then_rows(rows_of(&table));
    }
}

#[test]
fn a_row_written_again_as_it_was_is_there_after_its_customer_was_erased() {
    let added = || LineEvent::Added { customer: "a".into(), order: 1, line: 0 };
    let counted = || LineEvent::Counted { customer: "a".into(), order: 1, line: 0 };
    let erased = LineEvent::CustomerErased { customer: "a".into() };
    let row = Line { customer: "a".into(), order_no: 1, line: 0, cents: 1 };
    let events = [added(), counted(), counted(), erased, counted()];
    given_events(events.map(|event| ("l", event))).with(Lines).then_rows([row]);
}

#[test]
fn a_required_row_that_is_missing_stops_the_projection_and_is_named_with_the_event() {
    let added = |line| LineEvent::Added { customer: "a".into(), order: 1, line };
    let paired = LineEvent::Paired { customer: "a".into(), order: 1, lines: [0, 1] };
    given_events([("l-7", added(0)), ("l-7", paired)]).with(Lines).then_stops_before(
        2,
        "before event `line.paired` at position 2 (`default/aggregate/l-7`, version 2): `lines` has no row with the key that was asked for",
    );
}

#[test]
fn rows_that_are_fetched_together_are_asked_for_at_once() {
    let given = given_events([("l", LineEvent::Paired { customer: "a".into(), order: 1, lines: [0, 1] })]);
    let batch = Batch::decode(given.recorded(), &[Decoder::of::<LineEvent>()]);
    let mut folding = Folding::of(Box::new(Fold::new(Arc::new(Lines), None, &batch, Position::START, Slot::WHOLE)));
    assert!(matches!(folding.step(), Step::Load(keys) if keys.len() == 2));
}

#[test]
fn a_beginning_that_no_key_can_have_stops_the_projection_before_its_event() {
    let erased = LineEvent::CustomerErased { customer: "long".repeat(700) };
    given_events([("l", erased)]).with(Lines).then_stops_before(1, "column `customer` is too long for the key");
}

/// Tenants whose names begin alike.
pub(super) fn tenants() -> [Tenant; 2] {
    ["shop", "shop2"].map(|name| Tenant::new(name).unwrap())
}

/// Events that can all be applied, in turn of both tenants as it happens, and the table of each.
fn random_events_of_two(rng: &mut Rng, events: usize) -> (Vec<(usize, LineEvent)>, [Table; 2]) {
    let mut tables = [Table::new(), Table::new()];
    let mut given = Vec::new();
    while given.len() < events {
        let (tenant, event) = (rng.usize(..2), random_event(rng));
        if take_in(&mut tables[tenant], &event) {
            given.push((tenant, event));
        }
    }
    (given, tables)
}

#[test]
fn no_batch_lets_a_tenant_see_or_remove_the_rows_of_another() {
    let mut rng = seeded();
    for _ in 0..100 {
        let many = rng.usize(1..14);
        let (events, tables) = random_events_of_two(&mut rng, many);
        let given =
            |(tenant, event): (usize, LineEvent)| GivenEvent::of("line", "l", event).tenant(tenants()[tenant].clone());
        let test = given_events(events.into_iter().map(given)).with(Lines);
        for (tenant, table) in tenants().iter().zip(&tables) {
            test.then_rows_of(tenant, rows_of(table));
        }
    }
}

pub(super) async fn rows_of_a_tenant_are_its_own_and_gone_when_their_beginning_was_removed(shop: Fixture) {
    let mut rng = seeded();
    let (events, expected) = random_events_of_two(&mut rng, 80);
    // A part waits in the log when they are started, the rest comes while they run.
    let mut views = None;
    for (number, (tenant, event)) in events.into_iter().enumerate() {
        shop.append_any_of(tenants()[tenant].clone(), "l", [event]).await;
        if number == 30 {
            views = Some(shop.projections().with(Lines).start().await.unwrap());
        }
    }
    let views = views.expect("started");
    views.caught_up(shop.soon()).await.unwrap();
    views.close().await;
    assert_eq!(stored(&shop).await, expected);
    shop.empty::<Lines>().await;
    let views = shop.projections().with(Lines).start().await.unwrap();
    views.caught_up(shop.soon()).await.unwrap();
    views.close().await;
    assert_eq!(stored(&shop).await, expected, "built anew");
}

/// The rows that the table has of all keys there can be, by tenant.
pub(super) async fn stored(shop: &Fixture) -> [Table; 2] {
    let keys = CUSTOMERS.iter().flat_map(|customer| (-1..2).map(move |order| (*customer, order)));
    let keys = keys.flat_map(|(customer, order)| [0_u32, 1].map(|line| (customer.to_owned(), order, line)));
    let keys: Vec<_> = keys.map(|key| key.to_columns()).collect();
    let mut tables = [Table::new(), Table::new()];
    for (tenant, table) in tenants().iter().zip(&mut tables) {
        let keys: Vec<_> = keys.iter().map(|key| [vec![tenant.to_column()], key.clone()].concat()).collect();
        let rows = shop.handle().rows(&model::<Lines>(), &keys).await.unwrap();
        let row = |columns: Vec<ColumnValue>| Line::from_columns(&mut columns.into_iter().skip(1)).unwrap();
        *table = rows.into_iter().map(row).map(|row| (row.key(), row.cents)).collect();
    }
    tables
}

/// A read model whose key forgets the tenant.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "forgetful", key("customer", "order_no"))]
struct Forgetful {
    customer: String,
    order_no: i64,
    lines: i64,
}

struct Forgets;

impl Projection for Forgets {
    type Event = LineEvent;
    type Row = Forgetful;

    fn apply(&self, event: &Recorded<LineEvent>, rows: &mut Rows<Forgetful>) -> Result<(), ProjectionError> {
        if let LineEvent::Added { customer, order, .. } = &event.event {
            let new = || Forgetful { customer: customer.clone(), order_no: *order, lines: 0 };
            rows.get_or_insert_with(&(customer.clone(), *order), new)?.lines += 1;
        }
        Ok(())
    }
}

pub(super) fn added() -> LineEvent {
    LineEvent::Added { customer: "a".into(), order: 1, line: 0 }
}

#[test]
#[should_panic = "`forgetful` merges tenants: when a second tenant has the same events, with the same ids, its rows are"]
fn the_test_kit_finds_a_key_that_forgets_the_tenant() {
    given_events([("l", added())]).with(Forgets).then_rows([Forgetful { customer: "a".into(), order_no: 1, lines: 1 }]);
}

#[test]
fn a_read_model_may_merge_tenants_on_purpose() {
    let row = Forgetful { customer: "a".into(), order_no: 1, lines: 2 };
    let given = tenants().map(|tenant| GivenEvent::of("line", "l", added()).tenant(tenant));
    given_events(given).with(Forgets).across_tenants().then_rows([row]);
}

/// The same, which says so itself.
struct ForgetsOnPurpose;

impl Projection for ForgetsOnPurpose {
    type Event = LineEvent;
    type Row = Forgetful;
    const ACROSS_TENANTS: bool = true;

    fn apply(&self, event: &Recorded<LineEvent>, rows: &mut Rows<Forgetful>) -> Result<(), ProjectionError> {
        Forgets.apply(event, rows)
    }
}

#[test]
fn a_projection_that_merges_tenants_on_purpose_says_so_once_for_all_its_tests() {
    let row = Forgetful { customer: "a".into(), order_no: 1, lines: 1 };
    given_events([("l", added())]).with(ForgetsOnPurpose).then_rows([row]);
}

#[test]
#[should_panic = "`lines` is per tenant, and events of several are given; check the rows of each by `then_rows_of`"]
fn the_rows_of_several_tenants_are_checked_one_by_one() {
    given_events(tenants().map(|tenant| GivenEvent::of("line", "l", added()).tenant(tenant))).with(Lines).then_rows([]);
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum Misspelt {
    #[event(name = "line.aded")]
    Added { customer: String, order: i64, line: u32 },
}

fn misspelt() -> GivenEvent {
    GivenEvent::of("line", "l", Misspelt::Added { customer: "a".into(), order: 1, line: 0 })
}

#[test]
#[should_panic = "event `line.aded` at position 2 (`default/line/l`, version 2) is read by no variant of"]
fn a_name_that_nobody_reads_fails_the_test() {
    let _ = given_events([GivenEvent::of("line", "l", added()), misspelt()]).with(Lines);
}

#[test]
fn stored_events_and_events_of_several_types_are_given_together() {
    let of_a_log = given_events([("l", added())]).recorded().to_vec();
    let events = of_a_log.into_iter().map(GivenEvent::from).chain([misspelt()]);
    given_events(events).except("line.aded").with(Lines).then_rows([Line {
        customer: "a".into(),
        order_no: 1,
        line: 0,
        cents: 0,
    }]);
}

/// Kept by hand: a table per tenant whose tenant is not where it belongs.
#[test]
fn a_table_per_tenant_that_forgets_the_tenant_is_refused() {
    const GOOD: TableSpec = *Line::TABLE;
    assert_eq!(GOOD.check(), Ok(()));
    let without_tenant = GOOD.columns[1..].to_vec().leak();
    for wrong in [
        TableSpec { columns: without_tenant, key: &["customer"], indexes: &[], ..GOOD },
        TableSpec { key: &["customer", "order_no", "line"], ..GOOD },
        TableSpec { key: &["customer", "tenant"], ..GOOD },
        TableSpec { indexes: &[IndexSpec { columns: &["cents"] }], ..GOOD },
    ] {
        let problem = wrong.check().unwrap_err().problem;
        assert!(problem.contains("is per tenant, but `tenant`, text and never null, is not the first"), "{problem}");
    }
    let problem = TableSpec { key: &["tenant"], ..GOOD }.check().unwrap_err().problem;
    assert!(problem.contains("has no key beside `tenant`"), "{problem}");
}
