//! Loads of one stream, and reads of the whole log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::{
    EventStore, EventStoreExt, ExpectedVersion, Filter, MemoryStore, Position, RecordedEvent, SqliteStore,
    StreamVersion,
};
use futures::{StreamExt, TryStreamExt};
use sqlx::{Row, SqliteConnection};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::report::Report;
use crate::sample::Paid;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Store, baseline, sample};

const STREAMS: usize = 200;
const LENGTH: usize = 100;

/// All columns of an event, as a plain program reads them.
struct Plain {
    position: i64,
    event_id: Uuid,
    tenant: String,
    aggregate_type: String,
    aggregate_id: String,
    version: i64,
    event_type: String,
    schema_version: u32,
    paid: Paid,
    metadata: String,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    append_id: Option<Uuid>,
    recorded_at: jiff::Timestamp,
}

const COLUMNS: &str = "position, event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
           event_data, metadata, correlation_id, causation_id, append_id, recorded_at";

fn plain(row: &sqlx::sqlite::SqliteRow) -> Result<Plain, Fault> {
    let append_id: Option<&[u8]> = row.try_get(12)?;
    Ok(Plain {
        position: row.try_get(0)?,
        event_id: Uuid::from_slice(row.try_get(1)?)?,
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
        append_id: append_id.map(Uuid::from_slice).transpose()?,
        recorded_at: jiff::Timestamp::from_microsecond(row.try_get(13)?)?,
    })
}

/// Keeps the optimiser from leaving out what is not looked at.
fn consume(event: &Plain) -> usize {
    std::hint::black_box((
        event.position,
        event.event_id,
        &event.tenant,
        &event.aggregate_type,
        &event.aggregate_id,
        event.version,
        &event.event_type,
        event.schema_version,
        &event.metadata,
        &event.correlation_id,
        &event.causation_id,
        event.append_id,
        event.recorded_at,
    ));
    usize::try_from(event.paid.amount).unwrap_or_default()
}

fn our_amount(event: &RecordedEvent) -> Result<usize, Fault> {
    let paid: Paid = event.payload.read()?;
    std::hint::black_box(event);
    Ok(usize::try_from(paid.amount).unwrap_or_default())
}

async fn fill<S: EventStore>(store: &S, streams: usize, length: usize) -> Result<(), Fault> {
    let mut n = 0;
    for id in 0..streams {
        let events = (0..length).map(|i| sample::event(n + i as u64)).collect();
        store.append(&sample::stream(&format!("order-{id}")), ExpectedVersion::NoStream, events).await?;
        n += length as u64;
    }
    Ok(())
}

/// Measures loads of a stream of 100 events; the unit is one load.
pub(crate) async fn load(store: Store, clients: usize, seconds: Duration) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let (slices, time) = plan(seconds);
    let mut ours = Tally::default();
    match store {
        Store::Memory => {
            let store = MemoryStore::new();
            fill(&store, STREAMS, LENGTH).await?;
            for _ in 0..slices {
                our_loads(&store, clients, time, &mut ours).await?;
            }
            Ok(report("load", "memory", clients, ours, None))
        }
        Store::Postgres => Err("loads and reads are not measured on PostgreSQL".into()),
        Store::Sqlite => {
            let path = folder.path().join("log.db");
            let store = SqliteStore::open(&path).await?;
            fill(&store, STREAMS, LENGTH).await?;
            let mut held = Vec::new();
            for _ in 0..4 {
                held.push(Arc::new(Mutex::new(baseline::sqlite::connection(&path).await?)));
            }
            let mut theirs = Tally::default();
            for _ in 0..slices {
                our_loads(&store, clients, time, &mut ours).await?;
                bare_loads(&held, clients, time, &mut theirs).await?;
            }
            store.close().await;
            let name = "the raw query on held connections, rows decoded one by one";
            Ok(report("load", "sqlite", clients, ours, Some((name, theirs))))
        }
    }
}

async fn our_loads<S: EventStore + Clone>(
    store: &S,
    clients: usize,
    time: Duration,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut id = client;
                while start.elapsed() < time {
                    id = (id + 7) % STREAMS;
                    let stream = sample::stream(&format!("order-{id}"));
                    let begun = Instant::now();
                    let page = store.load_page(&stream, StreamVersion::NONE, 1000).await?;
                    let mut sum = 0;
                    for event in &page.events {
                        sum += our_amount(event)?;
                    }
                    assert_eq!(page.events.len(), LENGTH, "sum {sum}");
                    latencies.push(begun.elapsed());
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    collect(tasks, start, tally).await
}

async fn bare_loads(
    held: &[Arc<Mutex<SqliteConnection>>],
    clients: usize,
    time: Duration,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let start = Instant::now();
    let text: Arc<str> = format!(
        "SELECT {COLUMNS} FROM events WHERE tenant = ?1 AND aggregate_type = ?2 AND aggregate_id = ?3 AND version > ?4 ORDER BY version"
    )
    .into();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (held, text) = (Arc::clone(&held[client % held.len()]), Arc::clone(&text));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut id = client;
                while start.elapsed() < time {
                    id = (id + 7) % STREAMS;
                    let begun = Instant::now();
                    let query = sqlx::query(sqlx::AssertSqlSafe(Arc::clone(&text)))
                        .bind("default")
                        .bind("order")
                        .bind(format!("order-{id}"))
                        .bind(0_i64);
                    let mut connection = held.lock().await;
                    let mut rows = query.fetch(&mut *connection);
                    let (mut count, mut sum) = (0, 0);
                    while let Some(row) = rows.try_next().await? {
                        sum += consume(&plain(&row)?);
                        count += 1;
                    }
                    assert_eq!(count, LENGTH, "sum {sum}");
                    latencies.push(begun.elapsed());
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    collect(tasks, start, tally).await
}

async fn collect(
    tasks: Vec<tokio::task::JoinHandle<Result<Vec<Duration>, Fault>>>,
    start: Instant,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    tally.add(latencies.len() as u64, start.elapsed(), latencies);
    Ok(())
}

/// Measures reads of the whole log; the unit is one event.
pub(crate) async fn whole_log(store: Store, events: usize, seconds: Duration, alone: bool) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let mut ours = Tally::default();
    let streams = events.div_ceil(1_000);
    match store {
        Store::Memory => {
            let store = MemoryStore::new();
            fill(&store, streams, 1_000).await?;
            while ours.busy < seconds {
                our_read(&store, &mut ours).await?;
            }
            Ok(report("read", "memory", 1, ours, None))
        }
        Store::Postgres => Err("loads and reads are not measured on PostgreSQL".into()),
        Store::Sqlite => {
            let path = folder.path().join("log.db");
            let store = SqliteStore::open(&path).await?;
            fill(&store, streams, 1_000).await?;
            let mut connection = baseline::sqlite::connection(&path).await?;
            let mut theirs = Tally::default();
            while ours.busy < seconds {
                our_read(&store, &mut ours).await?;
                if !alone {
                    bare_read(&path, &mut connection, &mut theirs).await?;
                }
            }
            store.close().await;
            let name = "sqlx `fetch`, row by row";
            Ok(report("read", "sqlite", 1, ours, (!alone).then_some((name, theirs))))
        }
    }
}

async fn our_read<S: EventStore + Clone>(store: &S, tally: &mut Tally) -> Result<(), Fault> {
    let start = Instant::now();
    let mut events = store.read_all(Position::START, Filter::all());
    let (mut count, mut sum) = (0, 0);
    while let Some(event) = events.next().await {
        sum += our_amount(&event?)?;
        count += 1;
    }
    std::hint::black_box(sum);
    tally.add(count, start.elapsed(), [start.elapsed()]);
    Ok(())
}

async fn bare_read(_path: &Path, connection: &mut SqliteConnection, tally: &mut Tally) -> Result<(), Fault> {
    let start = Instant::now();
    let text = format!("SELECT {COLUMNS} FROM events WHERE position > ?1 ORDER BY position");
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(0_i64).fetch(connection);
    let (mut count, mut sum) = (0, 0);
    while let Some(row) = rows.try_next().await? {
        sum += consume(&plain(&row)?);
        count += 1;
    }
    std::hint::black_box(sum);
    tally.add(count, start.elapsed(), [start.elapsed()]);
    Ok(())
}
