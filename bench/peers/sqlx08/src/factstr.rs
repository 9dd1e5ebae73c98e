//! factstr. It has one log without streams; a stream is a context here, found by its name in the payload. Its calls block.

use std::sync::Arc;
use std::time::Instant;

use annals_peers::{Built, Fault, Page, Paid, Peer, Place, Setup};
use factstr::{
    DurableStream, EventFilter, EventQuery, EventRecord, EventStore, HandleStream, NewEvent, StreamHandlerError,
};
use factstr_postgres::PostgresStore;
use factstr_sqlite::SqliteStore;
use serde_json::{Value, json};
use sqlx::{PgPool, SqlitePool};

use crate::pools;

/// A stream, and its last number.
pub struct Stream(String, Option<u64>);

fn context(name: &str) -> EventQuery {
    let of_stream = EventFilter::for_event_types(["paid"]).with_payload_predicates([json!({ "stream": name })]);
    EventQuery::all().with_filters([of_stream])
}

fn new_event(name: &str, event: &Paid) -> Result<NewEvent, Fault> {
    let mut payload = serde_json::to_value(event)?;
    payload["stream"] = Value::String(name.to_owned());
    Ok(NewEvent::new("paid", payload))
}

fn events(records: Vec<EventRecord>) -> Result<Vec<Paid>, Fault> {
    records.into_iter().map(|record| Ok(serde_json::from_value(record.payload)?)).collect()
}

/// Runs a call that blocks.
async fn call<S: EventStore + Send + Sync + 'static, T: Send + 'static>(
    store: &Arc<S>,
    work: impl FnOnce(&S) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || work(&store)).await?
}

async fn append<S: EventStore + Send + Sync + 'static>(
    store: &Arc<S>,
    Stream(name, last): &mut Stream,
    events: Vec<Paid>,
) -> Result<(), Fault> {
    let (id, expected) = (name.clone(), *last);
    let done = call(store, move |store| {
        let new = events.iter().map(|event| new_event(&id, event)).collect::<Result<_, _>>()?;
        Ok(store.append_if(new, &context(&id), expected)?)
    });
    *last = Some(done.await?.last_sequence_number);
    Ok(())
}

async fn load<S: EventStore + Send + Sync + 'static>(store: &Arc<S>, name: &str) -> Result<Vec<Paid>, Fault> {
    let name = name.to_owned();
    call(store, move |store| events(store.query(&context(&name))?.event_records)).await
}

async fn page<S: EventStore + Send + Sync + 'static>(
    store: &Arc<S>,
    after: Option<&u64>,
) -> Result<Option<Page<u64>>, Fault> {
    let after = after.copied();
    call(store, move |store| {
        let mut query = EventQuery::all();
        if let Some(after) = after {
            query = query.with_min_sequence_number(after);
        }
        let found = store.query(&query)?;
        let next = found.last_returned_sequence_number.or(after);
        Ok(Some(Page { events: events(found.event_records)?, next }))
    })
    .await
}

/// A durable stream that hands each event to `take`, on our runtime.
fn handler<T: Future<Output = Result<(), sqlx::Error>> + Send + 'static>(
    take: impl Fn(String, i64) -> T + Send + Sync + 'static,
) -> HandleStream {
    let (runtime, take) = (tokio::runtime::Handle::current(), Arc::new(take));
    HandleStream::new(move |records| {
        let (runtime, take) = (runtime.clone(), Arc::clone(&take));
        async move {
            let taking = runtime.spawn(async move {
                for record in records {
                    let stream = record.payload["stream"].as_str().unwrap_or_default().to_owned();
                    take(stream, record.payload["amount"].as_i64().unwrap_or_default()).await?;
                }
                Ok::<_, sqlx::Error>(())
            });
            let failed = |error: &dyn std::error::Error| StreamHandlerError::new(error.to_string());
            taking.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
        }
    })
}

macro_rules! peer {
    ($name:ident, $store:ty, $pool:ty, $pools:path, $open:expr, $make:path, $wait_for:path) => {
        pub struct $name {
            store: Arc<$store>,
            pool: $pool,
        }

        impl Peer for $name {
            const TABLE: &'static str = "events";
            type Stream = Stream;
            type Cursor = u64;

            async fn open(setup: &Setup) -> Result<Self, Fault> {
                let place = setup.place.clone();
                let store = tokio::task::spawn_blocking(move || $open(place)).await??;
                Ok(Self { store: Arc::new(store), pool: $pools(setup).await? })
            }

            fn stream(&self, name: &str) -> Stream {
                Stream(name.to_owned(), None)
            }

            async fn append(&self, stream: &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
                append(&self.store, stream, events).await
            }

            async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
                load(&self.store, name).await
            }

            async fn page(&self, after: Option<&u64>) -> Result<Option<Page<u64>>, Fault> {
                page(&self.store, after).await
            }

            async fn project(&self, round: usize, events: u64) -> Result<Option<Built>, Fault> {
                let table = $make(&self.pool, round).await?;
                let (pool, statement) = (self.pool.clone(), Arc::new(pools::upsert(&table)));
                let handle = handler(move |stream, amount| {
                    let (pool, statement) = (pool.clone(), Arc::clone(&statement));
                    async move { sqlx::query(&statement).bind(stream).bind(amount).execute(&pool).await.map(drop) }
                });
                let name = DurableStream::new(&table);
                let begun = Instant::now();
                let following = call(&self.store, move |store| Ok(store.stream_all_durable(&name, handle)?)).await?;
                let totals = $wait_for(&self.pool, &table, events).await?;
                let time = begun.elapsed();
                tokio::task::spawn_blocking(move || following.unsubscribe()).await?;
                Ok(Some(Built { totals, time }))
            }
        }
    };
}

fn open_postgres(place: Place) -> Result<PostgresStore, Fault> {
    match place {
        Place::Postgres(url) => Ok(PostgresStore::connect(&url)?),
        Place::Sqlite(_) => Err("this is no PostgreSQL database".into()),
    }
}

fn open_sqlite(place: Place) -> Result<SqliteStore, Fault> {
    match place {
        Place::Sqlite(path) => Ok(SqliteStore::open(path)?),
        Place::Postgres(_) => Err("this is no file".into()),
    }
}

peer!(OnPostgres, PostgresStore, PgPool, pools::postgres, open_postgres, pools::make_totals, pools::wait_for);
peer!(
    OnSqlite,
    SqliteStore,
    SqlitePool,
    pools::sqlite,
    open_sqlite,
    pools::make_totals_in_file,
    pools::wait_for_in_file
);
