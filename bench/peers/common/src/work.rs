//! Writers and readers that work at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::peer::{Fault, Paid, Peer};

/// A stream holds ten appends; no two clients share one.
const APPENDS_PER_STREAM: u64 = 10;

/// What was done, and how long it took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) units: u64,
    pub(crate) time: Duration,
    /// Appends that failed, though no stream has two writers.
    pub(crate) refused: u64,
}

/// Appends of `events` events each, by so many clients for so long.
pub(crate) async fn append<P: Peer>(
    peer: &Arc<P>,
    next: &Arc<AtomicU64>,
    clients: usize,
    events: u64,
    time: Duration,
) -> Result<Done, Fault> {
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let (peer, next) = (Arc::clone(peer), Arc::clone(next));
            tokio::spawn(async move {
                let mut done = Done::default();
                let (mut stream, mut appends) = (peer.stream("none"), APPENDS_PER_STREAM);
                while start.elapsed() < time {
                    let n = next.fetch_add(events, Ordering::Relaxed);
                    if appends == APPENDS_PER_STREAM {
                        (stream, appends) = (peer.stream(&format!("order-{n}")), 0);
                    }
                    match peer.append(&mut stream, (n..n + events).map(Paid::nth).collect()).await {
                        Ok(()) => {
                            done.units += events;
                            appends += 1;
                        }
                        // What the stream holds is not known any more.
                        Err(error) => {
                            if done.refused == 0 {
                                eprintln!("an append was refused: {error}");
                            }
                            done.refused += 1;
                            appends = APPENDS_PER_STREAM;
                        }
                    }
                }
                done
            })
        })
        .collect();
    let mut all = Done::default();
    for client in clients {
        let done = client.await?;
        all.units += done.units;
        all.refused += done.refused;
    }
    all.time = start.elapsed();
    Ok(all)
}

/// How many streams are filled at once, so that the events of one lie apart in the log.
const WINDOW: usize = 64;

/// The name of the `n`-th stream.
fn filled(n: usize) -> String {
    format!("filled-{n}")
}

/// Fills `streams` streams with `length` events, `at_once` of them in an append.
pub(crate) async fn fill<P: Peer>(peer: &Arc<P>, streams: usize, length: usize, at_once: usize) -> Result<Done, Fault> {
    let start = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..WINDOW)
        .map(|_| {
            let (peer, next) = (Arc::clone(peer), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let n = usize::try_from(next.fetch_add(1, Ordering::Relaxed))?;
                    if n >= streams {
                        return Ok::<_, Fault>(());
                    }
                    let mut stream = peer.stream(&filled(n));
                    for first in (0..length).step_by(at_once) {
                        let events = first..length.min(first + at_once);
                        let events = events.map(|i| Paid::nth((n * length + i) as u64)).collect();
                        peer.append(&mut stream, events).await?;
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    Ok(Done { units: (streams * length) as u64, time: start.elapsed(), refused: 0 })
}

/// Loads of filled streams, by so many clients for so long.
pub(crate) async fn load<P: Peer>(
    peer: &Arc<P>,
    clients: usize,
    streams: usize,
    length: usize,
    time: Duration,
) -> Result<Done, Fault> {
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let peer = Arc::clone(peer);
            tokio::spawn(async move {
                let (mut loads, mut n) = (0, client);
                while start.elapsed() < time {
                    n = (n + 7) % streams;
                    let events = peer.load(&filled(n)).await?;
                    if events.len() != length {
                        return Err(format!("{} events in a stream of {length}", events.len()).into());
                    }
                    loads += 1;
                }
                Ok::<_, Fault>(loads)
            })
        })
        .collect();
    let mut units = 0;
    for client in clients {
        units += client.await??;
    }
    Ok(Done { units, time: start.elapsed(), refused: 0 })
}
