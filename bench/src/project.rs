//! Building the order list from the whole log.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals::{
    Append, EventId, EventStore, EventStoreExt, ExpectedVersion, NewEvent, Projection, ProjectionError, ReadModel,
    Recorded, Rows, SqliteDatabase, SqliteStore, StreamId, Tenant,
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Row};

use crate::report::Report;
use crate::slices::{Tally, report};
use crate::{Fault, baseline, sample};

/// Orders that are under way at once, so that the events of one order lie apart in the log.
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
pub(crate) async fn measure(events: usize, seconds: Duration, alone: bool) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("log.db")).await?;
    fill(&store, events).await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    for round in 0.. {
        let path = folder.path().join(format!("ours-{round}.db"));
        let orders = project(&store, &path, &mut ours).await?;
        assert_eq!(orders, events.div_ceil(STEPS * WINDOW) * WINDOW, "every order is in the list");
        if !alone {
            let path = folder.path().join(format!("theirs-{round}.db"));
            upsert_each(store.database().path(), &path, &mut theirs).await?;
        }
        if ours.busy >= seconds {
            break;
        }
    }
    store.close().await;
    let name = "one upsert statement per event in transactions of 1,000";
    Ok(report("project", "sqlite", 1, ours, (!alone).then_some((name, theirs))))
}

async fn fill(store: &SqliteStore, events: usize) -> Result<(), Fault> {
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

async fn project(store: &SqliteStore, path: &Path, tally: &mut Tally) -> Result<usize, Fault> {
    let database = SqliteDatabase::open(path).await?;
    let head = store.head().await?.position;
    let start = Instant::now();
    let views =
        annals::Projections::over(store.shared()).into_database(database.clone()).with(OrderList).start().await?;
    views.wait_for(head, Duration::from_secs(600)).await?;
    tally.add(u64::try_from(head.get())?, start.elapsed(), [start.elapsed()]);
    views.close().await;
    let mut reader = database.read().await?;
    let rows =
        sqlx::query("SELECT count(*) FROM order_list WHERE status = 'delivered'").fetch_all(&mut *reader).await?;
    drop(reader);
    database.close().await;
    Ok(usize::try_from(rows[0].get::<i64, _>(0))?)
}

const CREATE: &str = "
    CREATE TABLE order_list (
        order_id TEXT NOT NULL, customer TEXT NOT NULL, status TEXT NOT NULL, cents INTEGER NOT NULL,
        placed_at INTEGER NOT NULL, PRIMARY KEY (order_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX order_list_status ON order_list (status);
    CREATE TABLE checkpoint (position INTEGER NOT NULL)
";

const UPSERT: &str = "
    INSERT INTO order_list (order_id, customer, status, cents, placed_at)
    VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (order_id) DO UPDATE SET status = excluded.status
";

const PAGE: &str = "
    SELECT position, aggregate_id, event_type, event_data, recorded_at
    FROM events
    WHERE position > ?1
    ORDER BY position
    LIMIT 1000
";

/// What one writes without a framework: a page of events, one statement each, commit with the checkpoint.
async fn upsert_each(log: &Path, path: &Path, tally: &mut Tally) -> Result<(), Fault> {
    let path: PathBuf = path.to_owned();
    let mut reader = baseline::sqlite::connection(log).await?;
    let options = baseline::sqlite::options(&path).create_if_missing(true);
    let mut writer = sqlx::SqliteConnection::connect_with(&options).await?;
    let start = Instant::now();
    sqlx::raw_sql(CREATE).execute(&mut writer).await?;
    let (mut after, mut count) = (0_i64, 0);
    loop {
        let page = sqlx::query(PAGE).bind(after).fetch_all(&mut reader).await?;
        let Some(last) = page.last() else { break };
        after = last.get(0);
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
        for row in &page {
            let data: &str = row.get(3);
            let event: OrderEvent = match row.get::<&str, _>(2) {
                "order.placed" => {
                    let placed: Placed = serde_json::from_str(data)?;
                    OrderEvent::Placed { customer: placed.customer, cents: placed.cents }
                }
                "order.paid" => {
                    let paid: Paid = serde_json::from_str(data)?;
                    OrderEvent::Paid { payment: paid.payment, cents: paid.cents }
                }
                "order.reserved" => {
                    OrderEvent::Reserved { warehouse: serde_json::from_str::<Reserved>(data)?.warehouse }
                }
                "order.shipped" => {
                    let shipped: Shipped = serde_json::from_str(data)?;
                    OrderEvent::Shipped { carrier: shipped.carrier, tracking: shipped.tracking }
                }
                _ => OrderEvent::Delivered { signed_by: serde_json::from_str::<Delivered>(data)?.signed_by },
            };
            let (customer, cents) = match &event {
                OrderEvent::Placed { customer, cents } => (customer.as_str(), *cents),
                _ => ("", 0),
            };
            sqlx::query(UPSERT)
                .bind(row.get::<String, _>(1))
                .bind(customer.to_owned())
                .bind(event.status())
                .bind(cents)
                .bind(row.get::<i64, _>(4))
                .execute(&mut *transaction)
                .await?;
            count += 1;
        }
        sqlx::query("UPDATE checkpoint SET position = ?1").bind(after).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    tally.add(count, start.elapsed(), [start.elapsed()]);
    writer.close().await?;
    Ok(reader.close().await?)
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
