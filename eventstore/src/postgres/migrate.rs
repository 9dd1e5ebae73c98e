//! Bringing the schema up to date.
//!
//! Also through a pooler: statements outside of the transaction have no values, and those inside are unnamed.

use std::time::Duration;

use annals_migrations::{BUILD, MIN_BUILD, Migration, POSTGRES_LEDGER};
use sqlx::{PgConnection, Row};
use tokio::time::{Instant, sleep};

const LEDGER_EXISTS: &str = "
    SELECT to_regclass('annals.migrations') IS NOT NULL
    ORDER BY 1
";

const APPLIED: &str = "
    SELECT component, number
    FROM annals.migrations
    ORDER BY component, number
";

/// A second process waits, and then finds no pending migrations. An account that may only connect cannot take this lock.
const TAKE_TURN: &str = "LOCK TABLE annals.migrations IN SHARE UPDATE EXCLUSIVE MODE";

/// For the first migration of a database, in which there is nothing to lock yet. The keys are `annl` and `migr` in ASCII.
const TAKE_FIRST_TURN: &str = "
    SELECT pg_try_advisory_xact_lock(1634627180, 1835624306)
    ORDER BY 1
";

/// How long that is waited for. Who has it for longer makes no tables, and is left alone: two who do it at once fail at most.
const LONGEST_FIRST_TURN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(50);

const RECORD_MIGRATION: &str = "
    INSERT INTO annals.migrations (component, number, name, build)
    VALUES ($1, $2, $3, $4)
";

const CREATE_INCARNATION: &str = "
    INSERT INTO annals.store (min_build)
    VALUES ($1)
";

async fn ledger_exists(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let ledger = sqlx::raw_sql(LEDGER_EXISTS).fetch_all(connection).await?;
    Ok(ledger.first().is_some_and(|row| row.get(0)))
}

async fn take_first_turn(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let begun = Instant::now();
    while !sqlx::raw_sql(TAKE_FIRST_TURN).fetch_all(&mut *connection).await?.first().is_some_and(|row| row.get(0)) {
        if begun.elapsed() >= LONGEST_FIRST_TURN {
            tracing::warn!(waited = ?LONGEST_FIRST_TURN, "another session has the lock for the first migration, and makes none");
            break;
        }
        sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// Those of `all` that this database does not have yet.
pub(crate) async fn pending<'m>(
    connection: &mut PgConnection,
    all: &'m [Migration],
) -> Result<Vec<&'m Migration>, sqlx::Error> {
    if !ledger_exists(connection).await? {
        return Ok(all.iter().collect());
    }
    let rows = sqlx::raw_sql(APPLIED).fetch_all(connection).await?;
    let applied: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(all
        .iter()
        .filter(|m| !applied.iter().any(|(component, number)| component == m.component && *number == m.number))
        .collect())
}

/// Runs pending migrations, all in one transaction. After an error the connection must be closed.
pub(crate) async fn migrate(connection: &mut PgConnection, all: &[Migration]) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *connection).await?;
    if !ledger_exists(connection).await? {
        take_first_turn(connection).await?;
        sqlx::raw_sql(POSTGRES_LEDGER).execute(&mut *connection).await?;
    }
    sqlx::raw_sql(TAKE_TURN).execute(&mut *connection).await?;
    for migration in pending(connection, all).await? {
        sqlx::raw_sql(migration.sql).execute(&mut *connection).await?;
        if migration.component == "events" && migration.name == "store" {
            sqlx::query(CREATE_INCARNATION).bind(MIN_BUILD).persistent(false).execute(&mut *connection).await?;
        }
        sqlx::query(RECORD_MIGRATION)
            .persistent(false)
            .bind(migration.component)
            .bind(migration.number)
            .bind(migration.name)
            .bind(BUILD)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}
