//! `idle`: what a subscription costs that waits behind a transaction somebody has forgotten.

use std::fmt;
use std::time::Duration;

use annals::{EventStore, EventStoreExt, ExpectedVersion, Filter, Position, PostgresOptions};
use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::time::{Instant, sleep};

use crate::server::MeasuredServer;
use crate::{Fault, baseline, sample};

/// Transactions per second of the whole database that are wanted at most: four looks per second, of some statements each, and what the
/// server does by itself.
const BOUND_PER_SECOND: f64 = 20.0;

/// Measures on PostgreSQL the transactions per second of one subscription without events to read, behind a prepared transaction that
/// holds a position.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// How long it is measured.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// How long it has waited by then.
    #[arg(long, default_value_t = 10.0)]
    after: f64,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    store: &'static str,
    per_second: f64,
    bound_per_second: f64,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.per_second <= self.bound_per_second
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "an idle subscription behind a prepared transaction on {}", self.store)?;
        writeln!(f, "  {:.1} transactions /s", self.per_second)?;
        let holds = if self.holds() { "which holds" } else { "WHICH FAILS" };
        write!(f, "  wanted: at most {:.0} /s, {holds}", self.bound_per_second)
    }
}

/// Inserts the first event of a stream, in a transaction that is then prepared under the name of the database.
const FORGOTTEN: &str = "
    BEGIN;
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata)
    VALUES (gen_random_uuid(), 'default', 'order', 'forgotten', 1, 'order.paid', 1, '{}', '{}');
    PREPARE TRANSACTION 'annals_bench_forgotten'
";

const TRANSACTIONS: &str = "
    SELECT xact_commit + xact_rollback
    FROM pg_stat_database
    WHERE datname = current_database()
    ORDER BY 1
";

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let url = server.database("idle").await?;
    let store = PostgresOptions::new(&url).migrate().open().await?;
    let mut other = baseline::postgres::connection(&url).await?;
    run(&mut other, FORGOTTEN).await?;
    store.append(&sample::stream("behind"), ExpectedVersion::NoStream, vec![sample::event(1)]).await?;
    let mut subscription = store.subscribe(Position::START, Filter::all());
    let waiting = tokio::spawn(async move { subscription.next().await.map(drop) });
    sleep(Duration::from_secs_f64(options.after)).await;
    let (before, begun) = (transactions(&mut other).await?, Instant::now());
    sleep(Duration::from_secs_f64(options.seconds)).await;
    let (after, took) = (transactions(&mut other).await?, begun.elapsed().as_secs_f64());
    run(&mut other, "ROLLBACK PREPARED 'annals_bench_forgotten'").await?;
    waiting.await?;
    store.close().await;
    drop(other);
    server.remove().await?;
    let per_second = (after - before) as f64 / took;
    Ok(Report { case: "idle", store: "postgres", per_second, bound_per_second: BOUND_PER_SECOND })
}

/// How many transactions the database has ended. Sessions report theirs after a second at the latest, and when they are idle.
async fn transactions(connection: &mut PgConnection) -> Result<i64, Fault> {
    Ok(sqlx::query(TRANSACTIONS).fetch_one(connection).await?.get(0))
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), Fault> {
    Ok(sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)?)
}
