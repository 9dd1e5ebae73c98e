//! scratch
use annals_eventstore::*;
use annals_macros::{Event, ReadModel};
use annals_projections::{Projection, ProjectionError, ProjectionsExt, Rows};
use serde::{Deserialize, Serialize};
use std::time::Instant;

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed { customer: String, cents: i64, lines: Vec<String> },
    #[event(name = "order.paid")]
    Paid { payment: String, cents: i64 },
    #[event(name = "order.shipped")]
    Shipped { tracking: String, carrier: String },
    #[event(name = "order.delivered")]
    Delivered,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id", index = "status")]
struct OrderRow {
    order_id: String,
    customer: String,
    status: String,
    cents: i64,
    placed_at: jiff::Timestamp,
}

struct OrderList;
impl Projection for OrderList {
    type Event = OrderEvent;
    type Row = OrderRow;
    fn apply(&self, e: &Recorded<OrderEvent>, rows: &mut Rows<OrderRow>) -> Result<(), ProjectionError> {
        let id = e.stream.aggregate_id().to_owned();
        let status = match &e.event {
            OrderEvent::Placed { customer, cents, .. } => {
                rows.upsert(OrderRow {
                    order_id: id,
                    customer: customer.clone(),
                    status: "placed".into(),
                    cents: *cents,
                    placed_at: e.recorded_at,
                });
                return Ok(());
            }
            OrderEvent::Paid { .. } => "paid",
            OrderEvent::Shipped { .. } => "shipped",
            OrderEvent::Delivered => "delivered",
        };
        if let Some(row) = rows.get_mut(&id)? {
            row.status = status.into();
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let window: usize = std::env::args().nth(2).map_or(100, |s| s.parse().unwrap());
    let path = std::env::args().nth(3).map_or("/tmp/rate.db".into(), |s| s);
    for s in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{path}{s}"));
    }
    let store = SqliteOptions::new(&path).synchronous(Synchronous::Normal).open().await.unwrap();
    let t = Instant::now();
    let mut done = 0;
    let mut base = 0;
    while done < n {
        for step in 0..4 {
            let mut append: Option<Append> = None;
            for o in base..base + window {
                let e = match step {
                    0 => OrderEvent::Placed {
                        customer: format!("customer-{}", o % 1000),
                        cents: 1999,
                        lines: vec!["a thing".into(), "another thing".into()],
                    },
                    1 => OrderEvent::Paid { payment: format!("pay-{o}"), cents: 1999 },
                    2 => OrderEvent::Shipped { tracking: format!("T{o}"), carrier: "post".into() },
                    _ => OrderEvent::Delivered,
                };
                let s = StreamId::new(Tenant::default(), "order", format!("o-{o:08}")).unwrap();
                let ev = vec![NewEvent::of(EventId::new(store.ids().next_id()).unwrap(), &e).unwrap()];
                append = Some(match append {
                    None => Append::to(s, ExpectedVersion::Any, ev),
                    Some(a) => a.and(s, ExpectedVersion::Any, ev),
                });
                if (o + 1 - base) % 1000 == 0 {
                    store.append_many(append.take().unwrap()).await.unwrap();
                }
            }
            if let Some(a) = append {
                store.append_many(a).await.unwrap();
            }
            done += window;
        }
        base += window;
    }
    println!("appended {done} in {:?}", t.elapsed());
    let head = store.head().await.unwrap().position;
    rss("before");
    for round in 0..1 {
        let t = Instant::now();
        let views = store.projections().with(OrderList).start().await.unwrap();
        views.wait_for(head, std::time::Duration::from_secs(600)).await.unwrap();
        let e = t.elapsed();
        println!("round {round}: projected {done} in {e:?}: {:.0}/s", done as f64 / e.as_secs_f64());
        rss("after");
        views.close().await;
    }
    // plain reading
    let t = Instant::now();
    let mut after = Position::START;
    let mut c = 0;
    loop {
        let p = store.read_page(after, &Filter::all(), 10_000).await.unwrap();
        c += p.events.len();
        if let Some(u) = p.upto {
            after = u.position;
        }
        if p.end {
            break;
        }
    }
    println!("read {c} in {:?}", t.elapsed());
    let f = OrderEvent::SHAPES.iter().fold(Filter::all(), |f, s| f.event_name(s.name).unwrap());
    let t = Instant::now();
    let mut after = Position::START;
    let mut c = 0;
    let mut d = std::time::Duration::ZERO;
    loop {
        let p = store.read_page(after, &f, 10_000).await.unwrap();
        c += p.events.len();
        let t = Instant::now();
        for e in &p.events {
            let _ = std::hint::black_box(e.typed::<OrderEvent>().unwrap());
        }
        d += t.elapsed();
        if let Some(u) = p.upto {
            after = u.position;
        }
        if p.end {
            break;
        }
    }
    println!("read filtered {c} in {:?}, of which decode {d:?}", t.elapsed());
    // baseline
    let db = store.database().clone();
    {
        let mut tx = db.begin().await.unwrap();
        sqlx::raw_sql("CREATE TABLE base (order_id TEXT NOT NULL PRIMARY KEY, customer TEXT NOT NULL, status TEXT NOT NULL, cents INTEGER NOT NULL, placed_at INTEGER NOT NULL) STRICT, WITHOUT ROWID; CREATE INDEX base_status ON base(status)").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    let t = Instant::now();
    let mut after = Position::START;
    let mut c = 0;
    loop {
        let p = store.read_page(after, &f, 1_000).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        for e in &p.events {
            let r = e.typed::<OrderEvent>().unwrap();
            let id = r.stream.aggregate_id().to_owned();
            match r.event {
                OrderEvent::Placed { customer, cents, .. } => {
                    sqlx::query(
                        "INSERT INTO base VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET status = excluded.status",
                    )
                    .bind(id)
                    .bind(customer)
                    .bind("placed")
                    .bind(cents)
                    .bind(r.recorded_at.as_microsecond())
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                }
                _ => {
                    sqlx::query("INSERT INTO base VALUES (?,'','x',0,0) ON CONFLICT DO UPDATE SET status = ?")
                        .bind(id)
                        .bind("paid")
                        .execute(&mut *tx)
                        .await
                        .unwrap();
                }
            }
            c += 1;
        }
        tx.commit().await.unwrap();
        if let Some(u) = p.upto {
            after = u.position;
        }
        if p.end || c > 50_000 {
            break;
        }
    }
    println!("baseline {c} in {:?}: {:.0}/s", t.elapsed(), c as f64 / t.elapsed().as_secs_f64());
}
fn rss(what: &str) {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    for l in s.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM")) {
        println!("{what}: {l}");
    }
}
