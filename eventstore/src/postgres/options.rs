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

/// Where to hear of other handles' commits.
#[derive(Clone)]
pub(crate) enum Listen {
    SameUrl,
    Url(String),
    Never,
}

impl PostgresOptions {
    /// The defaults for the database at `url`: `postgres://user:password@host:port/database`, with parameters as libpq has
    /// them. Opening refuses one that is not supported.
    ///
    /// Over a network, write `?sslmode=verify-full&sslrootcert=/path/to/root.pem`: only that checks that the server is the
    /// one that the URL names. Without `sslrootcert` the roots of the public web are believed; without `sslmode` the
    /// connection is encrypted if the server offers it, but whoever answers is optimistic.
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

    /// Says that the URL leads to a pooler, such as pgbouncer in transaction mode. A pooler hands the statements of many
    /// clients to few server connections and, without this setting, values of one client to the statement of another;
    /// so a pooler that is noticed when the store is opened is refused.
    ///
    /// Each statement then runs without a name in a transaction of its own, in four round trips instead of one. That
    /// works with every pooler in transaction or session mode, whatever it knows of prepared statements (the
    /// `max_prepared_statements` of pgbouncer 1.21 and newer is not needed); one in statement mode cannot be used. If the
    /// pooler connects to another server, or to one that has started anew, it counts as a lost connection, and the next
    /// one finds out whether the store is still the same. A handle keeps few connections for any number of tasks, so a
    /// pooler is of use to many processes, not to one.
    ///
    /// Units of work and [`PostgresStore::database`](crate::postgres::PostgresStore::database) are refused: the caller's own
    /// statements have names, which a pooler would mix up. Open the database once more, directly, for those.
    #[must_use]
    pub fn pooled(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// How many connections the handle holds at most for reads, units of work and large appends; 10 by default, from 1 to
    /// 10,000: what lies outside is taken for the nearest of them. They are opened when they are needed. Each of the
    /// [`PostgresOptions::writers`] has one more, and listening for news takes one; the server's `max_connections` must
    /// have room for those of all handles.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 10_000);
        self
    }

    /// How many writers the handle has; 2 by default, from 1 to 64: what lies outside is taken for the nearest of
    /// them. Each carries what has gathered while its last statement was in flight. More of them gain where the server has cores to spare.
    #[must_use]
    pub fn writers(mut self, writers: usize) -> Self {
        self.writers = writers.clamp(1, 64);
        self
    }

    /// How long the server may be silent after a statement of the store's own, or between two rows of a read; 30 s by
    /// default. After that the connection is given up: the outcome of an append is unknown, a read fails as unavailable.
    /// So a server that has vanished without a word keeps nobody for ever. What runs inside a unit of work, and the
    /// caller's own statements, have no such limit.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// How long a call waits for a free connection or a new one; 5 s by default. After that it fails as unavailable,
    /// which is transient; of no time at all, every call would.
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

    /// How often commits of other handles are looked for while somebody waits for them and no news are heard; 20 ms by
    /// default, at least 1 ms. It is then the worst delay of a subscription to events of others; those of this handle
    /// wake at once. While news are heard, it is looked every second, or so seldom as this says.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Where to hear of other handles' commits: a URL that leads straight to the server, for a handle whose own URL leads
    /// to a pooler, which cannot pass news on. Without a pooler the handle listens at its own URL, by one connection more.
    #[must_use]
    pub fn listen_url(mut self, url: impl Into<String>) -> Self {
        self.listen = Listen::Url(url.into());
        self
    }

    /// Hears no news: commits of other handles are only looked for, as often as [`PostgresOptions::poll_interval`] says.
    #[must_use]
    pub fn poll_only(mut self) -> Self {
        self.listen = Listen::Never;
        self
    }

    /// After how long an error in the log says which backends or prepared transactions keep readers waiting; 5 s by
    /// default. It is said again each time that the wait has doubled. The gauge `annals_horizon_wait_seconds` shows
    /// every wait.
    #[must_use]
    pub fn horizon_alarm(mut self, after: Duration) -> Self {
        self.horizon_alarm = after;
        self
    }

    /// How much the store accepts; what [`Limits::default`] says by default.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The source of the ids that [`EventStore::ids`](crate::EventStore::ids) hands out; [`TimeOrderedIds`] by default.
    #[must_use]
    pub fn ids(mut self, ids: impl IdSource) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// Opens the store. Must be called within a tokio runtime with timers, in which the handle's tasks live.
    ///
    /// # Errors
    /// [`OpenError::Invalid`] with the field `url` or `listen_url`; [`OpenError::PendingMigrations`] if the schema is
    /// missing or old and [`PostgresOptions::migrate`] was not called; [`OpenError::Refused`] for a wrong password or a
    /// database that is not there; [`OpenError::Unavailable`], which is transient; see [`OpenError`] for others.
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing. Migrations it was at are run as a whole or not at all.
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
