//! Building the order list from the whole log.

mod postgres;
mod sqlite;

use std::time::{Duration, Instant};

use annals::{
    Append, EventId, EventStore, ExpectedVersion, NewEvent, Projection, ProjectionError, ProjectionsBuilder, ReadModel,
    Recorded, Rows, StreamId, Tenant,
};
use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::slices::Tally;
use crate::{Fault, Options, Store, sample};

/// Orders in progress at once, so that their events are interleaved in the log.
const WINDOW: usize = 64;
/// Events of one order.
const STEPS: usize = 5;

/// What happens to an order here.
#[derive(annals::Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed { customer: String, cents: i64 },
    #[event(name = "order.paid")]
    Paid { payment: String, cents: i64 },
    #[event(name = "order.reserved")]
    Reserved { warehouse: String },
    #[event(name = "order.shipped")]
    Shipped { carrier: String, tracking: String },
    #[event(name = "order.delivered")]
    Delivered { signed_by: String },
}

impl OrderEvent {
    fn step(step: usize, order: usize) -> Self {
        let cents = i64::try_from(order % 10_000).unwrap_or_default();
        match step {
            0 => Self::Placed { customer: format!("customer-{}", order % 1_000), cents },
            1 => Self::Paid { payment: format!("payment-{order:012}"), cents },
            2 => Self::Reserved { warehouse: "north".to_owned() },
            3 => Self::Shipped { carrier: "snail".to_owned(), tracking: format!("SN-{order}") },
            _ => Self::Delivered { signed_by: "the customer".to_owned() },
        }
    }

    /// The event of this name with this payload.
    fn read(name: &str, payload: &str) -> Result<Self, Fault> {
        Ok(match name {
            "order.placed" => {
                let placed: Placed = serde_json::from_str(payload)?;
                Self::Placed { customer: placed.customer, cents: placed.cents }
            }
            "order.paid" => {
                let paid: Paid = serde_json::from_str(payload)?;
                Self::Paid { payment: paid.payment, cents: paid.cents }
            }
            "order.reserved" => Self::Reserved { warehouse: serde_json::from_str::<Reserved>(payload)?.warehouse },
            "order.shipped" => {
                let shipped: Shipped = serde_json::from_str(payload)?;
                Self::Shipped { carrier: shipped.carrier, tracking: shipped.tracking }
            }
            _ => Self::Delivered { signed_by: serde_json::from_str::<Delivered>(payload)?.signed_by },
        })
    }

    /// Customer and cents, as the first event of an order has them.
    fn customer_and_cents(&self) -> (&str, i64) {
        match self {
            Self::Placed { customer, cents } => (customer, *cents),
            _ => ("", 0),
        }
    }

    fn status(&self) -> &'static str {
        match self {
            Self::Placed { .. } => "placed",
            Self::Paid { .. } => "paid",
            Self::Reserved { .. } => "reserved",
            Self::Shipped { .. } => "shipped",
            Self::Delivered { .. } => "delivered",
        }
    }
}

/// One line of the list.
#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id", index = "status")]
struct Listed {
    order_id: String,
    customer: String,
    status: String,
    cents: i64,
    placed_at: jiff::Timestamp,
}

struct OrderList;

impl Projection for OrderList {
    type Event = OrderEvent;
    type Row = Listed;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<Listed>) -> Result<(), ProjectionError> {
        let order_id = event.stream.aggregate_id().to_owned();
        let status = event.event.status().to_owned();
        if let OrderEvent::Placed { customer, cents } = &event.event {
            let (customer, cents, placed_at) = (customer.clone(), *cents, event.recorded_at);
            rows.upsert(Listed { order_id, customer, status, cents, placed_at });
        } else if let Some(row) = rows.get_mut(&order_id)? {
            row.status = status;
        }
        Ok(())
    }
}

/// Measures how fast the order list is built; the unit is one event.
pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    match options.store {
        Store::Memory => Err("projections need a database: use `--store sqlite` or `--store postgres`".into()),
        Store::Sqlite => sqlite::measure(options).await,
        Store::Postgres => postgres::measure(options).await,
    }
}

/// The name of the baseline.
const BASELINE: &str = "one upsert statement per event in transactions of 1,000";

/// Counts the orders whose rows are complete.
const DELIVERED: &str = "SELECT count(*) FROM order_list WHERE status = 'delivered'";

/// How many orders a log of this many events has.
fn orders(events: usize) -> i64 {
    i64::try_from(events.div_ceil(STEPS * WINDOW) * WINDOW).unwrap_or_default()
}

/// Builds the list from the beginning to the head of the log.
async fn build(store: &impl EventStore, views: ProjectionsBuilder, tally: &mut Tally) -> Result<(), Fault> {
    let head = store.head().await?.position;
    let start = Instant::now();
    let views = views.with(OrderList).start().await?;
    views.wait_for(head, Duration::from_secs(600)).await?;
    tally.add(u64::try_from(head.get())?, start.elapsed(), [start.elapsed()]);
    views.close().await;
    Ok(())
}

async fn fill(store: &impl EventStore, events: usize) -> Result<(), Fault> {
    for window in 0..events.div_ceil(STEPS * WINDOW) {
        for step in 0..STEPS {
            let mut append: Option<Append> = None;
            for order in window * WINDOW..(window + 1) * WINDOW {
                let stream = StreamId::new(Tenant::default(), "order", format!("order-{order:09}"))?;
                let event = NewEvent::of(EventId::new(sample::id())?, &OrderEvent::step(step, order))?;
                append = Some(match append {
                    None => Append::to(stream, ExpectedVersion::Any, vec![event]),
                    Some(append) => append.and(stream, ExpectedVersion::Any, vec![event]),
                });
            }
            if let Some(append) = append {
                store.append_many(append).await?;
            }
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Placed {
    customer: String,
    cents: i64,
}

#[derive(Deserialize)]
struct Paid {
    payment: String,
    cents: i64,
}

#[derive(Deserialize)]
struct Reserved {
    warehouse: String,
}

#[derive(Deserialize)]
struct Shipped {
    carrier: String,
    tracking: String,
}

#[derive(Deserialize)]
struct Delivered {
    signed_by: String,
}
