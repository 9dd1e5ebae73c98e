//! What only PostgreSQL can get wrong. The contract that all stores share is held by the conformance suite.

mod as_of;
mod by_hand;
mod clock;
mod crash;
mod database;
mod environment;
mod failover;
mod faults;
mod frozen;
#[cfg(target_os = "linux")]
mod full_disk;
mod full_stream;
mod groups;
mod lost;
mod migrate;
mod notifications;
mod order;
mod pooler;
mod proxy;
mod replication;
mod requests;
mod restart;
mod roles;
mod schema;
mod server_run;
mod settings;
mod standby;
mod tenants;
mod tls;
mod torture;
mod unit_of_work;
mod values;

use annals_eventstore::{
    AppendError, Appended, EventId, EventStore, ExpectedVersion, NewEvent, Payload, PostgresOptions, PostgresStore,
    StreamId, Tenant,
};
use annals_scratch::Database;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::backends::postgres_database;

/// Inserts the first event of the stream `$1` as a hand-written statement would.
const INSERT: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata)
    VALUES (gen_random_uuid(), 'default', 'order', $1, 1, 'placed', 1, '{}', '{}')
    RETURNING position
";

/// An empty store, and its database for access without the store.
struct Fixture {
    store: PostgresStore,
    database: Database,
}

impl Fixture {
    async fn new() -> Self {
        let database = postgres_database().await;
        let store = PostgresOptions::new(database.url()).open().await.unwrap();
        Self { store, database }
    }

    async fn foreign(&self) -> PgConnection {
        PgConnection::connect(self.database.url()).await.unwrap()
    }

    async fn append(&self, id: &str) -> Result<Appended, AppendError> {
        self.store.append(&stream(id), ExpectedVersion::NoStream, vec![self.event()]).await
    }

    fn event(&self) -> NewEvent {
        event_for(&self.store)
    }
}

fn event_for(store: &PostgresStore) -> NewEvent {
    let id = EventId::new(store.ids().next_id()).unwrap();
    NewEvent::raw(id, "placed", 1, Payload::from_json("{}").unwrap()).unwrap()
}

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(|_| ())
}

/// Allocates a position and inserts an event, in the open transaction of the connection or in its own.
async fn insert(connection: &mut PgConnection, id: &str) -> i64 {
    let rows = sqlx::query(INSERT).bind(id).fetch_all(connection).await.unwrap();
    rows[0].get(0)
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned()
}
