//! disintegrate. A stream is all events with an id. Its appends are serializable transactions, which fail beside each other on
//! different streams as well; they are tried again here, as its documentation asks of the caller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_peers::{Built, Fault, Page, Paid, Peer, Setup};
use async_trait::async_trait;
use disintegrate::serde::json::Json;
use disintegrate::{EventListener, EventStore, PersistedEvent, StreamItem, StreamQuery, query};
use disintegrate_postgres::{Error, PgEventId, PgEventListener, PgEventListenerConfig, PgEventStore};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::pools;

/// Its own set-up needs PostgreSQL 16, for a number in hexadecimal; this is the same with the number in decimal.
const SCHEMA: &str = "
    CREATE SEQUENCE seq_event_event_id;
    CREATE TABLE event (
        event_id bigint PRIMARY KEY DEFAULT nextval('seq_event_event_id'),
        event_type varchar(255),
        payload bytea,
        inserted_at timestamp DEFAULT now(),
        stream text
    );
    CREATE INDEX idx_event_type_btree ON event (event_type);
    CREATE INDEX idx_event_stream ON event (stream) WHERE stream IS NOT NULL;
    CREATE FUNCTION event_store_begin_epoch() RETURNS void AS $$
    DECLARE
        id bigint;
        db_id int;
    BEGIN
        SELECT last_value INTO id FROM seq_event_event_id;
        SELECT oid INTO db_id FROM pg_database WHERE datname = current_database();
        PERFORM pg_try_advisory_xact_lock_shared(db_id, 0);
        PERFORM pg_try_advisory_xact_lock_shared(1, (id & 4294967295)::bit(32)::integer);
        PERFORM pg_try_advisory_xact_lock_shared(2, (id >> 32)::bit(32)::integer);
    END $$ LANGUAGE plpgsql;
    CREATE FUNCTION event_store_current_epoch() RETURNS bigint AS $$
    DECLARE
        persisted_event_id bigint;
        pending_event_id bigint;
        db_id int;
    BEGIN
        SELECT coalesce(max(event_id), 0) INTO persisted_event_id FROM event;
        SELECT oid INTO db_id FROM pg_database WHERE datname = current_database();
        SELECT min((l3.objid::bigint << 32) + l2.objid::bigint)
        INTO pending_event_id
        FROM pg_locks l1 INNER JOIN pg_locks l2 ON l1.pid = l2.pid INNER JOIN pg_locks l3 ON l1.pid = l3.pid
        WHERE l1.classid = db_id AND l2.classid = 1 AND l3.classid = 2 AND l1.locktype = 'advisory';
        RETURN least(coalesce(pending_event_id, persisted_event_id), persisted_event_id);
    END $$ LANGUAGE plpgsql;
    CREATE TABLE event_listener (id text PRIMARY KEY, last_processed_event_id bigint, updated_at timestamp DEFAULT now());
";

/// Events of a page.
const PAGE: usize = 1_000;

/// How often a listener looks.
const POLL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, disintegrate::Event, Serialize, Deserialize)]
enum OrderEvent {
    Paid {
        #[id]
        stream: String,
        payment: String,
        amount: i64,
        currency: String,
        method: String,
    },
}

fn paid(event: PersistedEvent<PgEventId, OrderEvent>) -> Paid {
    let OrderEvent::Paid { payment, amount, currency, method, .. } = event.into_inner();
    Paid { payment, amount, currency, method }
}

/// A stream, and the id of its last event.
pub struct Stream(String, PgEventId);

pub struct OnPostgres {
    store: PgEventStore<OrderEvent, Json<OrderEvent>>,
    pool: PgPool,
}

fn of_stream(name: &str) -> StreamQuery<PgEventId, OrderEvent> {
    query!(OrderEvent; stream == name)
}

impl Peer for OnPostgres {
    const TABLE: &'static str = "event";
    type Stream = Stream;
    type Cursor = PgEventId;

    async fn open(setup: &Setup) -> Result<Self, Fault> {
        let pool = pools::postgres(setup).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { store: PgEventStore::new_uninitialized(pool.clone(), Json::default()), pool })
    }

    fn stream(&self, name: &str) -> Stream {
        Stream(name.to_owned(), 0)
    }

    async fn append(&self, Stream(name, last): &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
        let new = |Paid { payment, amount, currency, method }| OrderEvent::Paid {
            stream: name.clone(),
            payment,
            amount,
            currency,
            method,
        };
        let events: Vec<_> = events.into_iter().map(new).collect();
        loop {
            match self.store.append(events.clone(), of_stream(name), *last).await {
                Ok(done) => {
                    *last = done.last().map_or(*last, PersistedEvent::id);
                    return Ok(());
                }
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
        let query = of_stream(name);
        let mut items = self.store.stream(&query);
        let mut events = Vec::new();
        while let Some(StreamItem::Event(event)) = items.try_next().await? {
            events.push(paid(event));
        }
        Ok(events)
    }

    async fn read(&self) -> Result<u64, Fault> {
        let query = query!(OrderEvent);
        let mut items = self.store.stream(&query);
        let mut count = 0;
        while let Some(StreamItem::Event(event)) = items.try_next().await? {
            std::hint::black_box(event);
            count += 1;
        }
        Ok(count)
    }

    async fn page(&self, after: Option<&PgEventId>) -> Result<Option<Page<PgEventId>>, Fault> {
        let query = query!(OrderEvent).change_origin(after.copied().unwrap_or_default());
        let mut items = self.store.stream(&query).take(PAGE);
        let mut page = Page { events: Vec::new(), next: after.copied() };
        while let Some(item) = items.try_next().await? {
            // As its own listener does, which goes on behind the end that the stream names.
            page.next = Some(item.id());
            if let StreamItem::Event(event) = item {
                page.events.push(paid(event));
            }
        }
        Ok(Some(page))
    }

    async fn project(&self, round: usize, events: u64) -> Result<Option<Built>, Fault> {
        let table = pools::make_totals(&self.pool, round).await?;
        let begun = Instant::now();
        let upserts = Upserts {
            id: table.clone().leak(),
            query: query!(OrderEvent),
            pool: self.pool.clone(),
            statement: pools::upsert(&table),
        };
        let listeners = PgEventListener::builder(self.store.clone()).uninitialized();
        let listeners = listeners.register_listener(upserts, PgEventListenerConfig::poller(POLL));
        let stop = Arc::new(tokio::sync::Notify::new());
        let following = tokio::spawn({
            let stop = Arc::clone(&stop);
            listeners.start_with_shutdown(async move { stop.notified().await })
        });
        let totals = pools::wait_for(&self.pool, &table, events).await?;
        let time = begun.elapsed();
        stop.notify_one();
        following.await??;
        Ok(Some(Built { totals, time }))
    }
}

/// Whether the append may be tried again.
fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Concurrency => true,
        Error::Database(error) => {
            error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("40001"))
        }
        _ => false,
    }
}

struct Upserts {
    id: &'static str,
    query: StreamQuery<PgEventId, OrderEvent>,
    pool: PgPool,
    statement: String,
}

#[async_trait]
impl EventListener<PgEventId, OrderEvent> for Upserts {
    type Error = sqlx::Error;

    fn id(&self) -> &'static str {
        self.id
    }

    fn query(&self) -> &StreamQuery<PgEventId, OrderEvent> {
        &self.query
    }

    async fn handle(&self, event: PersistedEvent<PgEventId, OrderEvent>) -> Result<(), sqlx::Error> {
        let OrderEvent::Paid { stream, amount, .. } = event.into_inner();
        sqlx::query(&self.statement).bind(stream).bind(amount).execute(&self.pool).await.map(drop)
    }
}
