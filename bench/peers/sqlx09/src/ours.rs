//! annals.

use std::time::{Duration, Instant};

use annals::postgres::PostgresDatabase;
use annals::sqlite::SqliteDatabase;
use annals::{
    EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, Position, PostgresOptions, PostgresStore,
    Projection, ProjectionError, Projections, ProjectionsBuilder, ReadModel, Recorded, RecordedEvent, Rows,
    SqliteStore, StreamId, StreamVersion, Tenant,
};
use annals_peers::{Built, Fault, Page, Paid, Peer, Place, Setup, Totals};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};
use uuid::Uuid;

/// Events of a page.
const PAGE: usize = 1_000;

#[derive(Clone, annals::Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.paid")]
    Paid { payment: String, amount: i64, currency: String, method: String },
}

impl From<Paid> for OrderEvent {
    fn from(Paid { payment, amount, currency, method }: Paid) -> Self {
        Self::Paid { payment, amount, currency, method }
    }
}

fn paid(event: &RecordedEvent) -> Result<Paid, Fault> {
    let mut parts = event.decode()?.into_iter();
    let OrderEvent::Paid { payment, amount, currency, method } = parts.next().ok_or("it is read as one event")?;
    Ok(Paid { payment, amount, currency, method })
}

#[derive(Clone, ReadModel)]
#[read_model(table = "totals", key = "stream")]
struct Line {
    stream: String,
    events: i64,
    amount: i64,
}

struct Lines;

impl Projection for Lines {
    type Event = OrderEvent;
    type Row = Line;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<Line>) -> Result<(), ProjectionError> {
        let stream = event.stream.aggregate_id().to_owned();
        let OrderEvent::Paid { amount, .. } = event.event;
        if let Some(line) = rows.get_mut(&stream)? {
            line.events += 1;
            line.amount += amount;
        } else {
            rows.upsert(Line { stream, events: 1, amount });
        }
        Ok(())
    }
}

const TOTALS: &str = "SELECT count(*), CAST(coalesce(sum(events), 0) AS bigint) FROM totals ORDER BY 1";

/// A stream and its version.
pub struct Stream(StreamId, StreamVersion);

fn id(name: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", name).expect("the name is sound")
}

async fn append(store: &impl EventStore, Stream(id, version): &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
    let new = |paid: Paid| NewEvent::of(EventId::new(Uuid::now_v7())?, &OrderEvent::from(paid));
    let events = events.into_iter().map(new).collect::<Result<_, _>>()?;
    *version = store.append(id, ExpectedVersion::Exact(*version), events).await?.version();
    Ok(())
}

async fn load(store: &impl EventStore, name: &str) -> Result<Vec<Paid>, Fault> {
    store.load_page(&id(name), StreamVersion::NONE, PAGE).await?.events.iter().map(paid).collect()
}

async fn read(store: &impl EventStoreExt) -> Result<u64, Fault> {
    let mut events = store.read_all(Position::START, Filter::all());
    let mut count = 0;
    while let Some(event) = events.try_next().await? {
        std::hint::black_box(paid(&event)?);
        count += 1;
    }
    Ok(count)
}

async fn page(store: &impl EventStore, after: Option<&Position>) -> Result<Option<Page<Position>>, Fault> {
    let after = after.copied().unwrap_or(Position::START);
    let page = store.read_page(after.into(), &Filter::all(), PAGE).await?;
    let next = page.events.last().map_or(after, |event| event.position);
    Ok(Some(Page { events: page.events.iter().map(paid).collect::<Result<_, _>>()?, next: Some(next) }))
}

/// Builds the read model up to the head.
async fn build(store: &impl EventStore, views: ProjectionsBuilder) -> Result<Duration, Fault> {
    let begun = Instant::now();
    let head = store.head().await?.position;
    let views = views.with(Lines).start().await?;
    views.wait_for(head, Duration::from_secs(120)).await?;
    let time = begun.elapsed();
    views.close().await;
    Ok(time)
}

macro_rules! peer {
    ($name:ident, $store:ty, $open:path, $database:path) => {
        pub struct $name {
            store: $store,
            setup: Setup,
        }

        impl Peer for $name {
            const TABLE: &'static str = "annals.events";
            type Stream = Stream;
            type Cursor = Position;

            async fn open(setup: &Setup) -> Result<Self, Fault> {
                Ok(Self { store: $open(setup).await?, setup: setup.clone() })
            }

            fn stream(&self, name: &str) -> Stream {
                Stream(id(name), StreamVersion::NONE)
            }

            async fn append(&self, stream: &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
                append(&self.store, stream, events).await
            }

            async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
                load(&self.store, name).await
            }

            async fn read(&self) -> Result<u64, Fault> {
                read(&self.store).await
            }

            async fn page(&self, after: Option<&Position>) -> Result<Option<Page<Position>>, Fault> {
                page(&self.store, after).await
            }

            async fn project(&self, round: usize, _events: u64) -> Result<Option<Built>, Fault> {
                let database = $database(&self.setup, round).await?;
                let time = build(&self.store, Projections::of(&self.store, &database)).await?;
                let row = sqlx::query(TOTALS).fetch_one(&mut *database.read().await?).await?;
                database.close().await;
                let rows = row.get::<i64, _>(0).try_into()?;
                let totals = Totals { rows, events: row.get::<i64, _>(1).try_into()? };
                Ok(Some(Built { totals, time }))
            }
        }
    };
}

peer!(OnPostgres, PostgresStore, open_postgres, postgres_of_round);
peer!(OnSqlite, SqliteStore, open_sqlite, sqlite_of_round);

async fn open_postgres(setup: &Setup) -> Result<PostgresStore, Fault> {
    let Place::Postgres(url) = &setup.place else { return Err("this is no PostgreSQL database".into()) };
    let connections = usize::try_from(setup.connections)?;
    Ok(PostgresOptions::new(url).migrate().connections(connections).open().await?)
}

async fn open_sqlite(setup: &Setup) -> Result<SqliteStore, Fault> {
    let Place::Sqlite(path) = &setup.place else { return Err("this is no file".into()) };
    Ok(SqliteStore::open(path).await?)
}

/// A read model has one table, so each round has a database of its own.
async fn postgres_of_round(setup: &Setup, round: usize) -> Result<PostgresDatabase, Fault> {
    let Place::Postgres(url) = &setup.place else { return Err("this is no PostgreSQL database".into()) };
    let options: PgConnectOptions = url.parse()?;
    let name = format!("{}_round_{round}", options.get_database().unwrap_or_default());
    let mut connection = PgConnection::connect_with(&options).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await?;
    connection.close().await?;
    Ok(PostgresDatabase::open(options.database(&name).to_url_lossy().to_string()).await?)
}

async fn sqlite_of_round(setup: &Setup, round: usize) -> Result<SqliteDatabase, Fault> {
    let Place::Sqlite(path) = &setup.place else { return Err("this is no file".into()) };
    Ok(SqliteDatabase::open(path.with_extension(format!("round-{round}"))).await?)
}
