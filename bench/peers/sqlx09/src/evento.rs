//! evento. Its feed is that of its subscriptions: in the order of the server's times, up to a margin behind now.

use std::time::{Duration, Instant};

use annals_peers::{Built, Fault, Page, Paid, Peer, Place, Setup, Totals};
use evento::cursor::{Args, Value};
use evento::metadata::Event as Typed;
use evento::migrator::{Migrate, Plan};
use evento::sql::Sql;
use evento::subscription::{Context, SubscriptionBuilder};
use evento::{Aggregate, AggregateEvent, Event, EventFilter, Executor, TenantFilter};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool, Pool, Row, SqlitePool};
use ulid::Ulid;

/// Events of a page.
const PAGE: u16 = 1_000;

const MAX_WAIT: Duration = Duration::from_secs(60);

#[evento::aggregate(name = "peers/Order")]
pub enum Order {
    #[evento(name = "Paid")]
    OrderPaid { payment: String, amount: i64, currency: String, method: String },
}

fn paid(event: &Event) -> Result<Paid, Fault> {
    let OrderPaid { payment, amount, currency, method } = bitcode::decode(&event.data)?;
    Ok(Paid { payment, amount, currency, method })
}

/// A stream and its version.
pub struct Stream(String, u16);

async fn append(executor: &impl Executor, Stream(id, version): &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
    let mut rows = Vec::with_capacity(events.len());
    for (Paid { payment, amount, currency, method }, version) in events.into_iter().zip(*version + 1..) {
        rows.push(Event {
            id: Ulid::generate(),
            aggregate_id: id.clone(),
            aggregate_type: Order::aggregate_type().to_owned(),
            version,
            name: OrderPaid::event_name().to_owned(),
            data: bitcode::encode(&OrderPaid { payment, amount, currency, method }),
            ..Event::default()
        });
    }
    let added = u16::try_from(rows.len())?;
    executor.write(rows).await?;
    *version += added;
    Ok(())
}

async fn load(executor: &impl Executor, name: &str) -> Result<Vec<Paid>, Fault> {
    let of_stream = [EventFilter::by_id::<Order>(name)].into();
    let found = executor.read(Some(of_stream), None, TenantFilter::All, Args::forward(PAGE, None), None).await?;
    found.edges.iter().map(|edge| paid(&edge.node)).collect()
}

async fn page(executor: &impl Executor, after: Option<&Value>) -> Result<Option<Page<Value>>, Fault> {
    let upto = executor.stable_timestamp().await?;
    let args = Args::forward(PAGE, after.cloned());
    let found = executor.read(None, None, TenantFilter::All, args, upto).await?;
    let next = found.edges.last().map(|edge| edge.cursor.clone()).or(after.cloned());
    let events = found.edges.iter().map(|edge| paid(&edge.node)).collect::<Result<_, _>>()?;
    Ok(Some(Page { events, next }))
}

fn upsert(table: &str) -> String {
    format!(
        "INSERT INTO {table} AS t (stream, events, amount) VALUES ($1, 1, $2)
         ON CONFLICT (stream) DO UPDATE SET events = t.events + 1, amount = t.amount + excluded.amount"
    )
}

macro_rules! peer {
    ($name:ident, $engine:ty, $open:path, $handler:ident, $create:expr) => {
        #[evento::subscription]
        async fn $handler<E: Executor>(context: &Context<'_, E>, event: Typed<OrderPaid>) -> anyhow::Result<()> {
            let (pool, statement): (Pool<$engine>, String) = context.extract();
            let upsert = sqlx::query(AssertSqlSafe(statement)).bind(&event.aggregate_id).bind(event.data.amount);
            upsert.execute(&pool).await?;
            Ok(())
        }

        pub struct $name {
            executor: Sql<$engine>,
            pool: Pool<$engine>,
        }

        impl Peer for $name {
            const TABLE: &'static str = "event";
            type Stream = Stream;
            type Cursor = Value;

            async fn open(setup: &Setup) -> Result<Self, Fault> {
                let pool = $open(setup).await?;
                let mut connection = pool.acquire().await?;
                evento::sql_migrator::new::<$engine>()?.run(&mut *connection, &Plan::apply_all()).await?;
                drop(connection);
                Ok(Self { executor: pool.clone().into(), pool })
            }

            fn stream(&self, name: &str) -> Stream {
                Stream(name.to_owned(), 0)
            }

            async fn append(&self, stream: &mut Stream, events: Vec<Paid>) -> Result<(), Fault> {
                append(&self.executor, stream, events).await
            }

            async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
                load(&self.executor, name).await
            }

            async fn page(&self, after: Option<&Value>) -> Result<Option<Page<Value>>, Fault> {
                page(&self.executor, after).await
            }

            async fn project(&self, round: usize, _events: u64) -> Result<Option<Built>, Fault> {
                let table = format!("totals_{round}");
                sqlx::query(AssertSqlSafe($create.replace("{table}", &table))).execute(&self.pool).await?;
                let begun = Instant::now();
                SubscriptionBuilder::new(&table)
                    .handler($handler())
                    .data((self.pool.clone(), upsert(&table)))
                    .any_routing_key()
                    .chunk_size(PAGE)
                    .run_once(&self.executor)
                    .await?;
                let time = begun.elapsed();
                let text = format!("SELECT count(*), CAST(coalesce(sum(events), 0) AS bigint) FROM {table}");
                let row = sqlx::query(AssertSqlSafe(text)).fetch_one(&self.pool).await?;
                let rows = row.get::<i64, _>(0).try_into()?;
                let totals = Totals { rows, events: row.get::<i64, _>(1).try_into()? };
                Ok(Some(Built { totals, time }))
            }
        }
    };
}

peer!(
    OnPostgres,
    sqlx::Postgres,
    open_postgres,
    count_on_postgres,
    "CREATE TABLE {table} (stream text PRIMARY KEY, events bigint NOT NULL, amount bigint NOT NULL)"
);

peer!(
    OnSqlite,
    sqlx::Sqlite,
    open_sqlite,
    count_on_sqlite,
    "CREATE TABLE {table} (stream TEXT PRIMARY KEY, events INTEGER NOT NULL, amount INTEGER NOT NULL) STRICT"
);

async fn open_postgres(setup: &Setup) -> Result<PgPool, Fault> {
    let Place::Postgres(url) = &setup.place else { return Err("this is no PostgreSQL database".into()) };
    let options = url.parse::<PgConnectOptions>()?.disable_statement_logging();
    let pool = PgPoolOptions::new().max_connections(setup.connections).test_before_acquire(false);
    Ok(pool.acquire_timeout(MAX_WAIT).connect_with(options).await?)
}

/// SQLite has one writer at a time; more connections only wait for each other.
const MOST_FOR_SQLITE: u32 = 5;

/// With WAL and a commit that is on disk, as ours.
async fn open_sqlite(setup: &Setup) -> Result<SqlitePool, Fault> {
    let Place::Sqlite(path) = &setup.place else { return Err("this is no file".into()) };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(MAX_WAIT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(setup.connections.min(MOST_FOR_SQLITE));
    Ok(pool.test_before_acquire(false).acquire_timeout(MAX_WAIT).connect_with(options).await?)
}
