//! `lag`: the time from the end of a writer until a reader gets the event that it waited for.

use std::fmt;
use std::time::Duration;

use annals::{EventStore, ExpectedVersion, Filter, Position, PostgresOptions, PostgresStore};
use clap::Args;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{Instant, sleep};

use crate::server::MeasuredServer;
use crate::{Fault, baseline, sample};

/// Measures on PostgreSQL how long a reader still waits at a gap after the writer of that position has ended.
///
/// In each round a transaction allocates a position and stays open, another append is committed after it, and a reader asks
/// for that event. Then the transaction ends, every second time by a rollback. The lag is the time from the answer to that
/// until the reader has the event.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// How long new rounds begin.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// The maximum time in milliseconds that the transaction stays open; the minimum is a tenth of it.
    #[arg(long, default_value_t = 100.0)]
    hold_ms: f64,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    store: &'static str,
    rounds: usize,
    lag_p50_ms: f64,
    lag_p99_ms: f64,
    lag_max_ms: f64,
    /// The round trip of an empty statement.
    round_trip_p50_ms: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, lag_p50_ms, lag_p99_ms, lag_max_ms, round_trip_p50_ms, .. } = self;
        writeln!(
            f,
            "lag of a reader behind the end of the writer that it waits for, on {}, {rounds} rounds",
            self.store
        )?;
        writeln!(f, "  p50 {lag_p50_ms:.2} ms   p99 {lag_p99_ms:.2} ms   at most {lag_max_ms:.2} ms")?;
        write!(f, "  round trip of an empty statement: {round_trip_p50_ms:.2} ms")
    }
}

/// Inserts the first event of the stream `$1`, as a hand-written statement would.
const INSERT: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata)
    VALUES (gen_random_uuid(), 'default', 'order', $1, 1, 'order.paid', 1, '{}', '{}')
";

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let url = server.database("lag").await?;
    let store = PostgresOptions::new(&url).migrate().open().await?;
    let mut slow = baseline::postgres::connection(&url).await?;
    let (mut lags, mut trips) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let mut after = Position::START;
    while began.elapsed().as_secs_f64() < options.seconds {
        let round = lags.len();
        let hold = options.hold_ms * (0.1 + 0.9 * fastrand::f64());
        run(&mut slow, "BEGIN").await?;
        sqlx::query(INSERT).bind(format!("slow-{round}")).execute(&mut slow).await?;
        let event = sample::event(round as u64);
        let quick = sample::stream(&format!("quick-{round}"));
        let wanted = store.append(&quick, ExpectedVersion::NoStream, vec![event]).await?.position;
        let reading = tokio::spawn(read_to(store.clone(), after, wanted));
        sleep(Duration::from_secs_f64(hold / 1_000.0)).await;
        run(&mut slow, if round.is_multiple_of(2) { "COMMIT" } else { "ROLLBACK" }).await?;
        let ended = Instant::now();
        lags.push(millis(reading.await??.saturating_duration_since(ended)));
        after = wanted;
        let asked = Instant::now();
        run(&mut slow, "SELECT 1").await?;
        trips.push(millis(asked.elapsed()));
    }
    store.close().await;
    drop(slow);
    server.remove().await?;
    Ok(Report {
        case: "lag",
        store: "postgres",
        rounds: lags.len(),
        lag_p50_ms: quantile(&mut lags, 0.5),
        lag_p99_ms: quantile(&mut lags, 0.99),
        lag_max_ms: quantile(&mut lags, 1.0),
        round_trip_p50_ms: quantile(&mut trips, 0.5),
    })
}

/// Reads up to this event. Returns when it came.
async fn read_to(store: PostgresStore, mut after: Position, wanted: Position) -> Result<Instant, Fault> {
    loop {
        let page = store.read_page(after.into(), &Filter::all(), 100).await?;
        if let Some(checkpoint) = page.checkpoint {
            after = checkpoint.position;
            if after >= wanted {
                return Ok(Instant::now());
            }
        }
    }
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), Fault> {
    Ok(sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)?)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The value that this fraction of the values does not exceed.
pub(crate) fn quantile(values: &mut [f64], fraction: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * fraction) as usize).copied().unwrap_or_default()
}
