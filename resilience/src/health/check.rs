use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::report::{CheckReport, Status};

type Run = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// One thing on which a service depends, and how to see whether it works.
///
/// The closure must not block its thread: the time limit could not end it.
pub struct HealthCheck {
    pub(super) name: &'static str,
    critical: bool,
    pub(super) time_limit: Duration,
    cache: Duration,
    run: Run,
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
    /// Locked while the check runs, so that many questions at once run it once.
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    began: Instant,
    ended: Instant,
    result: Result<(), String>,
}

impl Checked {
    pub(super) fn new(check: HealthCheck) -> Self {
        Self { check, last: Mutex::new(None) }
    }

    pub(super) async fn report(&self) -> (&'static str, CheckReport) {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        // Without a cache too, a check that began while this question waited is its answer; else slow ones would add up.
        let of_use = |last: &Last| last.ended.elapsed() < self.check.cache || last.began > asked;
        let last = match last.take().filter(of_use) {
            Some(known) => last.insert(known),
            None => {
                let began = Instant::now();
                let result = self.run().await;
                last.insert(Last { began, ended: Instant::now(), result })
            }
        };
        let Last { ended: at, result, .. } = last;
        let status = if result.is_ok() { Status::Up } else { Status::Down };
        let error = result.as_ref().err().cloned();
        let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let report = CheckReport { status, critical: self.check.critical, error, age_ms };
        (self.check.name, report)
    }

    async fn run(&self) -> Result<(), String> {
        let limit = self.check.time_limit;
        // The closure is called within, as it may panic too.
        let run = AssertUnwindSafe(async { (self.check.run)().await }).catch_unwind();
        match timeout(limit, run).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("the check panicked".to_owned()),
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
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
