//! How a PostgreSQL database is opened.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::OpenError;
use crate::limits::Limits;

/// How to open a store in a PostgreSQL database.
///
/// Its objects live in the schema `annals`. Times are the server's. Opening changes nothing in the database unless
/// [`PostgresOptions::migrate`] was called.
///
/// ```no_run
/// # async fn run() -> Result<(), annals_eventstore::OpenError> {
/// use annals_eventstore::PostgresOptions;
///
/// let store = PostgresOptions::new("postgres://app@localhost/shop").migrate().open().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresOptions {
    pub(super) url: String,
    pub(super) migrate: bool,
    pub(super) connections: usize,
    pub(super) writers: usize,
    pub(super) answer_timeout: Duration,
    pub(super) connection_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) poll_interval: Duration,
    pub(super) limits: Limits,
    pub(super) ids: Arc<dyn IdSource>,
}

impl PostgresOptions {
    /// The defaults for the database at `url`: `postgres://user:password@host:port/database`, with `?sslmode=verify-full`
    /// and others as libpq has them.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            migrate: false,
            connections: 10,
            writers: 2,
            answer_timeout: Duration::from_secs(30),
            connection_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_millis(20),
            limits: Limits::default(),
            ids: Arc::new(TimeOrderedIds),
        }
    }

    /// Brings the schema up to date when the store is opened. Safe when several processes start at once.
    #[must_use]
    pub fn migrate(mut self) -> Self {
        self.migrate = true;
        self
    }

    /// How many connections the handle holds at most for reads, units of work and large appends; 10 by default, at least
    /// 1. Each of the [`PostgresOptions::writers`] has one more.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 10_000);
        self
    }

    /// How many writers the handle has; 2 by default, from 1 to 64. Each carries what has gathered while its last statement
    /// was in flight. More of them gain where the server has cores to spare.
    #[must_use]
    pub fn writers(mut self, writers: usize) -> Self {
        self.writers = writers.clamp(1, 64);
        self
    }

    /// How long a writer waits for the server's answer; 30 s by default. After that the connection is given up, and the
    /// outcome of what it carried is unknown.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// How long a call waits for a free connection or a new one; 5 s by default. After that it fails as unavailable,
    /// which is transient.
    #[must_use]
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// How long a transaction or a unit of work may wait for its next statement; 10 s by default, at least 1 ms. The server
    /// ends one that waits longer, as its locks keep others waiting and its events keep readers waiting.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How often commits of other handles are looked for while somebody waits for them; 20 ms by default. It is the
    /// worst delay of a subscription to events of others; those of this handle wake at once.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How much the store accepts.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The source of new event ids.
    #[must_use]
    pub fn ids(mut self, ids: impl IdSource) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::PendingMigrations`] if the schema is missing or old and
    /// [`PostgresOptions::migrate`] was not called.
    pub async fn open(self) -> Result<super::PostgresStore, OpenError> {
        super::PostgresStore::open_with(self).await
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("migrate", &self.migrate)
            .field("connections", &self.connections)
            .field("connection_timeout", &self.connection_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("poll_interval", &self.poll_interval)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
