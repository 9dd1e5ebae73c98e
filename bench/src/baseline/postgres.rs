//! Plain sqlx on a PostgreSQL database.

use std::time::Duration;

use sqlx::encode::IsNull;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgPoolOptions, PgRow, PgTypeInfo, PgValueRef};
use sqlx::query::Query;
use sqlx::{ConnectOptions, Connection, Decode, Encode, PgConnection, PgPool, Postgres, Row, Type};
use uuid::Uuid;

use crate::plain::Plain;
use crate::{Fault, sample};

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

/// An INSERT of `events` events from the `n`-th on, the first with the version after `version`.
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

/// The events of one stream.
pub(crate) const LOAD: &str = "
    SELECT position, event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data::text,
           metadata::text, correlation_id, causation_id, append_id, recorded_at
    FROM annals.events
    WHERE tenant = $1 AND aggregate_type = $2 AND aggregate_id = $3 AND version > $4
    ORDER BY version
";

/// The whole log.
pub(crate) const COPY_LOG: &str = "
    COPY (
        SELECT position, event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
               metadata, correlation_id, causation_id, append_id, recorded_at
        FROM annals.events
        ORDER BY position
    ) TO STDOUT (FORMAT binary)
";

/// A row of [`LOAD`].
pub(crate) fn plain(row: &PgRow) -> Result<Plain, Fault> {
    Ok(Plain {
        position: row.try_get(0)?,
        event_id: row.try_get(1)?,
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
        append_id: row.try_get(12)?,
        recorded_at: time_since_2000(row.try_get::<Micros, _>(13)?.0)?,
    })
}

/// A `timestamptz` as PostgreSQL sends it: microseconds since the year 2000.
#[derive(Clone, Copy)]
pub(crate) struct Micros(i64);

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl Decode<'_, Postgres> for Micros {
    fn decode(value: PgValueRef<'_>) -> Result<Self, Fault> {
        Ok(Self(i64::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, Fault> {
        buffer.extend(self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}

/// The time this many microseconds after the beginning of the year 2000.
pub(crate) fn time_since_2000(micros: i64) -> Result<jiff::Timestamp, Fault> {
    const EPOCH: i64 = 946_684_800_000_000;
    Ok(jiff::Timestamp::from_microsecond(micros + EPOCH)?)
}

/// Does the work that filling has left to background processes, so that it does not happen during a measurement.
pub(crate) async fn tidy(url: &str) -> Result<(), Fault> {
    let mut connection = connection(url).await?;
    for statement in ["VACUUM ANALYZE annals.events", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
