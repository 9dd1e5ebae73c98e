//! Appends of one event, and of a hundred.

mod growth;
mod postgres;
mod processes;
mod sqlite;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::{EventStore, ExpectedVersion, MemoryStore, StreamId, StreamVersion};

use crate::report::Report;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, Store, sample};

pub(crate) use growth::measure as growth;
pub(crate) use processes::part;

/// A stream holds ten appends; no two clients share one.
const APPENDS_PER_STREAM: u64 = 10;

/// Measures appends of `events` events each.
pub(crate) async fn measure(options: &Options, events: usize) -> Result<Report, Fault> {
    let work = Work::from(0, options.clients, events);
    match options.store {
        Store::Memory => {
            let store = Ours(MemoryStore::new());
            let (slices, time) = plan(options.time());
            let mut ours = Tally::default();
            for _ in 0..slices {
                slice(&store, &work, time, &mut ours).await?;
            }
            Ok(report(work.case(), "memory", work.clients, ours, None))
        }
        Store::Sqlite => sqlite::measure(options, &work).await,
        Store::Postgres if options.processes > 1 => processes::measure(options, &work).await,
        Store::Postgres => postgres::measure(options, &work).await,
    }
}

/// What all clients of a process do.
struct Work {
    clients: usize,
    /// Events of one append.
    events: usize,
    /// The number of the next event.
    next: Arc<AtomicU64>,
}

impl Work {
    /// Work that begins with the `first` event, in a new stream.
    fn from(first: u64, clients: usize, events: usize) -> Self {
        Self { clients, events, next: Arc::new(AtomicU64::new(first)) }
    }

    fn case(&self) -> &'static str {
        if self.events == 1 { "append" } else { "append-batch" }
    }
}

/// One of the two sides that are compared.
trait Side: Clone + Send + 'static {
    type Stream: Send;

    fn stream(name: String) -> Self::Stream;

    /// Appends `events` events, the first of them the `n`-th, to a stream that is at `version`.
    fn append(
        &self,
        stream: &Self::Stream,
        version: i64,
        n: u64,
        events: usize,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Runs the clients for a slice of time.
async fn slice<S: Side>(side: &S, work: &Work, time: Duration, tally: &mut Tally) -> Result<(), Fault> {
    let start = Instant::now();
    let events = work.events;
    let clients: Vec<_> = (0..work.clients)
        .map(|_| {
            let (side, next) = (side.clone(), Arc::clone(&work.next));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let (mut stream, mut version, mut appends) = (S::stream("none".to_owned()), 0, APPENDS_PER_STREAM);
                while start.elapsed() < time {
                    let n = next.fetch_add(events as u64, Ordering::Relaxed);
                    if appends == APPENDS_PER_STREAM {
                        (stream, version, appends) = (S::stream(format!("order-{n}")), 0, 0);
                    }
                    let begun = Instant::now();
                    side.append(&stream, version, n, events).await?;
                    latencies.push(begun.elapsed());
                    version += i64::try_from(events)?;
                    appends += 1;
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    let units = (latencies.len() * events) as u64;
    tally.add(units, start.elapsed(), latencies);
    Ok(())
}

/// What is measured: `store.append`.
#[derive(Clone)]
struct Ours<S>(S);

impl<S: EventStore + Clone> Side for Ours<S> {
    type Stream = StreamId;

    fn stream(name: String) -> StreamId {
        sample::stream(&name)
    }

    async fn append(&self, stream: &StreamId, version: i64, n: u64, events: usize) -> Result<(), Fault> {
        let new = (0..events as u64).map(|i| sample::event(n + i)).collect();
        let expected = ExpectedVersion::Exact(StreamVersion::new(version)?);
        let done = self.0.append(stream, expected, new).await?;
        assert_eq!(done.version().get(), version + i64::try_from(events)?, "the version of the answer");
        Ok(())
    }
}
