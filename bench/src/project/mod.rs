//! Building the order list from the whole log.

mod kinds;
mod postgres;
mod processes;
mod sqlite;

pub(crate) use processes::part;

use std::time::{Duration, Instant};

use annals::{
    Append, EventId, EventStore, ExpectedVersion, NewEvent, ProjectionsBuilder, StreamId, StreamProjection, Tenant,
};
use serde::{Deserialize, Serialize};

use crate::project::kinds::OrderList;
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

/// Measures how fast the order list is built; the unit is one event.
pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    if !(1..=3).contains(&options.projections) {
        return Err("`--projections` is 1 to 3".into());
    }
    match options.store {
        Store::Postgres if options.processes > 1 => processes::measure(options).await,
        Store::Memory => Err("projections need a database: use `--store sqlite` or `--store postgres`".into()),
        Store::Sqlite => sqlite::measure(options).await,
        Store::Postgres => postgres::measure(options).await,
    }
}

/// What our rate is compared with.
#[derive(Clone, Copy)]
enum Baseline {
    /// The list that is written statement by statement.
    Upserts,
    /// Ours, with leases that are never renewed while it is measured.
    LongLeases,
    /// Ours, of one projection.
    OneProjection,
    /// Ours, of a stream projection that is not divided.
    OneSlot,
}

impl Baseline {
    fn of(options: &Options) -> Option<Self> {
        match options {
            Options { alone: true, .. } => None,
            Options { slots: Some(_), .. } => Some(Self::OneSlot),
            Options { lease_ms: Some(_), .. } => Some(Self::LongLeases),
            Options { projections: 2.., .. } => Some(Self::OneProjection),
            _ => Some(Self::Upserts),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Upserts => "one upsert statement per event in transactions of 1,000",
            Self::LongLeases => "annals with leases of an hour",
            Self::OneProjection => "annals with one projection",
            Self::OneSlot => "annals with one slot",
        }
    }

    /// How ours is run as the baseline.
    fn ours(self, options: &Options) -> Ours {
        match self {
            Self::LongLeases => Ours { lease: LONG_LEASE, ..Ours::of(options) },
            Self::OneSlot => Ours { slots: Some(1), ..Ours::of(options) },
            Self::OneProjection | Self::Upserts => Ours { projections: 1, ..Ours::of(options) },
        }
    }
}

/// How ours is run.
#[derive(Clone, Copy)]
struct Ours {
    projections: usize,
    lease: Duration,
    /// The slots of a stream projection in place of the others.
    slots: Option<u32>,
}

impl Ours {
    fn of(options: &Options) -> Self {
        let lease = options.lease_ms.map_or(DEFAULT_LEASE, Duration::from_millis);
        Self { projections: options.projections, lease, slots: options.slots }
    }

    fn projections(self, views: ProjectionsBuilder) -> ProjectionsBuilder {
        if let Some(slots) = self.slots {
            return views.lease(self.lease).with(kinds::SplitList.slots(slots));
        }
        let mut views = views.lease(self.lease).with(OrderList);
        if self.projections > 1 {
            views = views.with(kinds::SecondList);
        }
        if self.projections > 2 {
            views = views.with(kinds::ThirdList);
        }
        views
    }
}

/// As of `ProjectionsBuilder::lease`.
const DEFAULT_LEASE: Duration = Duration::from_secs(5);
const LONG_LEASE: Duration = Duration::from_secs(3_600);

/// Counts the orders whose rows are complete.
const DELIVERED: &str = "SELECT count(*) FROM order_list WHERE status = 'delivered'";
/// The same in the list that is split into slots.
const DELIVERED_SPLIT: &str = "SELECT count(*) FROM order_list_split WHERE status = 'delivered'";

fn delivered(options: &Options) -> &'static str {
    if options.slots.is_some() { DELIVERED_SPLIT } else { DELIVERED }
}

/// How many orders a log of this many events has.
fn orders(events: usize) -> i64 {
    i64::try_from(events.div_ceil(STEPS * WINDOW) * WINDOW).unwrap_or_default()
}

/// Builds the list from the beginning to the head of the log.
async fn build(store: &impl EventStore, views: ProjectionsBuilder, ours: Ours, tally: &mut Tally) -> Result<(), Fault> {
    let head = store.head().await?.position;
    let start = Instant::now();
    let views = ours.projections(views).start().await?;
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
