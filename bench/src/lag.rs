//! `lag`: how long after a writer's end a reader is given what it waited for.

use std::fmt;
use std::time::Duration;

use annals::{EventStore, ExpectedVersion, Filter, Position, PostgresOptions, PostgresStore};
use clap::Args;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{Instant, sleep};

use crate::server::Place;
use crate::{Fault, baseline, sample};

/// Measures on PostgreSQL how long a reader that waits at a missing number is kept after the writer that has drawn it
/// is done.
///
/// In each round a transaction draws a number and stays open, another append is committed after it, a reader asks for
/// that, and after a while the transaction ends, each other time by rolling back. The lag is the time from its answer to
/// the reader's.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// For how long rounds are begun.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// For how many milliseconds the transaction stays open at most; at least for a tenth of that.
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
    /// One statement that does nothing, there and back.
    round_trip_p50_ms: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, lag_p50_ms, lag_p99_ms, lag_max_ms, round_trip_p50_ms, .. } = self;
        writeln!(f, "lag of a reader behind the end of the writer it waits for, on {}, {rounds} rounds", self.store)?;
        writeln!(f, "  p50 {lag_p50_ms:.2} ms   p99 {lag_p99_ms:.2} ms   at most {lag_max_ms:.2} ms")?;
        write!(f, "  a statement that does nothing: {round_trip_p50_ms:.2} ms there and back")
    }
}

/// Inserts the first event of the stream `$1`, as a hand-written statement would.
const DRAW: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata)
    VALUES (gen_random_uuid(), 'default', 'order', $1, 1, 'order.paid', 1, '{}', '{}')
";

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut place = Place::find().await?;
    let url = place.database("lag").await?;
    let store = PostgresOptions::new(&url).migrate().open().await?;
    let mut slow = baseline::postgres::connection(&url).await?;
    let (mut lags, mut trips) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let mut after = Position::START;
    while began.elapsed().as_secs_f64() < options.seconds {
        let round = lags.len();
        let hold = options.hold_ms * (0.1 + 0.9 * fastrand::f64());
        run(&mut slow, "BEGIN").await?;
        sqlx::query(DRAW).bind(format!("slow-{round}")).execute(&mut slow).await?;
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
    place.leave().await?;
    Ok(Report {
        case: "lag",
        store: "postgres",
        rounds: lags.len(),
        lag_p50_ms: part(&mut lags, 0.5),
        lag_p99_ms: part(&mut lags, 0.99),
        lag_max_ms: part(&mut lags, 1.0),
        round_trip_p50_ms: part(&mut trips, 0.5),
    })
}

/// Reads up to this event, and says when it came.
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

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The value that this part of the others does not exceed.
fn part(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part) as usize).copied().unwrap_or_default()
}
