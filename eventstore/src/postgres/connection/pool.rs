//! Connections: a bounded number, provided in the order of the requests of each tenant.
//!
//! Not sqlx's pool: it pings the server whenever a connection is returned, and returns connections whose owner was
//! cancelled between BEGIN and its answer. Here a connection is returned only if its last statement has been answered.
//! Any other is closed, which rolls back its transaction.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{PgConnection, Row};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::error::BackendError;
use crate::position::Incarnation;
use crate::postgres::connection::server_run::{ServerRun, server_run};
pub(crate) use crate::postgres::connection::session::Query;
use crate::postgres::connection::session::Session;
use crate::postgres::fault::{NoConnection, answer_within};
use crate::postgres::options::PostgresOptions;
use crate::queue::{Permit, Permits};
use crate::stream::Tenant;

/// Run on every new connection: is it the store that was opened, and will the next position be after the end of its log?
/// The log is read in the snapshot of the statement and the sequence later, so concurrent appends cause no false alarm.
const IS_IT_STILL_OURS: &str = concat!(
    "
    SELECT (SELECT incarnation FROM annals.store ORDER BY only_row) AS incarnation,
           (SELECT coalesce(max(position), 0) FROM annals.events) AS head,
           coalesce(pg_sequence_last_value('annals.events_position'), 0) AS last,
           ",
    server_run!(),
    " AS run
    ORDER BY 1
"
);

/// One of the two sets of connections of a handle: reads have their own, as statements that write may be blocked by transactions
/// of others. Clones share them.
#[derive(Clone)]
pub(crate) struct Pool {
    handle: Arc<Inner>,
    set: Arc<Set>,
    is_for_queries: bool,
}

/// A bounded number of connections.
struct Set {
    size: usize,
    permits: Permits,
    /// How many of them queries of read models may have.
    of_queries: Permits,
    idle: Mutex<VecDeque<Idle>>,
}

/// What both sets have in common.
struct Inner {
    connect: PgConnectOptions,
    timeout: Duration,
    answer_timeout: Duration,
    pooled: bool,
    checks_client: bool,
    /// The store that was opened; connections made before it is known are not checked.
    store: OnceLock<Incarnation>,
    /// The run of the server of the last connection.
    run: Mutex<Option<ServerRun>>,
    /// How many runs are known to have ended.
    ended_runs: AtomicU64,
    closed: AtomicBool,
}

/// An idle connection.
struct Idle {
    session: Session,
    since: Instant,
}

/// A connection that was idle for longer is pinged before use. Otherwise a server restart would make calls fail, or
/// appends have an unknown outcome.
const RESTED: Duration = Duration::from_secs(1);

/// When the server has noticed that the client of a connection is gone: its backend looks every 100 ms (`check_client!`).
const NOTICED_WITHIN: Duration = Duration::from_millis(150);

impl Set {
    fn new(size: usize) -> Self {
        let own = (size / 10).max(1);
        let (permits, of_queries) = (Permits::new(size), Permits::new((size - own).max(1)));
        Self { size, permits, of_queries, idle: Mutex::new(VecDeque::with_capacity(size)) }
    }
}

impl Pool {
    /// `checks_client`: whether the server knows `check_client!`.
    pub(crate) fn new(connect: PgConnectOptions, options: &PostgresOptions, checks_client: bool) -> Self {
        let handle = Arc::new(Inner {
            connect,
            timeout: options.connection_timeout,
            answer_timeout: options.answer_timeout,
            pooled: options.pooled,
            checks_client,
            store: OnceLock::new(),
            run: Mutex::new(None),
            ended_runs: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        Self { handle, set: Arc::new(Set::new(options.connections)), is_for_queries: false }
    }

    /// As many connections of the same handle again.
    pub(crate) fn another(&self) -> Self {
        Self { handle: Arc::clone(&self.handle), set: Arc::new(Set::new(self.set.size)), is_for_queries: false }
    }

    /// The same connections for queries of read models, whose tables may be locked for long: those leave a tenth of them, at least one, for
    /// other reads, unless there is only one.
    pub(crate) fn for_queries(&self) -> Self {
        Self { is_for_queries: true, ..self.clone() }
    }

    /// How many connections there are at most.
    pub(crate) fn size(&self) -> usize {
        self.set.size
    }

    /// How long a call waits for one.
    pub(crate) fn timeout(&self) -> Duration {
        self.handle.timeout
    }

    /// Sets the store that every later connection must find.
    pub(crate) fn expect(&self, store: Incarnation) {
        self.handle.store.get_or_init(|| store);
    }

    /// Whether the pool belongs to a store, so that its planner settings are set.
    pub(crate) fn is_of_store(&self) -> bool {
        self.handle.store.get().is_some()
    }

    /// Takes a connection; it goes back when it is dropped.
    ///
    /// Dropping the future takes nothing.
    pub(crate) async fn take(&self) -> Result<PooledConnection, NoConnection> {
        self.take_for(None).await
    }

    /// The same for a tenant, whose calls wait behind each other and not before those of others.
    pub(crate) async fn take_for(&self, tenant: Option<&Tenant>) -> Result<PooledConnection, NoConnection> {
        if self.is_closed() {
            return Err(NoConnection::Closed);
        }
        let waited = timeout(self.handle.timeout, self.take_in_turn(tenant)).await;
        waited.unwrap_or_else(|_| Err(self.none_in_time()))
    }

    /// Takes a connection that the caller borrows for their own statements.
    pub(crate) async fn borrow(&self) -> Result<PooledConnection, NoConnection> {
        if self.handle.pooled { Err(NoConnection::Pooled) } else { self.take().await }
    }

    async fn take_in_turn(&self, tenant: Option<&Tenant>) -> Result<PooledConnection, NoConnection> {
        let of_queries = match self.is_for_queries {
            true => Some(self.set.of_queries.take(tenant).await.ok_or(NoConnection::Closed)?),
            false => None,
        };
        let permit = self.set.permits.take(tenant).await.ok_or(NoConnection::Closed)?;
        let mut permits = HeldPermits { permits: Some((permit, of_queries)), is_at_work: true };
        let session = self.idle_or_new().await;
        permits.is_at_work = false;
        Ok(PooledConnection::new(session?, self.clone(), Some(permits)))
    }

    async fn idle_or_new(&self) -> Result<Session, NoConnection> {
        loop {
            let idle = self.lock().pop_back();
            let Some(Idle { mut session, since }) = idle else { return self.connect().await };
            if self.is_past(session.run()) {
                continue;
            }
            if since.elapsed() <= RESTED || session.is_alive().await {
                return Ok(session);
            }
            // The other idle connections are most likely broken too.
            self.lock().clear();
        }
    }

    /// A connection outside of the shared ones, for a task that keeps it.
    pub(crate) async fn own(&self) -> Result<PooledConnection, NoConnection> {
        let connected = timeout(self.handle.timeout, self.connect()).await;
        let session = connected.unwrap_or_else(|_| Err(self.none_in_time()))?;
        Ok(PooledConnection::new(session, self.clone(), None))
    }

    fn none_in_time(&self) -> NoConnection {
        let (count, which) = match self.is_for_queries {
            true => (self.set.of_queries.count(), " that queries of read models may have"),
            false => (self.set.size, ""),
        };
        NoConnection::Unavailable(BackendError::new(format!(
            "no connection became available within {:?}: all {count}{which} are in use, by statements that take that long, by readers, \
             transactions and units of work that are open, or by futures that are not polled; end those sooner, or allow more by \
             `PostgresOptions::connections`",
            self.handle.timeout
        )))
    }

    async fn connect(&self) -> Result<Session, NoConnection> {
        let unavailable = |error| NoConnection::Unavailable(BackendError::new(error));
        let pooled = self.handle.pooled.then_some((self.handle.timeout, self.handle.checks_client));
        let mut session = Session::connect(&self.handle.connect, pooled).await.map_err(unavailable)?;
        let Some(store) = self.handle.store.get() else { return Ok(session) };
        let rows = session.fetch_all(sqlx::query(IS_IT_STILL_OURS)).await.map_err(unavailable)?;
        let row = rows.first().ok_or_else(|| unavailable(sqlx::Error::RowNotFound))?;
        let found: Option<Uuid> = row.get(0);
        if found.map(Incarnation) != Some(*store) {
            return Err(NoConnection::OtherIncarnation(*store));
        }
        let (head, last) = (row.get(1), row.get(2));
        if last < head {
            return Err(NoConnection::SequenceBehind { last, head });
        }
        let run = ServerRun::from(row.get::<String, _>(3));
        session.is_of(run.clone());
        let before = self.handle.run.lock().unwrap_or_else(PoisonError::into_inner).replace(run.clone());
        if before.is_some_and(|before| before != run) {
            self.handle.ended_runs.fetch_add(1, Ordering::AcqRel);
        }
        Ok(session)
    }

    /// The run of the server of the last connection; what was read in other runs is invalid.
    pub(crate) fn run(&self) -> Option<ServerRun> {
        self.handle.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a later connection has reached another run than `run`: a server that is no longer the primary, or another
    /// server, may still answer.
    fn is_past(&self, run: Option<&ServerRun>) -> bool {
        self.run().is_some_and(|last| run != Some(&last))
    }

    /// How many runs of the server are known to have ended.
    pub(crate) fn ended_runs(&self) -> u64 {
        self.handle.ended_runs.load(Ordering::Acquire)
    }

    /// How long the server may take to answer before a connection is closed.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.handle.answer_timeout
    }

    /// Whether the connections go through a pooler.
    pub(crate) fn is_pooled(&self) -> bool {
        self.handle.pooled
    }

    /// Whether each transaction must set `check_client!`.
    pub(crate) fn sets_check_of_client(&self) -> bool {
        self.handle.pooled && self.handle.checks_client
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handle.closed.load(Ordering::Acquire)
    }

    /// Waits for all users of a connection and all earlier requests, as long as a call waits for a connection; then closes all,
    /// those in use when they are dropped. Later calls fail as closed.
    pub(crate) async fn close(&self) {
        self.handle.closed.store(true, Ordering::Release);
        let waited = self.handle.timeout;
        let all_back = async {
            self.set.of_queries.all_back().await;
            self.set.permits.all_back().await;
        };
        if timeout(waited, all_back).await.is_err() {
            let in_use = self.set.size - self.set.permits.free();
            tracing::error!(
                in_use,
                ?waited,
                "closed while connections are in use: by readers, transactions or units of work that are still open, or by long \
                 statements; each is closed when it is dropped"
            );
        }
        self.set.of_queries.close();
        self.set.permits.close();
        let idle = std::mem::take(&mut *self.lock());
        for Idle { session, .. } in idle {
            if let Err(error) = session.close().await {
                tracing::debug!(%error, "a connection was lost before it was closed");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.set.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permits of a connection in use.
struct HeldPermits {
    permits: Option<(Permit, Option<Permit>)>,
    /// Whether the server may be at a statement, or still accept the connection.
    is_at_work: bool,
}

impl Drop for HeldPermits {
    fn drop(&mut self) {
        let permits = self.permits.take();
        // Otherwise calls that give up would leave any number of backends behind.
        if self.is_at_work
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                sleep(NOTICED_WITHIN).await;
                drop(permits);
            });
        }
    }
}

/// A connection in use, outside of any transaction.
pub(crate) struct PooledConnection {
    session: Option<Session>,
    pool: Pool,
    since: Instant,
    /// Those of a shared connection; a task's own connection has none and is closed when it is dropped.
    permits: Option<HeldPermits>,
}

impl PooledConnection {
    fn new(session: Session, pool: Pool, permits: Option<HeldPermits>) -> Self {
        Self { session: Some(session), pool, since: Instant::now(), permits }
    }

    /// The run of the server of every statement on the connection.
    pub(crate) fn run(&self) -> Option<&ServerRun> {
        self.session.as_ref().and_then(Session::run)
    }

    /// How long the server may take to answer before it is closed.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.pool.answer_timeout()
    }

    /// Whether the connection can be used, as far as is known: it reaches the last run of the server, its last statement was
    /// answered, and if it has been idle since, the server has answered a ping.
    pub(crate) async fn is_alive(&mut self) -> bool {
        if self.pool.is_past(self.run()) {
            return false;
        }
        if self.session().is_usable() && self.since.elapsed() > RESTED {
            let max_wait = self.pool.handle.timeout;
            // Without an answer it stays unusable.
            let _ = timeout(max_wait, self.session().is_alive()).await;
            self.look();
        }
        self.session().is_usable()
    }

    /// Runs one statement to its end: an error of the commit, after the rows, is returned too. If there is no answer in
    /// time, the connection is closed.
    pub(crate) async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let max_wait = self.pool.answer_timeout();
        self.fetch_all_within(max_wait, query).await
    }

    /// The same with a time limit of its own.
    pub(crate) async fn fetch_all_within(
        &mut self,
        max_wait: Duration,
        query: Query<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let result = answer_within(max_wait, self.session().fetch_all(query)).await;
        self.look();
        result
    }

    /// Prepares the connection for one statement, to be run on [`PooledConnection::connection`] and completed by
    /// [`PooledConnection::end`]. Without that call the connection is closed.
    pub(crate) async fn begin<'q>(&mut self, query: Query<'q>) -> Result<Query<'q>, sqlx::Error> {
        let begun = self.session().begin(query).await;
        if begun.is_err() {
            self.look();
        }
        begun
    }

    /// The same for a statement without values.
    pub(crate) async fn begin_plain(&mut self) -> Result<(), sqlx::Error> {
        let begun = self.session().begin_plain().await;
        if begun.is_err() {
            self.look();
        }
        begun
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.session().connection()
    }

    /// Ends the statement, which failed with `error` if there is one. Returns the error of the commit.
    pub(crate) async fn end(&mut self, error: Option<&sqlx::Error>) -> Result<(), sqlx::Error> {
        let max_wait = self.pool.answer_timeout();
        let ended = answer_within(max_wait, self.session().end(error)).await;
        self.look();
        ended
    }

    /// Marks that further rows of the statement are not wanted: the server ends it when it sends them.
    pub(crate) fn cut(&mut self) {
        self.session().cut();
    }

    /// Hands the connection to a borrower, who reports by [`PooledConnection::returned`] whether it can be used again.
    pub(crate) fn borrow(&mut self) -> &mut PgConnection {
        self.session().borrow()
    }

    /// The borrowed connection, for shared access.
    pub(crate) fn connection_ref(&self) -> &PgConnection {
        self.session.as_ref().expect("it is there until the drop").connection_ref()
    }

    /// Reports whether the borrowed connection is as usable as before.
    pub(crate) fn returned(&mut self, usable: bool) {
        self.session().returned(usable);
        self.look();
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("it is there until the drop")
    }

    fn look(&mut self) {
        self.since = Instant::now();
        if !self.session().is_usable() {
            // The server has most likely stopped or restarted, and the idle connections are broken too.
            self.pool.lock().clear();
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let (Some(session), Some(permits)) = (self.session.take(), &mut self.permits) else { return };
        permits.is_at_work = !session.is_usable() && !session.is_cut();
        if session.is_usable() && !self.pool.set.permits.is_closed() {
            self.pool.lock().push_back(Idle { session, since: self.since });
        }
    }
}

/// The statements that read events, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![("IS_IT_STILL_OURS", IS_IT_STILL_OURS, "")]
}
