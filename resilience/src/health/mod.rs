#![doc = include_str!("../../docs/health.md")]

mod check;
mod live;
mod port;
mod pulse;
mod report;
#[cfg(feature = "axum")]
mod routes;
#[cfg(feature = "axum")]
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use check::HealthCheck;
pub use report::{CheckReport, Report, Status};

use check::Checked;
use live::Live;
use port::LivePort;

use crate::error::{Check, SettingsError};

/// What a process says of its own state. Clones share it; the last one that is dropped ends its threads.
#[derive(Debug, Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    live: Live,
    port: Option<LivePort>,
    checks: Vec<Arc<Checked>>,
    started: AtomicBool,
    draining: AtomicBool,
}

/// No health can be reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// Settings that cannot work. Fix them.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is no runtime to watch. Call `start` within one.
    #[error("health is started outside of a tokio runtime")]
    NoRuntime,
    /// The port of `live` cannot be opened.
    #[error("no answers about health at {address}")]
    Port {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system gives no thread.
    #[error("no thread to watch the runtime")]
    Thread(#[source] std::io::Error),
}

/// Settings of a [`Health`], from [`Health::builder`].
pub struct HealthBuilder {
    heartbeat: Duration,
    port: Option<SocketAddr>,
    checks: Vec<HealthCheck>,
}

impl Health {
    /// A heartbeat limit of 10 s, no port, no checks.
    pub fn builder() -> HealthBuilder {
        HealthBuilder { heartbeat: Duration::from_secs(10), port: None, checks: Vec::new() }
    }

    /// The work before the first request is done, as migrations. Until then `startup` and `ready` say 503.
    pub fn started(&self) {
        self.shared.started.store(true, Ordering::SeqCst);
    }

    /// Shutdown begins: from now on `ready` says 503, for good. Call it first, then wait until the balancer has seen it,
    /// and only then close the listener.
    pub fn begin_shutdown(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
    }

    /// Whether the runtime runs tasks. A process that says no should be restarted.
    pub fn live(&self) -> Report {
        Report::of(self.shared.live.status())
    }

    /// Whether [`started`](Self::started) was called; shutdown changes nothing here.
    pub fn startup(&self) -> Report {
        let started = self.shared.started.load(Ordering::SeqCst);
        Report::of(if started { Status::Up } else { Status::Starting })
    }

    /// Whether requests should come. All checks run at once, each within its time limit; results are taken from the cache
    /// while they are young enough. None runs before the start is done, or after shutdown began.
    ///
    /// # Cancel safety
    /// Checks that run go on, each within its time limit, and the next question gets their results.
    pub async fn ready(&self) -> Report {
        if let Some(refused) = self.not_serving() {
            return refused;
        }
        let reports = futures::future::join_all(self.shared.checks.iter().map(Checked::report)).await;
        // A shutdown that began while the checks ran is not missed.
        self.not_serving().unwrap_or_else(|| Report::of_checks(reports))
    }

    /// Where `live` answers on its own port, if it has one. Of use with port 0, for which the system chose one.
    pub fn live_address(&self) -> Option<SocketAddr> {
        self.shared.port.as_ref().map(LivePort::address)
    }

    fn not_serving(&self) -> Option<Report> {
        if self.shared.draining.load(Ordering::SeqCst) {
            Some(Report::of(Status::Draining))
        } else if !self.shared.started.load(Ordering::SeqCst) {
            Some(Report::of(Status::Starting))
        } else {
            None
        }
    }
}

impl HealthBuilder {
    /// How long the runtime may run no new task before `live` says 503. Default: 10 s.
    #[must_use]
    pub fn heartbeat(self, limit: Duration) -> Self {
        Self { heartbeat: limit, ..self }
    }

    /// Answers `GET /health/live` at this address too, by plain threads: also while the runtime is blocked, or busy, or
    /// before the service listens.
    #[must_use]
    pub fn live_port(self, address: impl Into<SocketAddr>) -> Self {
        Self { port: Some(address.into()), ..self }
    }

    /// A check without which the service cannot work: its failure makes `ready` say 503.
    #[must_use]
    pub fn critical<F, R, E>(self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.check(HealthCheck::critical(name, check))
    }

    /// A check without which the service still works, if less well: its failure makes `ready` say `degraded`, with 200.
    #[must_use]
    pub fn informational<F, R, E>(self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.check(HealthCheck::informational(name, check))
    }

    /// A check with its own time limit or cache.
    #[must_use]
    pub fn check(mut self, check: HealthCheck) -> Self {
        self.checks.push(check);
        self
    }

    /// Starts to watch the runtime from which it is called.
    ///
    /// # Errors
    /// [`HealthError`] if a setting cannot work, or if runtime, port or thread cannot be had.
    pub fn start(self) -> Result<Health, HealthError> {
        let Self { heartbeat, port, checks } = self;
        refuse(heartbeat, &checks)?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| HealthError::NoRuntime)?;
        let live = Live::start(runtime, heartbeat).map_err(HealthError::Thread)?;
        let port = port
            .map(|address| {
                LivePort::start(address, live.reader()).map_err(|source| HealthError::Port { address, source })
            })
            .transpose()?;
        let checks = checks.into_iter().map(Checked::new).collect();
        let (started, draining) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Health { shared: Arc::new(Shared { live, port, checks, started, draining }) })
    }
}

fn refuse(heartbeat: Duration, checks: &[HealthCheck]) -> Result<(), SettingsError> {
    let settings = Check::of("health");
    if heartbeat < Duration::from_millis(100) {
        settings.refuse("heartbeat", heartbeat, "a busy runtime would look blocked; it is at least 100 ms")?;
    }
    for (index, check) in checks.iter().enumerate() {
        Check::of(check.name).not_zero("time_limit", check.time_limit)?;
        if checks[..index].iter().any(|other| other.name == check.name) {
            settings.refuse("check", check.name, "there is another check of this name")?;
        }
    }
    Ok(())
}

impl fmt::Debug for HealthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { heartbeat, port, checks } = self;
        f.debug_struct("HealthBuilder")
            .field("heartbeat", heartbeat)
            .field("port", port)
            .field("checks", checks)
            .finish()
    }
}
