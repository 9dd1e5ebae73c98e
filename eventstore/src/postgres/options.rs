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
/// The account needs few privileges: `migrations/postgres/roles.example.sql`, which is also
/// [`POSTGRES_ROLES_EXAMPLE`](crate::POSTGRES_ROLES_EXAMPLE), shows an owner that migrates, applications that append without being
/// able to insert by hand, and readers. What an account may not do is an error that names the missing privilege.
///
/// ```no_run
/// # async fn run() -> Result<(), annals_eventstore::OpenError> {
/// use annals_eventstore::PostgresOptions;
///
/// let store = PostgresOptions::new("postgres://app@localhost/shop").migrate().open().await?;
/// # Ok(()) }
/// ```
///
#[doc = include_str!("../../docs/postgres.md")]
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) url: String,
    pub(crate) migrate: bool,
    pub(crate) pooled: bool,
    pub(crate) connections: usize,
    pub(crate) writers: usize,
    pub(crate) answer_timeout: Duration,
    pub(crate) connection_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) listen: Listen,
    pub(crate) poll_interval: Duration,
    pub(crate) horizon_alarm: Duration,
    pub(crate) limits: Limits,
    pub(crate) ids: Arc<dyn IdSource>,
}

/// Where to listen for other handles' commits.
#[derive(Clone)]
pub(crate) enum Listen {
    SameUrl,
    Url(String),
    Never,
}

impl PostgresOptions {
    /// The defaults for the database at `url`: `postgres://user:password@host:port/database`, with libpq's parameters.
    /// An unsupported parameter is refused when the database is opened.
    ///
    /// Over a network, write `?sslmode=verify-full&sslrootcert=/path/to/root.pem`: only that verifies the server's identity.
    /// Without `sslrootcert` the public root certificates are trusted; without `sslmode` the connection is encrypted if the
    /// server offers it, but the server's identity is not verified.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            migrate: false,
            pooled: false,
            connections: 10,
            writers: 2,
            answer_timeout: Duration::from_secs(30),
            connection_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            listen: Listen::SameUrl,
            poll_interval: Duration::from_millis(20),
            horizon_alarm: Duration::from_secs(5),
            limits: Limits::default(),
            ids: Arc::new(TimeOrderedIds),
        }
    }

    /// Brings the schema up to date when the store is opened, with a table for the checkpoints of projections. Safe when
    /// several processes start at once.
    #[must_use]
    pub fn migrate(mut self) -> Self {
        self.migrate = true;
        self
    }

    /// States that the URL leads to a pooler, such as pgbouncer in transaction mode. A pooler sends the statements of many
    /// clients over few server connections. Without this setting, values of one client could reach the statement of another;
    /// so a pooler that is detected when the store is opened is refused.
    ///
    /// Each statement is then unnamed and runs in its own transaction, in four round trips instead of one. That works with
    /// every pooler in transaction or session mode, whether it supports prepared statements or not (the
    /// `max_prepared_statements` of pgbouncer 1.21 and newer is not needed); statement mode is not supported. If the pooler
    /// connects to another server, or to one that has restarted, that counts as a lost connection, and the next connection
    /// checks that the store is the same. A handle needs few connections for any number of tasks, so a pooler helps many
    /// processes, not one.
    ///
    /// Units of work and [`PostgresStore::database`](crate::postgres::PostgresStore::database) are refused, as the caller's
    /// own statements are named and a pooler would mix them up. For those, open the database at the server's own URL.
    #[must_use]
    pub fn pooled(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// How many connections the handle holds at most for units of work, borrowed readers and large appends, and as many again for its
    /// own reads and those of read models; 10 by default, from 1 to 10,000; other values are clamped. They are opened on demand. So reads
    /// never wait for appends that are blocked, and the appends of one tenant and its units of work for requests use at most four fifths
    /// of the former, so that those of others do not wait for them. Queries of read models leave a tenth of the latter, at least one, to
    /// the store's own reads. A single connection cannot be shared so: an open unit of work of one tenant keeps those of others waiting.
    /// Each of the [`PostgresOptions::writers`] has one more, and listening for notifications takes one; the server's `max_connections`
    /// must have room for those of all handles.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 10_000);
        self
    }

    /// How many writers the handle has; 2 by default, from 1 to 64; other values are clamped. Each stores what has queued
    /// up while its last statement ran. More writers help where the server has idle cores.
    #[must_use]
    pub fn writers(mut self, writers: usize) -> Self {
        self.writers = writers.clamp(1, 64);
        self
    }

    /// How long the server may take to answer one of the store's own statements, or between two rows of a read; 30 s by
    /// default. After that the connection is closed: the outcome of an append or a commit is unknown, a read fails as unavailable.
    /// So no call waits forever for a server that is gone. Statements inside a unit of work, and the caller's own, have no such
    /// limit; the beginning and the commit of a transaction have it. A call with a deadline ends there.
    ///
    /// It holds for the statements of projections and queries of read models too, except those that take as long as their work: making
    /// indexes, removing rows by a part of their key, and waiting for another process that starts.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// How long a call waits for a free connection or a new one; 5 s by default. After that it fails as unavailable,
    /// which is transient. With a timeout of zero every call fails.
    #[must_use]
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// How long a transaction or a unit of work may be idle between statements; 10 s by default, at least 1 ms. The server
    /// then ends it, as its locks block others and its events make readers wait.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How often to poll for commits of other handles while a reader waits and the handle is not listening; 20 ms by default,
    /// at least 1 ms. It is then the maximum delay of a subscription to events of other handles; those of this handle wake it
    /// at once. While listening, the handle polls every second, or at this interval if it is longer.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Where to listen for other handles' commits: the URL of the server itself, for a handle whose own URL leads to a
    /// pooler, which does not pass on notifications. Without a pooler the handle listens at its own URL, on one more connection.
    #[must_use]
    pub fn listen_url(mut self, url: impl Into<String>) -> Self {
        self.listen = Listen::Url(url.into());
        self
    }

    /// Does not listen: commits of other handles are found by polling, every [`PostgresOptions::poll_interval`].
    #[must_use]
    pub fn poll_only(mut self) -> Self {
        self.listen = Listen::Never;
        self
    }

    /// After how long an error in the log names the backends or prepared transactions that keep readers waiting; 5 s by
    /// default. It is repeated each time the wait has doubled. The gauge `annals_horizon_wait_seconds` shows every wait.
    #[must_use]
    pub fn horizon_alarm(mut self, after: Duration) -> Self {
        self.horizon_alarm = after;
        self
    }

    /// How much the store accepts; [`Limits::default`] by default.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The source of the ids that [`EventStore::ids`](crate::EventStore::ids) returns; [`TimeOrderedIds`] by default.
    #[must_use]
    pub fn ids(mut self, ids: impl IdSource) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// Opens the store. Must be called within a tokio runtime with timers, which runs the handle's tasks.
    ///
    /// # Errors
    /// [`OpenError::Invalid`] with the field `url` or `listen_url`; [`OpenError::PendingMigrations`] if the schema is
    /// missing or old and [`PostgresOptions::migrate`] was not called; [`OpenError::Refused`] for a wrong password or a
    /// database that is not there; [`OpenError::Unavailable`], which is transient; see [`OpenError`] for others.
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing. Its migrations are applied as a whole or not at all.
    pub async fn open(self) -> Result<crate::postgres::PostgresStore, OpenError> {
        crate::postgres::PostgresStore::open_with(self).await
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("migrate", &self.migrate)
            .field("pooled", &self.pooled)
            .field("connections", &self.connections)
            .field("connection_timeout", &self.connection_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("poll_interval", &self.poll_interval)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
