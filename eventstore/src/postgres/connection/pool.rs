//! Connections: a bounded number, handed out in the order of asking.
//!
//! Not sqlx's pool: that one asks the server for a sign of life whenever a connection is given back, and gives back
//! connections whose owner was cancelled between BEGIN and its answer. Here a connection goes back only if its last
//! statement has been answered; any other is closed, which rolls back what was open.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{PgConnection, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::error::BackendError;
use crate::position::Incarnation;
use crate::postgres::connection::server_run::{ServerRun, server_run};
pub(crate) use crate::postgres::connection::session::Query;
use crate::postgres::connection::session::Session;
use crate::postgres::fault::{NoConnection, no_answer};
use crate::postgres::options::PostgresOptions;

/// Asked on every new connection: is it still the store that was opened, and would the next position be beyond its
/// log? The log is seen as of the statement's beginning and the sequence later, so new events cannot deceive it.
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

/// The connections of one handle. Clones share them.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    connect: PgConnectOptions,
    size: usize,
    timeout: Duration,
    answer_timeout: Duration,
    pooled: bool,
    /// The store that was opened; connections made before it is known are not checked.
    store: OnceLock<Incarnation>,
    /// The run of the server that the last connection has reached.
    run: Mutex<Option<ServerRun>>,
    /// How many runs were found to have ended.
    ended_runs: AtomicU64,
    closed: AtomicBool,
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<Idle>>,
}

/// A connection that nobody uses.
struct Idle {
    session: Session,
    since: Instant,
}

/// After this rest a connection is asked for a sign of life, so that a server that was started anew in between makes no
/// call fail, and no outcome unknown.
const RESTED: Duration = Duration::from_secs(1);

impl Pool {
    pub(crate) fn new(connect: PgConnectOptions, options: &PostgresOptions) -> Self {
        let size = options.connections;
        Self(Arc::new(Inner {
            connect,
            size,
            timeout: options.connection_timeout,
            answer_timeout: options.answer_timeout,
            pooled: options.pooled,
            store: OnceLock::new(),
            run: Mutex::new(None),
            ended_runs: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(VecDeque::with_capacity(size)),
        }))
    }

    /// Says which store every later connection must find.
    pub(crate) fn expect(&self, store: Incarnation) {
        self.0.store.get_or_init(|| store);
    }

    /// Whether it is a store's, so that its plans are pinned.
    pub(crate) fn is_of_store(&self) -> bool {
        self.0.store.get().is_some()
    }

    /// Takes a connection; it goes back when it is dropped.
    ///
    /// Dropping the future takes nothing.
    pub(crate) async fn take(&self) -> Result<PooledConnection, NoConnection> {
        if self.is_closed() {
            return Err(NoConnection::Closed);
        }
        let waited = timeout(self.0.timeout, self.take_in_turn()).await;
        waited.unwrap_or_else(|_| Err(self.none_in_time()))
    }

    /// Takes a connection for the caller's own statements.
    pub(crate) async fn lend(&self) -> Result<PooledConnection, NoConnection> {
        if self.0.pooled { Err(NoConnection::Pooled) } else { self.take().await }
    }

    async fn take_in_turn(&self) -> Result<PooledConnection, NoConnection> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.map_err(|_| NoConnection::Closed)?;
        loop {
            let idle = self.lock().pop_back();
            let Some(Idle { mut session, since }) = idle else {
                let session = self.connect().await?;
                return Ok(PooledConnection::new(session, self.clone(), Some(permit)));
            };
            if self.is_past(session.run()) {
                continue;
            }
            if since.elapsed() <= RESTED || session.is_alive().await {
                return Ok(PooledConnection::new(session, self.clone(), Some(permit)));
            }
            // The others have most likely ended with it.
            self.lock().clear();
        }
    }

    /// A connection beside those that are shared, for a task that keeps it.
    pub(crate) async fn own(&self) -> Result<PooledConnection, NoConnection> {
        let connected = timeout(self.0.timeout, self.connect()).await;
        let session = connected.unwrap_or_else(|_| Err(self.none_in_time()))?;
        Ok(PooledConnection::new(session, self.clone(), None))
    }

    fn none_in_time(&self) -> NoConnection {
        NoConnection::Unavailable(BackendError::new(format!("no connection was to be had within {:?}", self.0.timeout)))
    }

    async fn connect(&self) -> Result<Session, NoConnection> {
        let unavailable = |error| NoConnection::Unavailable(BackendError::new(error));
        let pooled = self.0.pooled.then_some(self.0.timeout);
        let mut session = Session::connect(&self.0.connect, pooled).await.map_err(unavailable)?;
        let Some(store) = self.0.store.get() else { return Ok(session) };
        let rows = session.fetch_all(sqlx::query(IS_IT_STILL_OURS)).await.map_err(unavailable)?;
        let row = rows.first().ok_or_else(|| unavailable(sqlx::Error::RowNotFound))?;
        let found: Option<Uuid> = row.get(0);
        if found.map(Incarnation) != Some(*store) {
            return Err(NoConnection::OtherLife(*store));
        }
        let (head, last) = (row.get(1), row.get(2));
        if last < head {
            return Err(NoConnection::SequenceBehind { last, head });
        }
        let run = ServerRun::from(row.get::<String, _>(3));
        session.is_of(run.clone());
        let before = self.0.run.lock().unwrap_or_else(PoisonError::into_inner).replace(run.clone());
        if before.is_some_and(|before| before != run) {
            self.0.ended_runs.fetch_add(1, Ordering::AcqRel);
        }
        Ok(session)
    }

    /// The run of the server that the last connection has reached; what was seen in others is void.
    pub(crate) fn run(&self) -> Option<ServerRun> {
        self.0.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a later connection has reached another run than `run`: a server that is not the primary any more, or not this
    /// one, may still answer.
    fn is_past(&self, run: Option<&ServerRun>) -> bool {
        self.run().is_some_and(|last| run != Some(&last))
    }

    /// How many runs of the server have ended, as far as is known.
    pub(crate) fn ended_runs(&self) -> u64 {
        self.0.ended_runs.load(Ordering::Acquire)
    }

    /// How long the server may be silent before a connection is given up.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.0.answer_timeout
    }

    /// Whether a pooler stands in between.
    pub(crate) fn is_pooled(&self) -> bool {
        self.0.pooled
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Lets whoever has or waits for a connection finish, then closes all. Later calls fail as closed.
    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let all = u32::try_from(self.0.size).unwrap_or(u32::MAX);
        // Permits are given in the order of asking, so these come after all that were asked for before. If they cannot
        // be had, another close was here first.
        let turn = self.0.permits.acquire_many(all).await;
        self.0.permits.close();
        drop(turn);
        let idle = std::mem::take(&mut *self.lock());
        for Idle { session, .. } in idle {
            if let Err(error) = session.close().await {
                tracing::debug!(%error, "a connection was gone before it was closed");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use, outside of any transaction.
pub(crate) struct PooledConnection {
    session: Option<Session>,
    pool: Pool,
    since: Instant,
    /// Whether others wait for it; a task's own connection is closed when the task lets go.
    permit: Option<OwnedSemaphorePermit>,
}

impl PooledConnection {
    fn new(session: Session, pool: Pool, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { session: Some(session), pool, since: Instant::now(), permit }
    }

    /// The run of the server that every statement of the connection reaches.
    pub(crate) fn run(&self) -> Option<&ServerRun> {
        self.session.as_ref().and_then(Session::run)
    }

    /// Whether the connection can be used, as far as can be told: it reaches the last run of the server, its last statement
    /// was answered, and if it has rested since, the server is still there.
    pub(crate) async fn is_alive(&mut self) -> bool {
        if self.pool.is_past(self.run()) {
            return false;
        }
        if self.session().is_usable() && self.since.elapsed() > RESTED {
            let max_wait = self.pool.0.timeout;
            // One that does not come leaves it unusable.
            let _ = timeout(max_wait, self.session().is_alive()).await;
            self.look();
        }
        self.session().is_usable()
    }

    /// Runs one statement to its end: an error that comes with the commit, after the rows, is seen too. If there is no
    /// answer in time, the connection is given up.
    pub(crate) async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let max_wait = self.pool.answer_timeout();
        let result = timeout(max_wait, self.session().fetch_all(query)).await;
        self.look();
        result.unwrap_or_else(|_| Err(no_answer(max_wait)))
    }

    /// Makes ready for one statement, which then runs on [`PooledConnection::connection`] and whose end is told by [`PooledConnection::end`]. If
    /// that does not come, the connection is closed.
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

    /// Ends the statement, which failed with `error` if there is one. Gives the error of the commit.
    pub(crate) async fn end(&mut self, error: Option<&sqlx::Error>) -> Result<(), sqlx::Error> {
        let max_wait = self.pool.answer_timeout();
        let ended = timeout(max_wait, self.session().end(error)).await;
        self.look();
        ended.unwrap_or_else(|_| Err(no_answer(max_wait)))
    }

    /// Hands the connection out, to whoever says by [`PooledConnection::returned`] that it can be used again.
    pub(crate) fn lend(&mut self) -> &mut PgConnection {
        self.session().lend()
    }

    /// The connection that was handed out, for a look.
    pub(crate) fn connection_ref(&self) -> &PgConnection {
        self.session.as_ref().expect("it is there until the drop").connection_ref()
    }

    /// Whether the connection that was handed out is as usable as before.
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
            // Most likely the server is gone or has started anew, and the idle connections are as dead as this one.
            self.pool.lock().clear();
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && session.is_usable()
            && self.permit.is_some()
        {
            self.pool.lock().push_back(Idle { session, since: self.since });
        }
    }
}

/// The statements that read events, and values for them, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![("IS_IT_STILL_OURS", IS_IT_STILL_OURS, "")]
}
