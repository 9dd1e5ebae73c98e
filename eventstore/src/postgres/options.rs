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
    pub(super) connection_timeout: Duration,
    pub(super) poll_interval: Duration,
    pub(super) limits: Limits,
    pub(super) ids: Arc<dyn IdSource>,
}

impl PostgresOptions {
    /// The defaults for the database at `url`: `postgres://user:password@host:port/database`, with `?sslmode=verify-full`
    /// and others as libpq has them. Opening refuses one that is not supported.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            migrate: false,
            connections: 10,
            connection_timeout: Duration::from_secs(5),
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

    /// How many connections the handle holds at most; 10 by default, at least 1.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 10_000);
        self
    }

    /// How long a call waits for a free connection or a new one; 5 s by default. After that it fails as unavailable,
    /// which is transient.
    #[must_use]
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
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
            .field("poll_interval", &self.poll_interval)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
