//! Plain sqlx on a SQLite file.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Row, SqliteConnection, SqlitePool};
use uuid::Uuid;

use crate::plain::Plain;
use crate::{Fault, sample};

/// A row as the baseline binds it.
pub(crate) const INSERT: &str = "
    INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
                        metadata, correlation_id, causation_id, append_id, recorded_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
";

pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .row_buffer_size(256)
        .disable_statement_logging()
}

pub(crate) async fn connection(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path).connect().await
}

/// A pool of one connection that is not pinged.
pub(crate) async fn pool_of_one(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .acquire_timeout(std::time::Duration::from_secs(60))
        .connect_with(options(path))
        .await
}

/// Binds one row in the order of [`INSERT`].
pub(crate) fn bind<'q>(
    query: sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    aggregate_id: &str,
    version: i64,
    append_id: Option<Vec<u8>>,
    n: u64,
) -> sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    let payload = serde_json::to_string(&sample::paid(n)).expect("it is plain JSON");
    query
        .bind(sample::id().as_bytes().to_vec())
        .bind("default")
        .bind("order")
        .bind(aggregate_id.to_owned())
        .bind(version)
        .bind(sample::NAME)
        .bind(1_i64)
        .bind(payload)
        .bind("{}")
        .bind(None::<String>)
        .bind(None::<String>)
        .bind(append_id)
        .bind(i64::try_from(n).unwrap_or_default())
}

/// The text of one INSERT with this number of rows.
pub(crate) fn insert_many(rows: usize) -> String {
    let (head, _) = INSERT.split_once("VALUES").expect("the statement has its values last");
    let row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    format!("{head}VALUES {}", vec![row; rows].join(", "))
}

/// All columns of an event, in the order in which [`plain`] reads them.
pub(crate) const COLUMNS: &str =
    "position, event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
           event_data, metadata, correlation_id, causation_id, append_id, recorded_at";

pub(crate) fn plain(row: &SqliteRow) -> Result<Plain, Fault> {
    let append_id: Option<&[u8]> = row.try_get(12)?;
    Ok(Plain {
        position: row.try_get(0)?,
        event_id: Uuid::from_slice(row.try_get(1)?)?,
        tenant: row.try_get(2)?,
        aggregate_type: row.try_get(3)?,
        aggregate_id: row.try_get(4)?,
        version: row.try_get(5)?,
        event_type: row.try_get(6)?,
        schema_version: row.try_get(7)?,
        paid: serde_json::from_str(row.try_get(8)?)?,
        metadata: row.try_get(9)?,
        correlation_id: row.try_get(10)?,
        causation_id: row.try_get(11)?,
        append_id: append_id.map(Uuid::from_slice).transpose()?,
        recorded_at: jiff::Timestamp::from_microsecond(row.try_get(13)?)?,
    })
}
