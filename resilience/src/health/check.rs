use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::report::{CheckReport, Status};
use crate::deadline::Deadline;

type Closure = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// One thing on which a service depends, and how to see whether it works.
///
/// The closure must not block its thread: the time limit could not end it.
pub struct HealthCheck {
    pub(super) name: &'static str,
    critical: bool,
    pub(super) time_limit: Duration,
    cache: Duration,
    run: Closure,
}

impl HealthCheck {
    /// A check whose failure makes `ready` say 503. It may take 1 s, and its result is used for 1 s.
    pub fn critical<F, R, E>(name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let run = move || {
            let result = check();
            async move { result.await.map_err(|error| error.to_string()) }.boxed()
        };
        let second = Duration::from_secs(1);
        Self { name, critical: true, time_limit: second, cache: second, run: Box::new(run) }
    }

    /// A check whose failure makes `ready` say `degraded`, with 200. It may take 1 s, and its result is used for 1 s.
    pub fn informational<F, R, E>(name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self { critical: false, ..Self::critical(name, check) }
    }

    /// A check that takes longer has failed.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        Self { time_limit: limit, ..self }
    }

    /// How long a result, good or bad, is used again. Zero: each question runs the check.
    #[must_use]
    pub fn cache(self, age: Duration) -> Self {
        Self { cache: age, ..self }
    }
}

/// A check with its last result.
#[derive(Debug)]
pub(super) struct Checked {
    check: HealthCheck,
    state: Mutex<State>,
    /// The number of runs that ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Last>,
    /// The number of runs that began; one runs at a time.
    begun: u64,
    running: bool,
}

#[derive(Debug)]
struct Last {
    run: u64,
    ended: Instant,
    result: Result<(), String>,
}

impl Checked {
    pub(super) fn new(check: HealthCheck) -> Arc<Self> {
        Arc::new(Self { check, state: Mutex::default(), ended: watch::Sender::new(0) })
    }

    pub(super) async fn report(self: &Arc<Self>) -> (&'static str, CheckReport) {
        let mut ended = self.ended.subscribe();
        let asked = self.lock().begun;
        // The run at hand and one after it. Both are over by then, unless the runtime in which they run is blocked.
        let until = Deadline::within(self.check.time_limit.saturating_mul(2));
        loop {
            if let Some(report) = self.known_or_run(asked) {
                return (self.check.name, report);
            }
            // This check keeps the sender, so the channel is open.
            if until.run(ended.changed()).await.is_err() {
                return (self.check.name, self.of(&self.late(), Duration::ZERO));
            }
        }
    }

    /// The report on a result that can be used; without one, the check runs after this.
    fn known_or_run(self: &Arc<Self>, asked: u64) -> Option<CheckReport> {
        let mut state = self.lock();
        // Without a cache too, a run that began after the question is its answer; else slow ones would add up.
        let of_use = |last: &&Last| last.ended.elapsed() < self.check.cache || last.run > asked;
        if let Some(Last { ended, result, .. }) = state.last.as_ref().filter(of_use) {
            return Some(self.of(result, ended.elapsed()));
        }
        if !state.running {
            state.running = true;
            state.begun += 1;
            let run = Run { of: self.clone(), number: state.begun, result: Err("the check was cut off".to_owned()) };
            // A runtime that ends drops the task at once, and with it the run, which takes the lock.
            drop(state);
            // A task of its own: who asks may leave, and the next one gets what this run finds.
            tokio::spawn(async move {
                let result = run.of.run().await;
                run.end(result);
            });
        }
        None
    }

    async fn run(&self) -> Result<(), String> {
        let limit = self.check.time_limit;
        // The closure is called within, as it may panic too.
        let run = AssertUnwindSafe(async { (self.check.run)().await }).catch_unwind();
        match timeout(limit, run).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("the check panicked".to_owned()),
            Err(_) => self.late(),
        }
    }

    fn late(&self) -> Result<(), String> {
        Err(format!("no answer within {:?}", self.check.time_limit))
    }

    fn of(&self, result: &Result<(), String>, age: Duration) -> CheckReport {
        let status = if result.is_ok() { Status::Up } else { Status::Down };
        let error = result.as_ref().err().cloned();
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        CheckReport { status, critical: self.check.critical, error, age_ms }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One run of a check. Its end is seen however it ends, also if its runtime does.
struct Run {
    of: Arc<Checked>,
    number: u64,
    result: Result<(), String>,
}

impl Run {
    fn end(mut self, result: Result<(), String>) {
        self.result = result;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        {
            let mut state = self.of.lock();
            state.running = false;
            state.last = Some(Last { run: self.number, ended: Instant::now(), result });
        }
        self.of.ended.send_replace(self.number);
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, critical, time_limit, cache, run: _ } = self;
        f.debug_struct("HealthCheck")
            .field("name", name)
            .field("critical", critical)
            .field("time_limit", time_limit)
            .field("cache", cache)
            .finish_non_exhaustive()
    }
}
