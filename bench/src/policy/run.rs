use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::resilience::breaker::{BreakerSettings, Transition, WindowSettings};
use annals::resilience::retry::Retry;
use annals::resilience::{Class, Policy};
use futures::FutureExt;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::profile::{BEGIN, END, LENGTH, Profile};
use crate::Fault;

/// One call, as its caller saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Called {
    pub(super) at: Duration,
    pub(super) ended: Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Answered,
    /// A guard refused it, or its next attempt.
    Refused,
    Failed,
}

/// Everything that happened to one profile.
#[derive(Debug, PartialEq)]
pub(super) struct Run {
    pub(super) profile: Profile,
    pub(super) calls: Vec<Called>,
    /// When each attempt began.
    pub(super) attempts: Vec<Duration>,
    pub(super) transitions: Vec<Transition>,
}

/// The figures of one profile.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) profile: &'static str,
    /// The share of the calls that were answered.
    pub(super) goodput: f64,
    /// The share of the calls that a guard refused.
    pub(super) rejected: f64,
    /// Attempts that reached the dependency during the fault, per call that callers made during it, refused ones included.
    /// Below 1: guards kept calls from the dependency.
    pub(super) amplification: f64,
    /// From the end of the fault to the last call that was not answered.
    pub(super) recovery_ms: u64,
}

impl Run {
    pub(super) fn summary(&self) -> Summary {
        let share = |ended| {
            let count = self.calls.iter().filter(|call| call.ended == ended).count();
            count as f64 / self.calls.len().max(1) as f64
        };
        Summary {
            profile: self.profile.name(),
            goodput: share(Ended::Answered),
            rejected: share(Ended::Refused),
            amplification: self.amplification(),
            recovery_ms: u64::try_from(self.recovery().as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn amplification(&self) -> f64 {
        let in_fault = |at: &Duration| (BEGIN..END).contains(at);
        let calls = self.calls.iter().filter(|call| in_fault(&call.at)).count();
        let attempts = self.attempts.iter().filter(|at| in_fault(at)).count();
        attempts as f64 / calls.max(1) as f64
    }

    pub(super) fn recovery(&self) -> Duration {
        let unanswered = self.calls.iter().filter(|call| call.ended != Ended::Answered).map(|call| call.at);
        unanswered.max().unwrap_or_default().saturating_sub(END)
    }
}

/// The dependency: each worker handles one call at a time; the other calls wait inside it.
struct Dependency {
    profile: Profile,
    start: Instant,
    workers: Semaphore,
    attempts: Mutex<Vec<Duration>>,
}

/// A worker needs 20 to 60 ms, so one of them does 25 calls per second.
const WORK_MS: std::ops::RangeInclusive<u64> = 20..=60;
const CALLS_OF_A_WORKER: f64 = 25.0;

/// The answer of a failed attempt.
struct Unavailable;

impl Dependency {
    async fn answer(&self, mut rng: fastrand::Rng) -> Result<(), Unavailable> {
        self.attempts.lock().expect("no holder panics").push(self.start.elapsed());
        let _worker = self.workers.acquire().await.map_err(|_| Unavailable)?;
        let health = self.profile.health(self.start.elapsed());
        sleep(Duration::from_millis(rng.u64(WORK_MS)) * health.slowdown).await;
        if rng.f64() < health.errors { Err(Unavailable) } else { Ok(()) }
    }
}

/// The policy for such a dependency at this rate.
fn policy(rate: f64, seed: u64) -> Result<Policy, Fault> {
    let breaker = BreakerSettings {
        // Two seconds of calls. With the default of ten, half of them fail by chance soon when each third call fails.
        window: WindowSettings::Calls(((rate * 2.0) as u32).max(10)),
        minimum_calls: (rate as u32).max(10),
        slow_call: Some(Duration::from_millis(500)),
        slow_rate: Some(0.5),
        open: Duration::from_secs(10),
        seed: Some(seed),
        ..BreakerSettings::default()
    };
    let policy = Policy::fast("simulated")
        .timeout(Duration::from_secs(1))
        .retry(Retry { seed: Some(seed), ..Retry::default() })
        .breaker(breaker)
        .bulkhead((rate * 0.4).ceil() as u32)
        .build()?;
    Ok(policy)
}

/// Simulates one profile, in a new runtime with paused time.
pub(super) fn simulate(profile: Profile, rate: f64, seed: u64) -> Result<Run, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(run(profile, rate, seed))
}

async fn run(profile: Profile, rate: f64, seed: u64) -> Result<Run, Fault> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    let policy = policy(rate, seed)?;
    let mut transitions = policy.breaker().transitions();
    // Four times the usual load.
    let workers = Semaphore::new((rate * 4.0 / CALLS_OF_A_WORKER).ceil() as usize);
    let dependency = Arc::new(Dependency { profile, start, workers, attempts: Mutex::default() });
    let mut calls = JoinSet::new();
    let mut next = Duration::ZERO;
    loop {
        // Independent calls, with this rate on average.
        next += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / (rate * profile.load(next)));
        if next >= LENGTH {
            break;
        }
        sleep_until(start + next).await;
        calls.spawn(call(policy.clone(), dependency.clone(), rng.fork()));
    }
    let mut calls = calls.join_all().await;
    calls.sort_by_key(|call| call.at);
    let transitions = std::iter::from_fn(|| transitions.next().now_or_never().flatten()).collect::<Result<_, _>>()?;
    let attempts = std::mem::take(&mut *dependency.attempts.lock().expect("no holder panics"));
    Ok(Run { profile, calls, attempts, transitions })
}

async fn call(policy: Policy, dependency: Arc<Dependency>, mut rng: fastrand::Rng) -> Called {
    let at = dependency.start.elapsed();
    let answer =
        policy.idempotent(|_| dependency.answer(rng.fork())).judged_by(|Unavailable| Class::TRANSIENT).run().await;
    let ended = match answer {
        Ok(()) => Ended::Answered,
        Err(error) if error.guard().is_some() => Ended::Refused,
        Err(_) => Ended::Failed,
    };
    Called { at, ended }
}
