//! eventcore. It has two feeds on PostgreSQL: reads in the order of event ids, and deliveries, whose order every append
//! takes turns for; the latter makes appends slower, so it is a peer of its own.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Instant;

use annals_peers::{Built, Fault, Page, Paid, Peer, Place, Setup};
use eventcore::postgres::projections::{
    DeliveryPosition, DeliverySourceId, DeliveryUpperBound, EventTypeName, NoopAfterCommit, PostgresProjectionConfig,
    PostgresProjectionSource, PostgresProjectionStore, PostgresProjector, ProjectionSelection, ProjectionSelectionId,
    ProjectionSource, ProjectionStreamFilter, ProjectorName, run_transactional_projection,
};
use eventcore::postgres::{MaxConnections, PostgresConfig, PostgresEventStore};
use eventcore::sqlite::{SqliteConfig, SqliteEventStore, rusqlite};
use eventcore::{ProjectionConfig, Projector, collect_events, run_projection};
use eventcore_types::{
    BatchSize, EventFilter, EventPage, EventReader, EventStore, StreamId, StreamPosition, StreamVersion, StreamWrites,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Postgres, Transaction};

use crate::pools;

/// Events of a page.
const PAGE: usize = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    stream: StreamId,
    paid: Paid,
}

impl eventcore::Event for Event {
    fn stream_id(&self) -> &StreamId {
        &self.stream
    }

    fn event_type_name() -> &'static str {
        "paid"
    }
}

/// A stream and its length.
pub struct Stream(StreamId, usize);

fn stream(name: &str) -> Stream {
    Stream(StreamId::try_new(name).expect("the name is sound"), 0)
}

async fn append(store: &impl EventStore, Stream(id, length): &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
    let added = events.len();
    let mut writes = StreamWrites::new().register_stream(id.clone(), StreamVersion::new(*length))?;
    for paid in events {
        writes = writes.append(Event { stream: id.clone(), paid })?;
    }
    store.append_events(writes).await?;
    *length += added;
    Ok(())
}

async fn load(store: &impl EventStore, name: &str) -> Result<Vec<Paid>, Fault> {
    let events = collect_events(store.read_stream::<Event>(StreamId::try_new(name)?).await?).await?;
    Ok(events.into_iter().map(|event| event.paid).collect())
}

async fn page<S: EventReader<Error = E>, E: Into<Fault>>(
    store: &S,
    after: Option<&StreamPosition>,
) -> Result<Option<Page<StreamPosition>>, Fault> {
    let limit = BatchSize::new(PAGE);
    let page = after.map_or(EventPage::first(limit), |after| EventPage::after(*after, limit));
    let events = store.read_events::<Event>(EventFilter::all(), page).await.map_err(Into::into)?;
    let next = events.last().map(|(_, position)| *position).or(after.copied());
    Ok(Some(Page { events: events.into_iter().map(|(event, _)| event.paid).collect(), next }))
}

/// The log and the read model in one database.
pub struct OnPostgres {
    store: PostgresEventStore,
    pool: PgPool,
}

impl Peer for OnPostgres {
    const TABLE: &'static str = "eventcore_events";
    type Stream = Stream;
    type Cursor = StreamPosition;

    async fn open(setup: &Setup) -> Result<Self, Fault> {
        let Place::Postgres(url) = &setup.place else { return Err("this is no PostgreSQL database".into()) };
        let most = NonZeroU32::new(setup.connections).ok_or("a pool has connections")?;
        let config = PostgresConfig { max_connections: MaxConnections::new(most), ..Default::default() };
        let store = PostgresEventStore::with_config(url, config).await?;
        store.migrate().await;
        Ok(Self { store, pool: pools::postgres(setup).await? })
    }

    fn stream(&self, name: &str) -> Stream {
        stream(name)
    }

    async fn append(&self, stream: &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
        append(&self.store, stream, events).await
    }

    async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
        load(&self.store, name).await
    }

    async fn page(&self, after: Option<&StreamPosition>) -> Result<Option<Page<StreamPosition>>, Fault> {
        page(&self.store, after).await
    }

    async fn project(&self, round: usize, _events: u64) -> Result<Option<Built>, Fault> {
        let source = PostgresProjectionSource::from_pool(self.pool.clone(), DeliverySourceId::try_new("log")?);
        now(source.migrate())?;
        project(&self.pool, &source, round).await.map(Some)
    }
}

struct Upserts {
    name: ProjectorName,
    statement: String,
}

impl PostgresProjector for Upserts {
    type Event = Event;
    type Error = sqlx::Error;
    type AfterCommit = NoopAfterCommit;

    fn name(&self) -> &ProjectorName {
        &self.name
    }

    async fn apply<'a, 'c>(
        &'a mut self,
        event: &'a Event,
        _position: DeliveryPosition,
        transaction: &'a mut Transaction<'c, Postgres>,
    ) -> Result<NoopAfterCommit, sqlx::Error>
    where
        'c: 'a,
    {
        let upsert = sqlx::query(&self.statement).bind(event.stream.as_ref()).bind(event.paid.amount);
        upsert.execute(&mut **transaction).await?;
        Ok(NoopAfterCommit)
    }
}

/// Waits for a future that cannot be sent to another thread.
fn now<T, E: Into<Fault>>(future: impl Future<Output = Result<T, E>>) -> Result<T, Fault> {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future)).map_err(Into::into)
}

fn everything() -> Result<ProjectionSelection, Fault> {
    let (id, paid) = (ProjectionSelectionId::try_new("all")?, EventTypeName::try_new("paid")?);
    Ok(ProjectionSelection::try_new(id, ProjectionStreamFilter::All, vec![paid])?)
}

async fn project(pool: &PgPool, source: &PostgresProjectionSource, round: usize) -> Result<Built, Fault> {
    let destination = PostgresProjectionStore::from_pool(pool.clone());
    now(destination.migrate())?;
    let table = pools::make_totals(pool, round).await?;
    let projector = Upserts { name: ProjectorName::try_new(&table)?, statement: pools::upsert(&table) };
    let config = PostgresProjectionConfig::new(everything()?).with_batch_size(BatchSize::new(PAGE))?;
    let begun = Instant::now();
    run_transactional_projection(projector, source, &destination, config).await?;
    let time = begun.elapsed();
    Ok(Built { totals: pools::totals(pool, &table).await?, time })
}

/// The same with deliveries set up from the beginning.
pub struct Delivery {
    on_postgres: OnPostgres,
    source: PostgresProjectionSource,
    selection: ProjectionSelection,
}

impl Peer for Delivery {
    const TABLE: &'static str = OnPostgres::TABLE;
    type Stream = Stream;
    type Cursor = DeliveryPosition;

    async fn open(setup: &Setup) -> Result<Self, Fault> {
        let on_postgres = OnPostgres::open(setup).await?;
        let source = PostgresProjectionSource::from_pool(on_postgres.pool.clone(), DeliverySourceId::try_new("log")?);
        now(source.migrate())?;
        Ok(Self { on_postgres, source, selection: everything()? })
    }

    fn stream(&self, name: &str) -> Stream {
        stream(name)
    }

    async fn append(&self, stream: &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
        self.on_postgres.append(stream, events).await
    }

    async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
        self.on_postgres.load(name).await
    }

    async fn page(&self, after: Option<&DeliveryPosition>) -> Result<Option<Page<DeliveryPosition>>, Fault> {
        let Some(upto) = self.source.high_watermark().await? else {
            return Ok(Some(Page { events: Vec::new(), next: None }));
        };
        let upto = DeliveryUpperBound::Inclusive(upto);
        let limit = BatchSize::new(PAGE);
        let found = self.source.read_envelopes(&self.selection, after.copied(), upto, limit).await?;
        let next = found.last().map(|envelope| envelope.position()).or(after.copied());
        let event = |json: &str| Ok::<_, Fault>(serde_json::from_str::<Event>(json)?.paid);
        let events = found.iter().map(|envelope| event(envelope.payload().get())).collect::<Result<_, _>>()?;
        Ok(Some(Page { events, next }))
    }

    async fn project(&self, round: usize, _events: u64) -> Result<Option<Built>, Fault> {
        project(&self.on_postgres.pool, &self.source, round).await.map(Some)
    }
}

/// A file for the log, and the read model in the same.
pub struct OnSqlite {
    store: SqliteEventStore,
    setup: Setup,
}

impl Peer for OnSqlite {
    const TABLE: &'static str = "eventcore_events";
    type Stream = Stream;
    type Cursor = StreamPosition;

    async fn open(setup: &Setup) -> Result<Self, Fault> {
        let Place::Sqlite(path) = &setup.place else { return Err("this is no file".into()) };
        let store = SqliteEventStore::new(SqliteConfig { path: path.clone(), encryption_key: None })?;
        store.migrate().await?;
        Ok(Self { store, setup: setup.clone() })
    }

    fn stream(&self, name: &str) -> Stream {
        stream(name)
    }

    async fn append(&self, stream: &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
        append(&self.store, stream, events).await
    }

    async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
        load(&self.store, name).await
    }

    async fn page(&self, after: Option<&StreamPosition>) -> Result<Option<Page<StreamPosition>>, Fault> {
        page(&self.store, after).await
    }

    async fn project(&self, round: usize, events: u64) -> Result<Option<Built>, Fault> {
        let Place::Sqlite(path) = &self.setup.place else { return Err("this is no file".into()) };
        let pool = pools::sqlite(&self.setup).await?;
        let table = pools::make_totals_in_file(&pool, round).await?;
        let begun = Instant::now();
        loop {
            let before = pools::totals_in_file(&pool, &table).await?;
            // A run ends with the page.
            let projector = Lines::new(path, &table)?;
            run_projection(projector, &self.store, ProjectionConfig::default()).await?;
            let now = pools::totals_in_file(&pool, &table).await?;
            if now.events == events || now == before {
                return Ok(Some(Built { totals: now, time: begun.elapsed() }));
            }
        }
    }
}

/// A projector that writes through a connection of its own.
struct Lines {
    connection: rusqlite::Connection,
    name: String,
    statement: String,
}

impl Lines {
    fn new(path: &Path, table: &str) -> Result<Self, Fault> {
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(60))?;
        let statement = pools::upsert(table).replace('$', "?");
        Ok(Self { connection, name: table.to_owned(), statement })
    }
}

impl Projector for Lines {
    type Event = Event;
    type Error = rusqlite::Error;
    type Context = ();

    fn apply(&mut self, event: Event, _position: StreamPosition, (): &mut ()) -> Result<(), rusqlite::Error> {
        let mut upsert = self.connection.prepare_cached(&self.statement)?;
        upsert.execute((event.stream.as_ref(), event.paid.amount)).map(drop)
    }

    fn name(&self) -> &str {
        &self.name
    }
}
