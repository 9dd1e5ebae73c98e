//! Sends the requests.
//!
//! With a rate, a request has a time at which it is to be sent, and its latency counts from there. A client that waits for a slow
//! answer sends less in that time; if it measured from when it sends, those requests that waited would be missing, and the shop would
//! look better the longer it stands still. Gil Tene calls that coordinated omission ("How NOT to Measure Latency"), and wrk2 avoids it
//! in this way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep_until};

use super::client::{Answer, Client, Outcome};
use super::options::Options;
use crate::Fault;

/// A request and its answer. Times are since the start of the run.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Which one.
    pub number: u64,
    /// When it was to be sent.
    pub intended: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When its answer was there.
    pub answered: Duration,
    /// The answer.
    pub answer: Answer,
}

/// When the requests are to be sent.
#[derive(Clone, Copy)]
enum Schedule {
    /// Each at its time, all of them, however long that takes.
    Fixed { rate: u64, requests: u64 },
    /// Each as soon as a connection is free, as long as there is time.
    AsFastAsPossible { until: Duration },
}

impl Schedule {
    fn of(options: &Options) -> Self {
        match options.rate.map(u64::from) {
            Some(rate) => Self::Fixed { rate, requests: rate * u64::from(options.seconds) },
            None => Self::AsFastAsPossible { until: options.time() },
        }
    }

    /// When the request of this number is to be sent; `None` at the end.
    fn time(self, number: u64, now: Duration) -> Option<Duration> {
        match self {
            Self::Fixed { rate, requests } => {
                (number < requests).then(|| Duration::from_nanos(number * 1_000_000_000 / rate))
            }
            Self::AsFastAsPossible { until } => (now < until).then_some(now),
        }
    }
}

/// How far it is.
#[derive(Default)]
struct Progress {
    next: AtomicU64,
    answered: AtomicU64,
    not_acknowledged: AtomicU64,
}

/// Sends all requests, and waits for their answers. Says once a second on the standard error how far it is.
///
/// # Errors
/// A task of it has failed, which is a fault of ours.
pub async fn drive(client: &Arc<Client>, options: &Options) -> Result<Vec<Sent>, Fault> {
    let (start, schedule, progress) = (Instant::now(), Schedule::of(options), Arc::new(Progress::default()));
    let connection = || connection(Arc::clone(client), schedule, start, Arc::clone(&progress));
    let mut connections: JoinSet<_> = (0..options.connections).map(|_| connection()).collect();
    let mut seconds = interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    let (mut all, mut before) = (Vec::new(), 0);
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(sent) => all.extend(sent?),
                None => break,
            },
            now = seconds.tick() => {
                let answered = progress.answered.load(Ordering::Relaxed);
                let not = progress.not_acknowledged.load(Ordering::Relaxed);
                let (second, in_this) = ((now - start).as_secs(), answered - before);
                eprintln!("{second:>4} s: {answered} answered, {in_this} in this second, {not} of all not acknowledged");
                before = answered;
            }
        }
    }
    all.sort_unstable_by_key(|sent: &Sent| sent.number);
    Ok(all)
}

/// One connection: it sends one request after the other.
async fn connection(client: Arc<Client>, schedule: Schedule, start: Instant, progress: Arc<Progress>) -> Vec<Sent> {
    let mut all = Vec::new();
    loop {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        let Some(intended) = schedule.time(number, start.elapsed()) else { return all };
        sleep_until(start + intended).await;
        let sent = start.elapsed();
        let answer = client.send(number).await;
        progress.answered.fetch_add(1, Ordering::Relaxed);
        if !matches!(answer.outcome, Outcome::Acknowledged { .. }) {
            progress.not_acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        all.push(Sent { number, intended, sent, answered: start.elapsed(), answer });
    }
}
