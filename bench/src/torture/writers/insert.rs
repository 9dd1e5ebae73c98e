//! Ways into the log beside the library: a hand-written INSERT, and a call of the stored function.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::sample;
use crate::torture::Fault;
use crate::torture::fact::{Fact, PAYLOAD, aggregate_id, aggregate_type, correlation, name};

const INSERT: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, correlation_id)
    SELECT e.event_id, 'default', e.aggregate_type, e.aggregate_id, e.version, e.event_type, 1, $6::jsonb, '{}',
           e.correlation_id
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $7::text[]) WITH ORDINALITY
         AS e (event_id, aggregate_type, aggregate_id, version, event_type, correlation_id, n)
    ORDER BY e.n
    RETURNING position, aggregate_id, version, event_id
";

const APPEND_ONE: &str = "
    SELECT kind, base_versions[1] + 1, positions[1]
    FROM annals.append_one('default', $1, $2, NULL, $3, $4, 1, $5, '{}', $6, NULL)
    ORDER BY 1
";

/// Inserts events of these streams with these versions, in one statement.
pub(super) async fn insert(connection: &mut PgConnection, events: &[(u32, i64)]) -> Result<Vec<Fact>, Fault> {
    let ids: Vec<Uuid> = events.iter().map(|_| sample::id()).collect();
    let streams = || events.iter().map(|(stream, _)| *stream);
    let names: Vec<&str> = ids.iter().map(|id| name(*id)).collect();
    let query = sqlx::query(INSERT)
        .bind(ids)
        .bind(streams().map(aggregate_type).collect::<Vec<_>>())
        .bind(streams().map(aggregate_id).collect::<Vec<_>>())
        .bind(events.iter().map(|(_, version)| *version).collect::<Vec<_>>())
        .bind(names)
        .bind(PAYLOAD)
        .bind(streams().map(correlation).collect::<Vec<_>>());
    query.fetch_all(connection).await?.iter().map(Fact::of_row).collect()
}

/// Appends an event to a stream by the stored function, whatever its version.
pub(super) async fn append_one(connection: &mut PgConnection, stream: u32) -> Result<Fact, Fault> {
    let id = sample::id();
    let query = sqlx::query(APPEND_ONE)
        .bind(aggregate_type(stream))
        .bind(aggregate_id(stream))
        .bind(id)
        .bind(name(id))
        .bind(PAYLOAD)
        .bind(correlation(stream));
    let row = query.fetch_one(connection).await?;
    match row.get(0) {
        "appended" => Fact::new(row.get(2), stream, row.get(1), id),
        other => Err(format!("`annals.append_one` gave `{other}` for any version").into()),
    }
}
