//! The schema of the database, and the plans of its queries.

mod catch_up;
mod plans;
mod scans;
mod schema;

use annals_scratch::Database;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{PostgresOptions, PostgresStore};
use crate::event::{EventId, NewEvent};
use crate::payload::Payload;
use crate::store::EventStore;
use crate::stream::{StreamId, Tenant};

/// The major version that Debian has, whose golden files are kept. Other versions are checked by assertions only.
const DEBIAN: i32 = 15;

/// An empty store.
async fn new_store() -> (Database, PgConnection) {
    let database = Database::empty_on_our_own().await;
    PostgresOptions::new(database.url()).migrate().open().await.unwrap().close().await;
    let connection = PgConnection::connect(database.url()).await.unwrap();
    (database, connection)
}

/// Twenty thousand events in five hundred streams of three types and a long one, some of them with a correlation; and as
/// many request keys; and some snapshots of each stream.
async fn fill(connection: &mut PgConnection) {
    let fill = "
        INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                   event_data, metadata, correlation_id)
        SELECT gen_random_uuid(), 'default', 'type-' || s % 3, 'id-' || s, v, 'event-' || v % 7, 1, '{}', '{}',
               CASE WHEN v % 4 = 0 THEN 'correlation-' || s || '-' || v / 10 END
        FROM generate_series(1, 500) AS s, generate_series(1, 30) AS v
        ORDER BY v, s;
        INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                   event_data, metadata)
        SELECT gen_random_uuid(), 'default', 'long', 'one', v, 'event-' || v % 7, 1, '{}', '{}'
        FROM generate_series(1, 5000) AS v
        ORDER BY v;
        INSERT INTO annals.request_keys (tenant, request_key, fingerprint, result, expires_at)
        SELECT 'default', 'key-' || n, gen_random_uuid(), '{}', clock_timestamp() + interval '1 day'
        FROM generate_series(1, 20000) AS n;
        INSERT INTO annals.snapshots (tenant, aggregate_type, aggregate_id, snapshot_key, version, event_id, body, digest,
                                      recorded_at)
        SELECT 'default', 'type-' || s % 3, 'id-' || s, 'key', v, gen_random_uuid(), '{}', gen_random_uuid(),
               clock_timestamp()
        FROM generate_series(1, 500) AS s, generate_series(5, 30, 5) AS v;";
    run(connection, fill).await;
}

async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

/// The first column of every row.
async fn lines(connection: &mut PgConnection, query: &str) -> Vec<String> {
    let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn major(connection: &mut PgConnection) -> i32 {
    let number = "SELECT (current_setting('server_version_num')::int / 10000)::text ORDER BY 1";
    lines(connection, number).await[0].parse().unwrap()
}

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

fn event(store: &PostgresStore) -> NewEvent {
    let id = EventId::new(store.ids().next_id()).unwrap();
    NewEvent::raw(id, "placed", 1, Payload::from_json("{}").unwrap()).unwrap()
}
