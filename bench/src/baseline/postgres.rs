//! Plain sqlx on a PostgreSQL database.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{ConnectOptions, PgConnection, PgPool, Postgres};
use uuid::Uuid;

use crate::sample;

/// One event.
pub(crate) const INSERT: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
                               metadata, correlation_id, causation_id, append_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9::text::jsonb, $10, $11, $12)
";

/// Events of one stream.
const INSERT_MANY: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
                               metadata, correlation_id, causation_id, append_id)
    SELECT e.event_id, $2, $3, $4, e.version, e.event_type, e.schema_version, e.event_data::jsonb, e.metadata::jsonb,
           e.correlation_id, e.causation_id, $12
    FROM unnest($1, $5, $6, $7, $8, $9, $10, $11)
         AS e (event_id, version, event_type, schema_version, event_data, metadata, correlation_id, causation_id)
";

pub(crate) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(url.parse::<PgConnectOptions>()?.disable_statement_logging())
}

pub(crate) async fn connection(url: &str) -> Result<PgConnection, sqlx::Error> {
    options(url)?.connect().await
}

/// A pool whose connections are not pinged.
pub(crate) async fn pool(url: &str, connections: usize) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(u32::try_from(connections).unwrap_or(u32::MAX))
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(60))
        .connect_with(options(url)?)
        .await
}

/// An INSERT of the `n`-th event.
pub(crate) fn insert(aggregate_id: &str, version: i64, n: u64) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(INSERT)
        .bind(sample::id())
        .bind("default")
        .bind("order")
        .bind(aggregate_id.to_owned())
        .bind(version)
        .bind(sample::NAME)
        .bind(1_i64)
        .bind(payload(n))
        .bind("{}")
        .bind(None::<String>)
        .bind(None::<String>)
        .bind(None::<Uuid>)
}

/// An INSERT of so many events from the `n`-th, the first of them with the version after `version`.
pub(crate) fn insert_many(
    aggregate_id: &str,
    version: i64,
    n: u64,
    events: usize,
) -> Query<'static, Postgres, PgArguments> {
    let (end, numbers) = (version + i64::try_from(events).unwrap_or_default(), n..n + events as u64);
    sqlx::query(INSERT_MANY)
        .bind((0..events).map(|_| sample::id()).collect::<Vec<_>>())
        .bind("default")
        .bind("order")
        .bind(aggregate_id.to_owned())
        .bind((version + 1..=end).collect::<Vec<_>>())
        .bind(vec![sample::NAME; events])
        .bind(vec![1_i64; events])
        .bind(numbers.map(payload).collect::<Vec<_>>())
        .bind(vec!["{}"; events])
        .bind(vec![None::<String>; events])
        .bind(vec![None::<String>; events])
        .bind(sample::id())
}

fn payload(n: u64) -> String {
    serde_json::to_string(&sample::paid(n)).expect("it is plain JSON")
}
