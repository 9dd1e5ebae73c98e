//! Snapshots: loads of long streams with them, and appends beside them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::engine::SnapshotStats;
use annals::{
    Aggregate, AggregateStore, AsOf, Event, EventStore, Evolve, ExpectedVersion, MemoryStore, Position,
    PostgresOptions, Repository, SqliteStore,
};
use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, plan, report};
use crate::{Case, Fault, Options, Store, sample};

/// Events of a long stream before its last snapshot.
const LENGTH: usize = 10_000;
/// Events after it, which a load reads in any case.
const TAIL: usize = 50;
/// Events of one append of the filling.
const CHUNK: usize = 1_000;

/// The event of the other cases.
#[derive(Event, Serialize, Deserialize, Clone)]
enum PaymentEvent {
    #[event(name = "order.paid")]
    Paid(sample::Paid),
}

#[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
#[aggregate(name = "order", id = String, event = PaymentEvent, snapshot(every = 100))]
struct Payments {
    count: u64,
    amount: i64,
    last: String,
}

impl Evolve for Payments {
    fn evolve(&mut self, event: &PaymentEvent) {
        let PaymentEvent::Paid(paid) = event;
        self.count += 1;
        self.amount += paid.amount;
        self.last.clone_from(&paid.payment);
    }
}

/// Measures a case of snapshots on the store that is asked for.
pub(crate) async fn measure(case: Case, options: &Options) -> Result<Report, Fault> {
    match options.store {
        Store::Memory => on("memory", Arc::new(MemoryStore::new()), case, options).await,
        Store::Sqlite => {
            let folder = tempfile::tempdir()?;
            on("sqlite", Arc::new(SqliteStore::open(folder.path().join("log.db")).await?), case, options).await
        }
        Store::Postgres => {
            let mut server = MeasuredServer::find().await?;
            let url = server.database("log").await?;
            let options_of_store = PostgresOptions::new(&url).migrate().connections(options.clients.clamp(2, 32));
            let report = on("postgres", Arc::new(options_of_store.open().await?), case, options).await?;
            server.remove().await?;
            Ok(report)
        }
    }
}

async fn on(name: &str, store: Arc<dyn EventStore>, case: Case, options: &Options) -> Result<Report, Fault> {
    let payments = store.aggregate::<Payments>();
    let with = payments.clone();
    let without = payments.without_snapshots();
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let (slices, time) = plan(options.time());
    let (what, baseline) = match case {
        Case::AppendSnapshots => {
            for _ in 0..slices {
                appends(&with, "with", options.clients, time, &mut ours).await?;
                appends(&without, "without", options.clients, time, &mut theirs).await?;
            }
            let SnapshotStats { saved, skipped, .. } = with.snapshot_stats();
            eprintln!("snapshots: {saved} saved, {skipped} skipped");
            ("append-snapshots", "the same without snapshots")
        }
        Case::AsOf => {
            let (middle, baseline) = (middle_of_a_long_stream(&with).await?, "the same without snapshots");
            for _ in 0..slices {
                as_of(&with, &middle, options.clients, time, &mut ours).await?;
                as_of(&without, &middle, options.clients, time, &mut theirs).await?;
            }
            ("as-of", baseline)
        }
        _ => {
            fill(&*store).await?;
            let (with, without) = (with.without_cache(), without.without_cache());
            // The load of all events takes a snapshot at their end. The first load with one compares it with its events.
            with.load(&"long".to_owned()).await?;
            while with.snapshot_stats().saved == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            append(&*store, "long", TAIL).await?;
            with.load(&"long".to_owned()).await?;
            let (beside, of, baseline) = match case {
                Case::LoadLong => (&without, "tail", "a load of a stream of 50 events"),
                _ => (&without, "long", "a load of the same stream without snapshots"),
            };
            for _ in 0..slices {
                loads(&with, "long", options.clients, time, &mut ours).await?;
                loads(beside, of, options.clients, time, &mut theirs).await?;
            }
            (if case == Case::LoadLong { "load-long" } else { "load-long-replay" }, baseline)
        }
    };
    store.close().await;
    Ok(report(what, name, options.clients, ours, Some((baseline, theirs))))
}

/// A long stream, and one that has only what follows its snapshot.
async fn fill(store: &dyn EventStore) -> Result<(), Fault> {
    for _ in 0..LENGTH / CHUNK {
        append(store, "long", CHUNK).await?;
    }
    append(store, "tail", TAIL).await
}

async fn append(store: &dyn EventStore, id: &str, events: usize) -> Result<(), Fault> {
    let events = (0..events as u64).map(sample::event).collect();
    store.append(&sample::stream(id), ExpectedVersion::Any, events).await?;
    Ok(())
}

/// Loads one aggregate for a slice of time, by all clients.
async fn loads(
    payments: &Repository<Payments>,
    id: &'static str,
    clients: usize,
    time: Duration,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let payments = payments.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while start.elapsed() < time {
                    let begun = Instant::now();
                    let loaded = payments.load(&id.to_owned()).await?;
                    assert!(loaded.state.count > 0);
                    latencies.push(begun.elapsed());
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    collect(clients, start, tally).await
}

/// A long stream of commands with ten events each, whose snapshots are taken and thinned; gives the positions after those commands
/// that are in the middle fifth, in no order.
async fn middle_of_a_long_stream(with: &Repository<Payments>) -> Result<Vec<Position>, Fault> {
    let mut positions = Vec::new();
    for n in 0..(LENGTH / 10) as u64 {
        let events: Vec<_> = (0..10).map(|event| PaymentEvent::Paid(sample::paid(10 * n + event))).collect();
        positions.push(with.execute(&"long".to_owned(), |_| Ok::<_, Infallible>(events.clone())).await?.position);
        // Each snapshot is saved before the next is due, as in a stream that grows slowly.
        while with.snapshot_stats().saved < (n + 1) / 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let fifth = positions.len() / 5;
    let middle = &positions[2 * fifth..3 * fifth];
    // 77 has no divisor in common with their number, so each comes once.
    Ok((0..fifth).map(|n| middle[n * 77 % fifth]).collect())
}

/// Reads one aggregate as of positions for a slice of time, by all clients.
async fn as_of(
    payments: &Repository<Payments>,
    positions: &[Position],
    clients: usize,
    time: Duration,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let (payments, positions) = (payments.clone(), positions.to_vec());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for position in positions.iter().cycle().skip(client * 31) {
                    if start.elapsed() >= time {
                        break;
                    }
                    let begun = Instant::now();
                    let then = payments.as_of(&"long".to_owned(), AsOf::position(*position)).await?;
                    assert_eq!(then.position, *position);
                    latencies.push(begun.elapsed());
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    collect(clients, start, tally).await
}

/// Appends for a slice of time, each client to its own aggregate, the same in every slice.
async fn appends(
    payments: &Repository<Payments>,
    name: &str,
    clients: usize,
    time: Duration,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let payments = payments.clone();
            let id = format!("{name}-{client}");
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut n = 0;
                while start.elapsed() < time {
                    n += 1;
                    let begun = Instant::now();
                    payments.execute(&id, |_| Ok::<_, Infallible>(PaymentEvent::Paid(sample::paid(n)))).await?;
                    latencies.push(begun.elapsed());
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    collect(clients, start, tally).await
}

async fn collect(
    clients: Vec<tokio::task::JoinHandle<Result<Vec<Duration>, Fault>>>,
    start: Instant,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    tally.add(latencies.len() as u64, start.elapsed(), latencies);
    Ok(())
}
