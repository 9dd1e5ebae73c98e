//! Loads of a stream of 100 events.

mod postgres;
mod sqlite;

use std::future::Future;
use std::time::{Duration, Instant};

use annals::{EventStore, MemoryStore, StreamVersion};

use crate::plain::our_amount;
use crate::report::Report;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, Store, fill, sample};

/// How many streams there are.
const STREAMS: usize = 200;

/// Events of one stream.
const LENGTH: usize = 100;

/// Measures loads; the unit is one load.
pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    match options.store {
        Store::Memory => {
            let store = MemoryStore::new();
            fill::by_appends(&store, STREAMS, LENGTH).await?;
            let (slices, time) = plan(options.time());
            let mut ours = Tally::default();
            for _ in 0..slices {
                slice(&[Ours(store.clone())], options.clients, time, &mut ours).await?;
            }
            Ok(report("load", "memory", options.clients, ours, None))
        }
        Store::Sqlite => sqlite::measure(options).await,
        Store::Postgres => postgres::measure(options).await,
    }
}

/// One of the two sides that are compared.
trait Side: Clone + Send + 'static {
    /// Loads the stream and adds its amounts up. Returns the number of events and the sum.
    fn load(&self, aggregate_id: String) -> impl Future<Output = Result<(usize, usize), Fault>> + Send;
}

/// Runs the clients for a slice of time, distributed over `sides`.
async fn slice<S: Side>(sides: &[S], clients: usize, time: Duration, tally: &mut Tally) -> Result<(), Fault> {
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let side = sides[client % sides.len()].clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut id = client;
                while start.elapsed() < time {
                    id = (id + 7) % STREAMS;
                    let begun = Instant::now();
                    let (count, sum) = side.load(format!("order-{id}")).await?;
                    assert_eq!(count, LENGTH, "sum {sum}");
                    latencies.push(begun.elapsed());
                }
                Ok::<_, Fault>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    tally.add(latencies.len() as u64, start.elapsed(), latencies);
    Ok(())
}

/// What is measured: `store.load_page`.
#[derive(Clone)]
struct Ours<S>(S);

impl<S: EventStore + Clone> Side for Ours<S> {
    async fn load(&self, aggregate_id: String) -> Result<(usize, usize), Fault> {
        let page = self.0.load_page(&sample::stream(&aggregate_id), StreamVersion::NONE, 1000).await?;
        let mut sum = 0;
        for event in &page.events {
            sum += our_amount(event)?;
        }
        Ok((page.events.len(), sum))
    }
}
