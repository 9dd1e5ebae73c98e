//! Appends of one event, and of a hundred.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::{EventStore, ExpectedVersion, MemoryStore, SqliteStore, StreamVersion};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

use crate::report::Report;
use crate::slices::{Tally, plan, report};
use crate::{Store, baseline, sample};

/// A stream holds ten appends; no two clients share one.
const APPENDS_PER_STREAM: u64 = 10;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Measures appends of `events` events each.
pub(crate) async fn measure(store: Store, clients: usize, events: usize, seconds: Duration) -> Result<Report, Fault> {
    let case = if events == 1 { "append" } else { "append-batch" };
    let folder = tempfile::tempdir()?;
    let (slices, time) = plan(seconds);
    let mut ours = Tally::default();
    let counter = Arc::new(AtomicU64::new(0));
    match store {
        Store::Memory => {
            let store = MemoryStore::new();
            for _ in 0..slices {
                our_slice(&store, clients, events, time, &counter, &mut ours).await?;
            }
            Ok(report(case, "memory", clients, ours, None))
        }
        Store::Sqlite => {
            let store = SqliteStore::open(folder.path().join("ours.db")).await?;
            let path = folder.path().join("baseline.db");
            SqliteStore::open(&path).await?.close().await;
            let bare = Bare::open(&path, clients).await?;
            let mut theirs = Tally::default();
            for _ in 0..slices {
                our_slice(&store, clients, events, time, &counter, &mut ours).await?;
                bare.slice(clients, events, time, &counter, &mut theirs).await?;
            }
            store.close().await;
            Ok(report(case, "sqlite", clients, ours, Some((bare.name(events), theirs))))
        }
    }
}

async fn our_slice<S: EventStore + Clone>(
    store: &S,
    clients: usize,
    events: usize,
    time: Duration,
    counter: &Arc<AtomicU64>,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (store, counter) = (store.clone(), Arc::clone(counter));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut version = StreamVersion::NONE;
                let mut stream = sample::stream("none");
                let mut appends = APPENDS_PER_STREAM;
                while start.elapsed() < time {
                    let n = counter.fetch_add(events as u64, Ordering::Relaxed);
                    if appends == APPENDS_PER_STREAM {
                        (stream, version, appends) = (sample::stream(&format!("order-{n}")), StreamVersion::NONE, 0);
                    }
                    let begun = Instant::now();
                    let new = (0..events as u64).map(|i| sample::event(n + i)).collect();
                    let done = store.append(&stream, ExpectedVersion::Exact(version), new).await?;
                    latencies.push(begun.elapsed());
                    version = done.version();
                    appends += 1;
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    collect(tasks, events, start, tally).await
}

async fn collect(
    tasks: Vec<tokio::task::JoinHandle<Result<Vec<Duration>, Fault>>>,
    events: usize,
    start: Instant,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let units = (latencies.len() * events) as u64;
    tally.add(units, start.elapsed(), latencies);
    Ok(())
}

/// The bare database: one held connection for one client (and for large appends), else a pool of one.
enum Bare {
    Held(Arc<Mutex<SqliteConnection>>),
    Pool(SqlitePool),
}

impl Bare {
    async fn open(path: &Path, clients: usize) -> Result<Self, Fault> {
        let path: PathBuf = path.to_owned();
        Ok(if clients <= 16 {
            Self::Held(Arc::new(Mutex::new(baseline::connection(&path).await?)))
        } else {
            Self::Pool(baseline::pool_of_one(&path).await?)
        })
    }

    fn name(&self, events: usize) -> &'static str {
        match (self, events) {
            (Self::Held(_), 1) => "raw autocommit INSERT on one held connection",
            (Self::Held(_), _) => "raw multi-row INSERT on one held connection",
            (Self::Pool(_), 1) => "a transaction per append through a pool of one",
            (Self::Pool(_), _) => "a transaction per multi-row INSERT through a pool of one",
        }
    }

    async fn slice(
        &self,
        clients: usize,
        events: usize,
        time: Duration,
        counter: &Arc<AtomicU64>,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let start = Instant::now();
        let text: Arc<str> = baseline::insert_many(events).into();
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let (counter, text) = (Arc::clone(counter), Arc::clone(&text));
                let side = match self {
                    Self::Held(held) => Self::Held(Arc::clone(held)),
                    Self::Pool(pool) => Self::Pool(pool.clone()),
                };
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    let (mut version, mut stream, mut appends) = (0, String::new(), APPENDS_PER_STREAM);
                    while start.elapsed() < time {
                        let n = counter.fetch_add(events as u64, Ordering::Relaxed);
                        if appends == APPENDS_PER_STREAM {
                            (stream, version, appends) = (format!("order-{n}"), 0, 0);
                        }
                        let begun = Instant::now();
                        let append_id = (events > 1).then(|| sample::id().as_bytes().to_vec());
                        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&text)));
                        for i in 0..events as u64 {
                            version += 1;
                            query = baseline::bind(query, &stream, version, append_id.clone(), n + i);
                        }
                        match &side {
                            Self::Held(held) => {
                                query.execute(&mut *held.lock().await).await?;
                            }
                            Self::Pool(pool) => {
                                let mut connection = pool.acquire().await?;
                                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                                query.execute(&mut *transaction).await?;
                                transaction.commit().await?;
                            }
                        }
                        latencies.push(begun.elapsed());
                        appends += 1;
                    }
                    Ok::<_, Fault>(latencies)
                })
            })
            .collect();
        collect(tasks, events, start, tally).await
    }
}
