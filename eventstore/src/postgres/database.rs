//! A PostgreSQL database for read models and the user's own queries: connections and transactions.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use annals_migrations::Migration;
use sqlx::{AssertSqlSafe, PgConnection, Row, SqlSafeStr, SqlStr};

use crate::database_error::DatabaseError;
use crate::error::{BackendError, OpenError};
use crate::postgres::connection::borrowed::BorrowedConnection;
use crate::postgres::connection::planner::{DEFAULT_PLANNER, KEEP_NO_PLAN, default_planner};
use crate::postgres::connection::pool::Pool;
use crate::postgres::connection::session::check_client;
use crate::postgres::fault::{NoConnection, commit_error, database_error, is_answer, may_pass};
use crate::postgres::migrate::{migrate, pending};
use crate::postgres::open::open_error;
use crate::postgres::options::PostgresOptions;
use crate::stream::Tenant;

/// One message. The setting `annals.transaction` marks the transaction, so that the commit can recognize it.
fn begin_text(idle_timeout: Duration, checks_client: bool, also: &'static str) -> String {
    let check_client = if checks_client { concat!("SET LOCAL ", check_client!(), ";") } else { "" };
    // 0 would mean no limit.
    let idle_ms = idle_timeout.as_millis().clamp(1, 2_147_483_647);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED;
         SET LOCAL annals.transaction = 'open';
         {};
         {check_client}
         {also}
         SET LOCAL idle_in_transaction_session_timeout = {idle_ms};
         SELECT set_config('synchronous_commit', 'on', true)
         WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')",
        default_planner!()
    )
}

/// In a failed transaction this query fails, and nothing is committed. A bare COMMIT would be answered by a rollback, which
/// sqlx takes for success.
const COMMIT: &str = "
    SELECT coalesce(current_setting('annals.transaction', true), '') = 'open',
           current_setting('synchronous_standby_names') <> '';
    COMMIT
";

/// A PostgreSQL database: its connections, for read models and the user's own queries.
///
/// Cloning is cheap; all clones share the connections. Read models may live in the database of the store
/// ([`PostgresStore::database`](crate::postgres::PostgresStore::database)) or in another.
///
/// ```no_run
/// use annals_eventstore::PostgresDatabase;
/// use sqlx::Row;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let reporting = PostgresDatabase::open("postgres://app@localhost/reporting").await?;
///
/// let mut transaction = reporting.begin().await?;
/// sqlx::query("INSERT INTO labels (order_id) VALUES ($1)").bind("o-17").execute(&mut *transaction).await?;
/// transaction.commit().await?;
///
/// let mut reader = reporting.read().await?;
/// let labels = sqlx::query("SELECT count(*) FROM labels").fetch_one(&mut *reader).await?;
/// assert_eq!(labels.get::<i64, _>(0), 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresDatabase(Arc<Inner>);

struct Inner {
    pool: Pool,
    /// The connections for reads.
    reads: Pool,
    /// Those of them that queries of read models may have.
    queries: Pool,
    name: String,
    begin: SqlStr,
    begin_unit_of_work: SqlStr,
}

impl PostgresDatabase {
    /// Opens the database at `url` with the defaults of [`PostgresOptions`]. It need not hold a store.
    ///
    /// # Errors
    /// As of [`PostgresDatabase::open_with`].
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing.
    pub async fn open(url: impl Into<String>) -> Result<Self, OpenError> {
        Self::open_with(&PostgresOptions::new(url)).await
    }

    /// Opens a database with `options`; only those about connections and timeouts have an effect.
    ///
    /// # Errors
    /// [`OpenError::Invalid`] with the field `url`; [`OpenError::Refused`] for a wrong password or a database that is not
    /// there; [`OpenError::Untrusted`]; [`OpenError::Unsound`] for a pooler without [`PostgresOptions::pooled`];
    /// [`OpenError::Unavailable`], which is transient.
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing.
    pub async fn open_with(options: &PostgresOptions) -> Result<Self, OpenError> {
        let (pool, name) = crate::postgres::open::connect(options).await?;
        Ok(Self::over(pool, name, options))
    }

    pub(crate) fn over(pool: Pool, name: String, options: &PostgresOptions) -> Self {
        let begin =
            |also| AssertSqlSafe(begin_text(options.idle_timeout, pool.sets_check_of_client(), also)).into_sql_str();
        let reads = pool.another();
        let (begin, begin_unit_of_work) = (begin(""), begin(KEEP_NO_PLAN));
        Self(Arc::new(Inner { queries: reads.for_queries(), pool, reads, name, begin, begin_unit_of_work }))
    }

    /// Runs those of `migrations` that this database does not have yet, in one transaction. The crates of annals add their
    /// tables this way. An app may add its own, under components other than `events` and `projections`. Safe when several
    /// processes start at once. Applied migrations are recorded in the schema `annals`, which is created if it is missing.
    ///
    /// ```no_run
    /// use annals_eventstore::{Migration, PostgresDatabase};
    ///
    /// const LABELS: &[Migration] = &[Migration {
    ///     component: "labels",
    ///     number: 1,
    ///     name: "labels",
    ///     sql: "CREATE TABLE labels (order_id text PRIMARY KEY)",
    /// }];
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// PostgresDatabase::open("postgres://owner@localhost/reporting").await?.migrate(LABELS).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OpenError::Refused`] if a migration's SQL fails; [`OpenError::Unsound`] if the account lacks a privilege;
    /// [`OpenError::ReadOnly`], for example on a standby; [`OpenError::StorageFull`]; [`OpenError::Unavailable`], which is
    /// transient; [`OpenError::Closed`]. Nothing of a failed migration remains.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back, or leaves all of them run.
    pub async fn migrate(&self, migrations: &[Migration]) -> Result<(), OpenError> {
        let failed = |e| open_error(&self.0.name, e);
        let connection = self.0.pool.take().await.map_err(|e| e.into_database().into_open(self.name()))?;
        let mut borrowed = BorrowedConnection::new(connection);
        // If no migration is pending, nothing is changed, so that a role without CREATE privileges can start.
        let missing = pending(&mut borrowed, migrations).await.map_err(failed)?;
        if missing.is_empty() {
            return Ok(());
        }
        migrate(&mut borrowed, migrations).await.map_err(failed)
    }

    /// Takes a connection, outside of any transaction; it goes back when it is dropped. Waits while all are in use.
    ///
    /// Meant for queries. Writes are not prevented, as that would cost a round trip. Each statement commits on its own, as
    /// durably as the server's default says. On the database of a store this takes a round trip, to reset the planner settings
    /// of the store's own statements.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] if none was free in time or could be opened; [`DatabaseError::Closed`]. Through a
    /// pooler [`DatabaseError::Failed`]: begin a transaction there.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub async fn read(&self) -> Result<PostgresReader, DatabaseError> {
        let connection = self.0.pool.borrow().await.map_err(NoConnection::into_database)?;
        let mut borrowed = BorrowedConnection::new(connection);
        if self.0.pool.is_of_store() {
            borrowed.run(DEFAULT_PLANNER).await.map_err(database_error)?;
        }
        Ok(PostgresReader(borrowed))
    }

    /// Begins a transaction, in one round trip.
    ///
    /// It is READ COMMITTED and durable: `synchronous_commit` is `on`, or stronger. If it is idle for longer than
    /// [`PostgresOptions::idle_timeout`], the server ends it. Through a pooler its statements must be unnamed: see
    /// [`PostgresDatabase::is_pooled`].
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`], which is transient, if no connection was free in time or could be opened;
    /// [`DatabaseError::Failed`] if the database holds another incarnation of the store than the one that was opened;
    /// [`DatabaseError::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future, or the transaction, rolls back.
    pub async fn begin(&self) -> Result<PostgresTransaction, DatabaseError> {
        self.try_to_begin(&self.0.pool, None, &self.0.begin).await.map_err(|e| self.not_begun(e))
    }

    /// The same for a query of a read model about a tenant, or about all: on its part of the connections for reads, which no transaction of
    /// a user keeps.
    #[doc(hidden)]
    pub async fn begin_to_read(&self, tenant: Option<&Tenant>) -> Result<PostgresTransaction, DatabaseError> {
        self.try_to_begin(&self.0.queries, tenant, &self.0.begin).await.map_err(|e| self.not_begun(e))
    }

    fn not_begun(&self, error: NotBegun) -> DatabaseError {
        match error {
            NotBegun::NoConnection(error) => error.into_database(),
            NotBegun::Refused(error) => self.fault(error),
        }
    }

    /// The connections for reads.
    pub(crate) fn reads(&self) -> &Pool {
        &self.0.reads
    }

    /// The same for a unit of work, in which statements of the store run too.
    pub(crate) async fn begin_unit_of_work(&self) -> Result<PostgresTransaction, NotBegun> {
        self.try_to_begin(&self.0.pool, None, &self.0.begin_unit_of_work).await
    }

    async fn try_to_begin(
        &self,
        pool: &Pool,
        tenant: Option<&Tenant>,
        begin: &SqlStr,
    ) -> Result<PostgresTransaction, NotBegun> {
        let mut renewed = false;
        loop {
            let mut borrowed = BorrowedConnection::new(pool.take_for(tenant).await.map_err(NotBegun::NoConnection)?);
            match borrowed.begin(begin.clone()).await {
                Ok(()) => return Ok(PostgresTransaction(borrowed)),
                // The idle connection was broken, and the others most likely are too.
                Err(error) if !is_answer(&error) && !renewed => {
                    borrowed.lost(&error);
                    renewed = true;
                }
                Err(error) => return Err(NotBegun::Refused(error)),
            }
        }
    }

    /// Closes all connections once they are free. Those that are still borrowed after
    /// [`PostgresOptions::connection_timeout`], by a reader, a transaction or a unit of work, are counted by an error in the log and
    /// closed when they are dropped. Later calls fail with [`DatabaseError::Closed`]. The connections of a store's database are the
    /// store's, which is closed too.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the handle closed; remaining connections are closed when the last clone is dropped.
    pub async fn close(&self) {
        tokio::join!(self.0.pool.close(), self.0.reads.close());
    }

    /// A readable name of the database: its address without user and password.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether connections go through a pooler ([`PostgresOptions::pooled`]). Statements on borrowed connections must then be
    /// inside a transaction and unnamed, which is sqlx's `persistent(false)`.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.0.pool.is_pooled()
    }

    /// How long the server may take to answer.
    #[doc(hidden)]
    #[must_use]
    pub fn answer_timeout(&self) -> Duration {
        self.0.pool.answer_timeout()
    }

    /// Whether a statement that failed so may work in another transaction.
    #[doc(hidden)]
    #[must_use]
    pub fn may_pass(&self, error: &sqlx::Error) -> bool {
        may_pass(error)
    }

    /// What an error of a statement on one of this database's connections means. Not for commits: use
    /// [`PostgresTransaction::commit`].
    #[must_use]
    pub fn fault(&self, error: sqlx::Error) -> DatabaseError {
        database_error(error)
    }
}

impl std::fmt::Debug for PostgresDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresDatabase").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Why a transaction was not begun.
pub(crate) enum NotBegun {
    NoConnection(NoConnection),
    Refused(sqlx::Error),
}

/// A connection outside of any transaction. It dereferences to sqlx's, for the user's own SQL, and goes back when it is
/// dropped.
///
/// A query sees what was committed when it begins. For several that must agree, begin a transaction on it that is
/// `ISOLATION LEVEL REPEATABLE READ`. Open transactions, settings, session locks and temporary tables are cleaned up
/// afterwards.
pub struct PostgresReader(BorrowedConnection);

impl Deref for PostgresReader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for PostgresReader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// A transaction. It dereferences to the connection, for the user's own SQL; dropping it rolls back.
///
/// `begin()` on it makes a savepoint. End it by its own methods only, not by SQL.
pub struct PostgresTransaction(BorrowedConnection);

impl PostgresTransaction {
    /// Commits durably: once this has returned, a crash of the server loses nothing.
    ///
    /// # Errors
    /// [`DatabaseError`]; unless it is [`DatabaseError::OutcomeUnknown`], nothing is stored. It also fails if an earlier
    /// statement has failed outside of a savepoint.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn commit(self) -> Result<(), DatabaseError> {
        self.commit_and_report().await.map(|_| ())
    }

    /// The same; returns whether the server waits for standbys at each commit.
    pub(crate) async fn commit_and_report(mut self) -> Result<bool, DatabaseError> {
        let rows = self.0.run(COMMIT).await.map_err(commit_error)?;
        self.0.ended();
        let was_ours = rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false));
        if was_ours {
            return Ok(rows.first().is_none_or(|row| row.try_get(1).unwrap_or(true)));
        }
        let why = "one of the caller's own statements has ended the transaction already";
        Err(DatabaseError::OutcomeUnknown { source: BackendError::new(why) })
    }

    /// Rolls back.
    ///
    /// # Errors
    /// [`DatabaseError`]; nothing is stored in any case.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back as well.
    pub async fn rollback(self) -> Result<(), DatabaseError> {
        self.0.return_to_pool().await.map_err(database_error)
    }
}

impl Deref for PostgresTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for PostgresTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}
