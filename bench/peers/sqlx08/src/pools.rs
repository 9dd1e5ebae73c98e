//! Pools as we would set them up, for the stores that take one; and the read model of those that write it by our SQL.

use std::time::{Duration, Instant};

use annals_peers::{Fault, Place, Setup, Totals};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, PgPool, Row, SqlitePool};

const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often is looked whether a read model is there.
const LOOK: Duration = Duration::from_millis(10);

/// SQLite has one writer at a time; more connections only wait for each other.
const MOST_FOR_SQLITE: u32 = 5;

pub async fn postgres(setup: &Setup) -> Result<PgPool, Fault> {
    let Place::Postgres(url) = &setup.place else { return Err("this is no PostgreSQL database".into()) };
    let options = url.parse::<PgConnectOptions>()?.disable_statement_logging();
    let pool = PgPoolOptions::new().max_connections(setup.connections).test_before_acquire(false);
    Ok(pool.acquire_timeout(MAX_WAIT).connect_with(options).await?)
}

/// With WAL and a commit that is on disk, as ours.
pub async fn sqlite(setup: &Setup) -> Result<SqlitePool, Fault> {
    let Place::Sqlite(path) = &setup.place else { return Err("this is no file".into()) };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(MAX_WAIT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(setup.connections.clamp(2, MOST_FOR_SQLITE));
    Ok(pool.test_before_acquire(false).acquire_timeout(MAX_WAIT).connect_with(options).await?)
}

/// Makes the table of the read model of one round. Gives its name.
pub async fn make_totals(pool: &PgPool, round: usize) -> Result<String, Fault> {
    let table = format!("totals_{round}");
    let create =
        format!("CREATE TABLE {table} (stream text PRIMARY KEY, events bigint NOT NULL, amount bigint NOT NULL)");
    sqlx::query(&create).execute(pool).await?;
    Ok(table)
}

/// The statement that counts an event in.
pub fn upsert(table: &str) -> String {
    format!(
        "INSERT INTO {table} AS t (stream, events, amount) VALUES ($1, 1, $2)
         ON CONFLICT (stream) DO UPDATE SET events = t.events + 1, amount = t.amount + excluded.amount"
    )
}

/// What the table holds.
pub async fn totals(pool: &PgPool, table: &str) -> Result<Totals, Fault> {
    let text = format!("SELECT count(*), coalesce(sum(events), 0)::bigint FROM {table}");
    let row = sqlx::query(&text).fetch_one(pool).await?;
    Ok(Totals { rows: row.get::<i64, _>(0).try_into()?, events: row.get::<i64, _>(1).try_into()? })
}

/// How long a read model may take.
const LONG: Duration = Duration::from_secs(300);

/// Looks until the table holds so many events, or for too long.
pub async fn wait_for(pool: &PgPool, table: &str, events: u64) -> Result<Totals, Fault> {
    let begun = Instant::now();
    loop {
        let totals = totals(pool, table).await?;
        if totals.events >= events || begun.elapsed() > LONG {
            return Ok(totals);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The same on SQLite.
pub async fn make_totals_in_file(pool: &SqlitePool, round: usize) -> Result<String, Fault> {
    let table = format!("totals_{round}");
    let create = format!(
        "CREATE TABLE {table} (stream TEXT PRIMARY KEY, events INTEGER NOT NULL, amount INTEGER NOT NULL) STRICT"
    );
    sqlx::query(&create).execute(pool).await?;
    Ok(table)
}

/// The same on SQLite.
pub async fn totals_in_file(pool: &SqlitePool, table: &str) -> Result<Totals, Fault> {
    let text = format!("SELECT count(*), coalesce(sum(events), 0) FROM {table}");
    let row = sqlx::query(&text).fetch_one(pool).await?;
    Ok(Totals { rows: row.get::<i64, _>(0).try_into()?, events: row.get::<i64, _>(1).try_into()? })
}

/// The same on SQLite.
pub async fn wait_for_in_file(pool: &SqlitePool, table: &str, events: u64) -> Result<Totals, Fault> {
    let begun = Instant::now();
    loop {
        let totals = totals_in_file(pool, table).await?;
        if totals.events >= events || begun.elapsed() > LONG {
            return Ok(totals);
        }
        tokio::time::sleep(LOOK).await;
    }
}
