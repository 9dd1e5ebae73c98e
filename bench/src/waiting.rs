//! `saga-waiting`: what sagas cost that only wait.

use std::fmt;
use std::time::Duration;

use annals::resilience::Policy;
use annals::sagas::{Definition, Saga, SagaId, SagaInstances, Sagas, SagasExt, Status};
use annals::{PostgresOptions, SqliteStore, TransactionalStore};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::lag::{millis, quantile};
use crate::server::MeasuredServer;
use crate::{Fault, Store};

/// How many are started at once.
const AT_ONCE: usize = 256;
/// How long each waits if no signal comes.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The timer of those that are to be found in the table in time.
const TIMER: Duration = Duration::from_millis(500);
/// How many instances are timed.
const TIMED: usize = 100;
const MOST_TIME: Duration = Duration::from_secs(30);

/// Measures a process whose sagas wait: for a signal, or for the end of their day.
///
/// Some of them get their signal, one after the other, and some others wait for a timer of 500 ms, which the process must find in the
/// table among all of them.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which database.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// How many sagas wait.
    #[arg(long, default_value_t = 100_000)]
    waiting: usize,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    store: String,
    waiting: usize,
    started_per_second: f64,
    /// The memory of the process before the first start, while all wait, and at most.
    before_mb: f64,
    waiting_mb: f64,
    most_mb: f64,
    /// From a signal until the end of its saga.
    signal_p50_ms: f64,
    signal_p99_ms: f64,
    /// How long after the end of its timer a saga ends.
    late_p50_ms: f64,
    late_p99_ms: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, waiting, started_per_second, before_mb, waiting_mb, most_mb, .. } = self;
        writeln!(f, "{waiting} sagas that wait on {store}, {started_per_second:.0} starts /s")?;
        writeln!(
            f,
            "  memory  {before_mb:.0} MB before   {waiting_mb:.0} MB while all wait   {most_mb:.0} MB at most"
        )?;
        let Self { signal_p50_ms, signal_p99_ms, late_p50_ms, late_p99_ms, .. } = self;
        writeln!(f, "  from a signal to the end  p50 {signal_p50_ms:.1} ms   p99 {signal_p99_ms:.1} ms")?;
        write!(f, "  from the end of a timer   p50 {late_p50_ms:.1} ms   p99 {late_p99_ms:.1} ms")
    }
}

/// One that waits for a signal or a day.
#[derive(Serialize, Deserialize, Clone)]
struct Order(usize);

/// One that waits for a timer.
#[derive(Serialize, Deserialize, Clone)]
struct Reminder(usize);

fn orders() -> Result<Definition<Order>, Fault> {
    let ship = Policy::medium("shipping").build()?;
    let saga = Saga::<Order>::new("order").deadline(DAY).signal::<u32>("paid");
    Ok(saga.remote("ship", &ship, |_, _| async { Ok(()) }).no_undo("it is the last step").build()?)
}

fn reminders() -> Result<Definition<Reminder>, Fault> {
    Ok(Saga::<Reminder>::new("reminder").timer("pause", TIMER).build()?)
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
            let url = server.database("waiting").await?;
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
    let sagas = store.sagas().with(orders()?).with(reminders()?).start().await?;
    let (before_mb, began) = (memory("VmRSS:")?, Instant::now());
    let starts = stream::iter(0..options.waiting).map(|number| {
        let sagas = &sagas;
        async move {
            let id = id("o", number)?;
            // On a machine that is busy a store may be so too for longer than it lets anybody wait.
            loop {
                match sagas.start(&id, Order(number)).await {
                    Err(error) if error.is_transient() => {}
                    started => return Ok::<_, Fault>(started?),
                }
            }
        }
    });
    starts.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let started_per_second = options.waiting as f64 / began.elapsed().as_secs_f64();
    all_wait(&sagas, options.waiting).await?;
    let (waiting_mb, most_mb) = (memory("VmRSS:")?, memory("VmHWM:")?);
    let (mut signalled, mut late) = (Vec::new(), Vec::new());
    // Those that were started first, which no cache has any more.
    for number in 0..TIMED.min(options.waiting) {
        let (id, began) = (id("o", number)?, Instant::now());
        sagas.signal(&id, "paid", 1).await?;
        ended(&sagas, &id).await?;
        signalled.push(millis(began.elapsed()));
    }
    let reminded = stream::iter(0..TIMED).map(|number| {
        let sagas = &sagas;
        async move {
            let (id, began) = (id("r", number)?, Instant::now());
            sagas.start(&id, Reminder(number)).await?;
            ended(sagas, &id).await?;
            Ok::<_, Fault>(millis(began.elapsed().saturating_sub(TIMER)))
        }
    });
    late.extend(reminded.buffer_unordered(TIMED / 10).try_collect::<Vec<_>>().await?);
    sagas.close().await;
    store.close().await;
    Ok(Report {
        case: "saga-waiting",
        store: format!("{:?}", options.store).to_lowercase(),
        waiting: options.waiting,
        started_per_second,
        before_mb,
        waiting_mb,
        most_mb,
        signal_p50_ms: quantile(&mut signalled, 0.5),
        signal_p99_ms: quantile(&mut signalled, 0.99),
        late_p50_ms: quantile(&mut late, 0.5),
        late_p99_ms: quantile(&mut late, 0.99),
    })
}

fn id(kind: &str, number: usize) -> Result<SagaId, Fault> {
    Ok(SagaId::new(format!("{kind}-{number}"))?)
}

async fn ended(sagas: &Sagas, id: &SagaId) -> Result<(), Fault> {
    let status = sagas.wait_for(id, MOST_TIME).await?.status;
    if status == Status::Completed { Ok(()) } else { Err(format!("saga {id} is {status}").into()) }
}

/// Waits until every row says that its saga waits.
async fn all_wait(sagas: &Sagas, waiting: usize) -> Result<(), Fault> {
    loop {
        sagas.projections().caught_up(MOST_TIME).await?;
        let at_it = "wake_at = created_at ORDER BY saga_id LIMIT 1";
        let some = sagas.projections().select::<SagaInstances>(at_it, &[]).await?;
        if some.is_empty() && sagas.runner().in_flight == 0 {
            let last = id("o", waiting.saturating_sub(1))?;
            return sagas.find(&last).await?.map(drop).ok_or_else(|| format!("saga {last} has no row").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A figure of this process in MB, as Linux has it.
fn memory(field: &str) -> Result<f64, Fault> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or_else(|| format!("no `{field}`"))?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1_024.0)
}
