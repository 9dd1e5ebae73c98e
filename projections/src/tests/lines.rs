//! Rows with a key of several columns: required, loaded together, and removed by what their keys begin with. However the
//! events are cut into batches, the rows are those of a plain map.

use std::collections::BTreeMap;

use annals_eventstore::Recorded;
use annals_macros::{Event, ReadModel};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::fixture::{Fixture, model};
use crate::database::contract::LookUp;
use crate::testing::given_events;
use crate::{ColumnValue, Projection, ProjectionError, ReadModel, RowKey, Rows};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub(super) enum LineEvent {
    #[event(name = "line.added")]
    Added { customer: String, order: i64, line: u32 },
    #[event(name = "line.counted")]
    Counted { customer: String, order: i64, line: u32 },
    /// Counts in two lines that must be there.
    #[event(name = "line.paired")]
    Paired { customer: String, order: i64, lines: [u32; 2] },
    #[event(name = "line.removed")]
    Removed { customer: String, order: i64, line: u32 },
    #[event(name = "order.erased")]
    OrderErased { customer: String, order: i64 },
    #[event(name = "customer.erased")]
    CustomerErased { customer: String },
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "lines", key("customer", "order_no", "line"))]
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
            LineEvent::Removed { customer, order, line } => rows.remove(&(customer, order, line)),
            LineEvent::OrderErased { customer, order } => rows.remove_by_prefix(&(customer, order)),
            LineEvent::CustomerErased { customer } => rows.remove_by_prefix(&customer),
        }
        Ok(())
    }
}

type Table = BTreeMap<(String, i64, u32), i64>;

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
    match rng.u32(..8) {
        0 | 1 => LineEvent::Added { customer, order, line },
        2 | 3 => LineEvent::Counted { customer, order, line },
        4 => LineEvent::Paired { customer, order, lines: [0, 1] },
        5 => LineEvent::Removed { customer, order, line },
        6 => LineEvent::OrderErased { customer, order },
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
    given_events([("l", added()), ("l", counted()), ("l", erased), ("l", counted())]).with(Lines).then_rows([row]);
}

#[test]
fn a_required_row_that_is_missing_stops_the_projection_and_is_named_with_the_event() {
    let added = |line| LineEvent::Added { customer: "a".into(), order: 1, line };
    let paired = LineEvent::Paired { customer: "a".into(), order: 1, lines: [0, 1] };
    given_events([("l-7", added(0)), ("l-7", paired)]).with(Lines).then_stops_before(
        2,
        "before event `line.paired` at position 2 (`default/aggregate/l-7`, version 2): there is no row `\"a\", 1, 1` in `lines`",
    );
}

#[test]
fn a_beginning_that_no_key_can_have_stops_the_projection_before_its_event() {
    let erased = LineEvent::CustomerErased { customer: "a\0".into() };
    given_events([("l", erased)]).with(Lines).then_stops_before(1, "column `customer` holds the character U+0000");
}

pub(super) async fn rows_removed_by_the_beginning_of_their_keys_are_gone_in_any_batches(shop: Fixture) {
    let mut rng = seeded();
    let mut expected = Table::new();
    for round in 0..2 {
        // The first half waits in the log when they are started, the second comes while they run.
        let views = match round {
            0 => None,
            _ => Some(shop.projections().with(Lines).start().await.unwrap()),
        };
        let mut last = None;
        for _ in 0..40 {
            let event = random_event(&mut rng);
            if take_in(&mut expected, &event) {
                last = Some(shop.append_any("l", [event]).await);
            }
        }
        if let (Some(views), Some(last)) = (views, last) {
            views.wait_for(last, shop.soon()).await.unwrap();
            views.close().await;
        }
    }
    assert_eq!(stored(&shop).await, expected);
    shop.empty::<Lines>().await;
    let views = shop.projections().with(Lines).start().await.unwrap();
    views.caught_up(shop.soon()).await.unwrap();
    views.close().await;
    assert_eq!(stored(&shop).await, expected, "built anew");
}

/// The rows that the table has of all keys there can be.
async fn stored(shop: &Fixture) -> Table {
    let keys = CUSTOMERS.iter().flat_map(|customer| (-1..2).map(move |order| (*customer, order)));
    let keys = keys.flat_map(|(customer, order)| [0_u32, 1].map(|line| (customer.to_owned(), order, line)));
    let keys: Vec<_> = keys.map(|key| key.to_columns()).collect();
    let rows = shop.handle().rows(&model::<Lines>(), &keys).await.unwrap();
    let row = |columns: Vec<ColumnValue>| Line::from_columns(&mut columns.into_iter()).unwrap();
    rows.into_iter().map(row).map(|row| (row.key(), row.cents)).collect()
}
