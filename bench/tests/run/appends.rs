//! Steady appends by the test itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals::{EventStore, ExpectedVersion};
use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::projected::{Projected, event, stream};

/// How many streams are appended to at a time.
const STREAMS: u64 = 24;
/// After so many appends a new stream takes the place of the oldest. So there are always some whose rows a runner need not load,
/// and some whose rows it must.
const NEW_STREAM_AFTER: u64 = 4;
/// The pause after each append.
const PAUSE: Duration = Duration::from_millis(2);

/// One client that appends to any of the streams, until it is ended.
pub(crate) struct Appends {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    done: AtomicU64,
    end: AtomicBool,
}

impl Appends {
    pub(crate) fn begin(projected: &Projected, random: Rng) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(append(Arc::clone(&projected.store), random, Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Whether an append is answered within this time.
    pub(crate) async fn go_on(&self, within: Duration) -> bool {
        // One may have been answered already.
        let (before, begun) = (self.shared.done.load(Ordering::SeqCst) + 1, Instant::now());
        while self.shared.done.load(Ordering::SeqCst) <= before {
            if begun.elapsed() > within {
                return false;
            }
            sleep(PAUSE).await;
        }
        true
    }

    /// Returns when the last append was answered.
    pub(crate) async fn end(self) {
        self.shared.end.store(true, Ordering::SeqCst);
        self.task.await.expect("it does not panic");
    }
}

async fn append(store: Arc<dyn EventStore>, mut random: Rng, shared: Arc<Shared>) {
    while !shared.end.load(Ordering::SeqCst) {
        let oldest = shared.done.load(Ordering::SeqCst) / NEW_STREAM_AFTER;
        let to = stream(&format!("s{}", random.u64(oldest..oldest + STREAMS)));
        let events: Vec<_> = (0..random.usize(1..4))
            .map(|_| event(store.ids().next_id(), "drive.counted", random.i64(0..1_000_000)))
            .collect();
        // The same ids are one append, however often they are sent.
        while store.append(&to, ExpectedVersion::Any, events.clone()).await.is_err() {
            sleep(PAUSE).await;
        }
        shared.done.fetch_add(1, Ordering::SeqCst);
        sleep(PAUSE).await;
    }
}
