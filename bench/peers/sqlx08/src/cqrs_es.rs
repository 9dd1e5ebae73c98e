//! cqrs-es with postgres-es and sqlite-es. It has no global order, so no feed to follow; a replay goes stream by stream.

use std::sync::Arc;
use std::time::Instant;

use annals_peers::{Built, Fault, Page, Paid, Peer, Setup, Totals};
use cqrs_es::persist::{GenericQuery, PersistedEventRepository, QueryReplay, SerializedEvent};
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, View, event_sink::EventSink};
use postgres_es::{PostgresEventRepository, PostgresViewRepository};
use serde::{Deserialize, Serialize};
use sqlite_es::{SqliteEventRepository, SqliteViewRepository};
use sqlx::{PgPool, Row, SqlitePool};

use crate::pools;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Event(Paid);

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        "paid".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Order;

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = ();
    type Event = Event;
    type Error = std::convert::Infallible;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _sink: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, _event: Event) {}
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    events: i64,
    amount: i64,
}

impl View<Order> for Line {
    fn update(&mut self, event: &EventEnvelope<Order>) {
        self.events += 1;
        self.amount += event.payload.0.amount;
    }
}

/// A stream and its length.
pub struct Stream(String, usize);

async fn append(
    repository: &impl PersistedEventRepository,
    Stream(id, length): &mut Stream,
    events: Vec<Paid>,
) -> Result<(), Fault> {
    let mut rows = Vec::with_capacity(events.len());
    for (event, sequence) in events.into_iter().zip(*length + 1..) {
        let event = Event(event);
        rows.push(SerializedEvent::new(
            id.clone(),
            sequence,
            Order::TYPE.to_owned(),
            event.event_type(),
            event.event_version(),
            serde_json::to_value(&event)?,
            serde_json::json!({}),
        ));
    }
    repository.persist::<Order>(&rows, None).await?;
    *length += rows.len();
    Ok(())
}

async fn load(repository: &impl PersistedEventRepository, name: &str) -> Result<Vec<Paid>, Fault> {
    let events = repository.get_events::<Order>(name).await?;
    events.into_iter().map(|event| Ok(serde_json::from_value(event.payload)?)).collect()
}

async fn read(repository: &impl PersistedEventRepository) -> Result<u64, Fault> {
    let mut events = repository.stream_all_events::<Order>().await?;
    let mut count = 0;
    while let Some(event) = events.next::<Order>(&[]).await {
        std::hint::black_box(event?);
        count += 1;
    }
    Ok(count)
}

macro_rules! peer {
    ($name:ident, $pool:ty, $open:path, $repository:ident, $views:ident, $schema:expr, $view:expr, $totals:expr) => {
        pub struct $name {
            pool: $pool,
            repository: $repository,
        }

        impl Peer for $name {
            const TABLE: &'static str = "events";
            type Stream = Stream;
            type Cursor = ();

            async fn open(setup: &Setup) -> Result<Self, Fault> {
                // A replay holds one connection while the view needs another.
                let pool = $open(&Setup { connections: setup.connections.max(2), ..setup.clone() }).await?;
                sqlx::raw_sql($schema).execute(&pool).await?;
                Ok(Self { repository: $repository::new(pool.clone()), pool })
            }

            fn stream(&self, name: &str) -> Stream {
                Stream(name.to_owned(), 0)
            }

            async fn append(&self, stream: &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
                append(&self.repository, stream, events).await
            }

            async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
                load(&self.repository, name).await
            }

            async fn read(&self) -> Result<u64, Fault> {
                read(&self.repository).await
            }

            async fn page(&self, _after: Option<&()>) -> Result<Option<Page<()>>, Fault> {
                Ok(None)
            }

            async fn project(&self, round: usize, _events: u64) -> Result<Option<Built>, Fault> {
                let table = format!("totals_{round}");
                sqlx::query(&$view.replace("{table}", &table)).execute(&self.pool).await?;
                let begun = Instant::now();
                let views = $views::<Line, Order>::new(&table, self.pool.clone());
                let mut query = GenericQuery::<_, Line, Order>::new(Arc::new(views));
                query.use_error_handler(Box::new(|error| eprintln!("the view was not updated: {error}")));
                QueryReplay::new($repository::new(self.pool.clone()), query).replay_all().await?;
                let time = begun.elapsed();
                let row = sqlx::query(&$totals.replace("{table}", &table)).fetch_one(&self.pool).await?;
                let rows = row.get::<i64, _>(0).try_into()?;
                let totals = Totals { rows, events: row.get::<i64, _>(1).try_into()? };
                Ok(Some(Built { totals, time }))
            }
        }
    };
}

peer!(
    OnPostgres,
    PgPool,
    pools::postgres,
    PostgresEventRepository,
    PostgresViewRepository,
    "CREATE TABLE events (
        aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
        event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence))",
    "CREATE TABLE {table} (
        view_id text NOT NULL PRIMARY KEY, version bigint CHECK (version >= 0) NOT NULL, payload json NOT NULL)",
    "SELECT count(*), coalesce(sum((payload->>'events')::bigint), 0)::bigint FROM {table}"
);

peer!(
    OnSqlite,
    SqlitePool,
    pools::sqlite,
    SqliteEventRepository,
    SqliteViewRepository,
    "CREATE TABLE events (
        aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence integer CHECK (sequence >= 0) NOT NULL,
        event_type text NOT NULL, event_version text NOT NULL, payload text NOT NULL, metadata text NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence)) STRICT",
    "CREATE TABLE {table} (
        view_id text NOT NULL PRIMARY KEY, version integer CHECK (version >= 0) NOT NULL, payload text NOT NULL) STRICT",
    "SELECT count(*), coalesce(sum(json_extract(payload, '$.events')), 0) FROM {table}"
);
