//! `saga`: durable sagas of four steps from their start to their end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::resilience::Policy;
use annals::sagas::{Definition, Saga, SagaId, Sagas, SagasExt, Status};
use annals::{EventStore, EventStoreExt, PostgresOptions, SqliteStore, StreamId, Tenant, TransactionalStore};
use clap::Args;
use futures::TryStreamExt;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::lag::{millis, quantile};
use crate::server::MeasuredServer;
use crate::{Fault, Store};

/// The steps of each saga: two before the pivot, which have an undo, and two after it.
const STEPS: f64 = 4.0;
/// How long one may take.
const MOST_TIME: Duration = Duration::from_secs(30);
/// What is started before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(1);
/// How many streams are read to count appends.
const COUNTED: u64 = 100;

/// Measures sagas of four remote steps, whose participants are functions in this process that answer at once.
///
/// Each client starts a saga, waits for its end, and starts the next. The table of instances is written all the time.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which database.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// How many clients work at once.
    #[arg(long, default_value_t = 256)]
    clients: u64,
    /// For how long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    store: String,
    clients: u64,
    sagas: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    appends_per_step: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, clients, sagas, per_second, p50_ms, p99_ms, appends_per_step, .. } = self;
        writeln!(f, "sagas of four steps on {store}, {clients} clients: {sagas}, {per_second:.0} /s")?;
        write!(
            f,
            "  from start to end  p50 {p50_ms:.2} ms   p99 {p99_ms:.2} ms   appends per step {appends_per_step:.2}"
        )
    }
}

#[derive(Serialize, Deserialize, Clone)]
struct Order {
    number: u64,
}

fn orders() -> Result<Definition<Order>, Fault> {
    let policy = |name: &str| Policy::medium(name).build();
    let saga = Saga::<Order>::new("order")
        .remote("charge", &policy("payments")?, |_, _| async { Ok(()) })
        .undo(|_, _| async { Ok(()) })
        .remote("reserve", &policy("stock")?, |_, _| async { Ok(()) })
        .undo(|_, _| async { Ok(()) })
        .pivot()
        .remote("pack", &policy("stock")?, |_, _| async { Ok(()) })
        .remote("ship", &policy("shipping")?, |_, _| async { Ok(()) })
        .build()?;
    Ok(saga)
}

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    match options.store {
        Store::Memory => Err("the table of sagas needs a database: use `--store sqlite` or `--store postgres`".into()),
        Store::Sqlite => {
            let folder = tempfile::tempdir()?;
            let store = SqliteStore::open(folder.path().join("log.db")).await?;
            on(&store, options).await
        }
        Store::Postgres => {
            let mut server = MeasuredServer::find().await?;
            let url = server.database("saga").await?;
            let store = PostgresOptions::new(url).migrate().open().await?;
            let report = on(&store, options).await?;
            server.remove().await?;
            Ok(report)
        }
    }
}

async fn on<S>(store: &S, options: &Options) -> Result<Report, Fault>
where
    S: TransactionalStore,
    S: SagasExt,
{
    let sagas = store.sagas().with(orders()?).start().await?;
    let next = Arc::new(AtomicU64::new(0));
    run(&sagas, options.clients, WARM_UP, &next).await?;
    let began = Instant::now();
    let times = run(&sagas, options.clients, Duration::from_secs_f64(options.seconds), &next).await?;
    let took = began.elapsed();
    let appends = appends_per_step(store, next.load(Ordering::Relaxed)).await?;
    sagas.close().await;
    store.close().await;
    let mut times: Vec<f64> = times.into_iter().map(millis).collect();
    Ok(Report {
        case: "saga",
        store: format!("{:?}", options.store).to_lowercase(),
        clients: options.clients,
        sagas: times.len(),
        per_second: times.len() as f64 / took.as_secs_f64(),
        p50_ms: quantile(&mut times, 0.5),
        p99_ms: quantile(&mut times, 0.99),
        appends_per_step: appends,
    })
}

/// Lets each client run one saga after the other; how long each took.
async fn run(sagas: &Sagas, clients: u64, time: Duration, next: &Arc<AtomicU64>) -> Result<Vec<Duration>, Fault> {
    let until = Instant::now() + time;
    let clients = (0..clients).map(|_| {
        let (sagas, next) = (sagas.clone(), Arc::clone(next));
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (id, began) = (SagaId::new(format!("s-{number}"))?, Instant::now());
                sagas.start(&id, Order { number }).await?;
                let status = sagas.wait_for(&id, MOST_TIME).await?;
                if status.status != Status::Completed {
                    return Err(format!("saga {id} is {}", status.status).into());
                }
                times.push(began.elapsed());
            }
            Ok::<_, Fault>(times)
        })
    });
    let times = try_join_all(clients).await?;
    Ok(times.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

/// How many appends the last sagas needed.
async fn appends_per_step(store: &(impl EventStore + Clone), started: u64) -> Result<f64, Fault> {
    let (first, mut appends) = (started.saturating_sub(COUNTED), 0_u32);
    for number in first..started {
        let stream = StreamId::new(Tenant::default(), "saga", format!("s-{number}"))?;
        let events: Vec<_> = store.load(&stream).try_collect().await?;
        let mut ids: Vec<_> = events.iter().map(|event| event.append_id).collect();
        ids.dedup_by(|one, other| one.is_some() && one == other);
        appends += u32::try_from(ids.len())?;
    }
    Ok(f64::from(appends) / (started - first) as f64 / STEPS)
}
