//! `visible`: the time from an append until a query sees its row.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals::{
    EventStore, ExpectedVersion, PostgresOptions, ProjectionError, Projections, ProjectionsExt, ReadModel, Recorded,
    SqliteStore, StreamProjection, StreamRow,
};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::lag::{millis, quantile};
use crate::server::MeasuredServer;
use crate::{Fault, Store, sample};

/// Streams that the appends go to, one after the other.
const STREAMS: u64 = 1_000;
const MOST_TIME: Duration = Duration::from_secs(10);
/// What is appended before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures how long after an append a query sees its row, at a steady rate of appends of one event.
///
/// Every append is a task of its own, which then waits by `wait_for` as a caller does who reads the own write.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which database.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// Appends per second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// For how long.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    store: String,
    appends: usize,
    per_second: f64,
    /// From the call of the append.
    call_p50_ms: f64,
    call_p99_ms: f64,
    /// From its answer.
    answer_p50_ms: f64,
    answer_p99_ms: f64,
    answer_max_ms: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, appends, per_second, .. } = self;
        writeln!(f, "from an append to its row on {store}, {appends} appends, {per_second:.0} /s")?;
        writeln!(f, "  from the call    p50 {:.2} ms   p99 {:.2} ms", self.call_p50_ms, self.call_p99_ms)?;
        let Self { answer_p50_ms, answer_p99_ms, answer_max_ms, .. } = self;
        write!(
            f,
            "  from the answer  p50 {answer_p50_ms:.2} ms   p99 {answer_p99_ms:.2} ms   at most {answer_max_ms:.2} ms"
        )
    }
}

/// The events of [`sample`].
#[derive(annals::Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.paid")]
    Paid { amount: i64 },
}

#[derive(ReadModel, Clone)]
#[read_model(table = "paid", key = "order_id")]
struct Paid {
    order_id: String,
    payments: i64,
    amount: i64,
}

struct PaidOrders;

impl StreamProjection for PaidOrders {
    type Event = OrderEvent;
    type Row = Paid;
    const AGGREGATES: &'static [&'static str] = &["order"];

    fn apply(&self, event: &Recorded<OrderEvent>, row: &mut StreamRow<'_, Paid>) -> Result<(), ProjectionError> {
        let order_id = row.key().clone();
        let row = row.get_or_insert_with(|| Paid { order_id, payments: 0, amount: 0 });
        let OrderEvent::Paid { amount } = event.event;
        row.payments += 1;
        row.amount += amount;
        Ok(())
    }
}

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    match options.store {
        Store::Memory => Err("projections need a database: use `--store sqlite` or `--store postgres`".into()),
        Store::Sqlite => {
            let folder = tempfile::tempdir()?;
            let store = SqliteStore::open(folder.path().join("log.db")).await?;
            let views = store.projections().with(PaidOrders).start().await?;
            append(Arc::new(store), views, options).await
        }
        Store::Postgres => {
            let mut server = MeasuredServer::find().await?;
            let store = PostgresOptions::new(server.database("visible").await?).migrate().open().await?;
            let views = store.projections().with(PaidOrders).start().await?;
            let report = append(Arc::new(store), views, options).await?;
            server.remove().await?;
            Ok(report)
        }
    }
}

/// From the call and from the answer of one append until its row was seen.
type Times = (f64, f64);

async fn append(store: Arc<dyn EventStore>, views: Projections, options: &Options) -> Result<Report, Fault> {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / options.rate as f64));
    // The rate is kept also after a late tick.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut waiting) = (Instant::now(), Vec::new());
    let mut n = 0;
    while begun.elapsed() < WARM_UP + Duration::from_secs_f64(options.seconds) {
        ticks.tick().await;
        let task = tokio::spawn(one(Arc::clone(&store), views.clone(), n));
        if begun.elapsed() >= WARM_UP {
            waiting.push(task);
        }
        n += 1;
    }
    let mut times: Vec<Times> = Vec::with_capacity(waiting.len());
    for task in waiting {
        times.push(task.await??);
    }
    let took = begun.elapsed() - WARM_UP;
    views.close().await;
    store.close().await;
    let (mut call, mut answer): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
    Ok(Report {
        case: "visible",
        store: format!("{:?}", options.store).to_lowercase(),
        appends: call.len(),
        per_second: call.len() as f64 / took.as_secs_f64(),
        call_p50_ms: quantile(&mut call, 0.5),
        call_p99_ms: quantile(&mut call, 0.99),
        answer_p50_ms: quantile(&mut answer, 0.5),
        answer_p99_ms: quantile(&mut answer, 0.99),
        answer_max_ms: quantile(&mut answer, 1.0),
    })
}

async fn one(store: Arc<dyn EventStore>, views: Projections, n: u64) -> Result<Times, Fault> {
    let stream = sample::stream(&format!("order-{}", n % STREAMS));
    let called = Instant::now();
    let position = store.append(&stream, ExpectedVersion::Any, vec![sample::event(n)]).await?.position;
    let answered = Instant::now();
    views.wait_for(position, MOST_TIME).await?;
    Ok((millis(called.elapsed()), millis(answered.elapsed())))
}
