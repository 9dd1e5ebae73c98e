//! Connections: a bounded number, handed out in the order of asking.
//!
//! Not sqlx's pool: that one asks the server for a sign of life whenever a connection is given back, and gives back
//! connections whose owner was cancelled between BEGIN and its answer. Here a connection goes back only if its last
//! statement has been answered; any other is closed, which rolls back what was open.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{PgConnection, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::fault::NoConnection;
pub(super) use super::session::Query;
use super::session::Session;
use crate::error::BackendError;
use crate::position::Incarnation;

/// Asked on every new connection: is it still the store that was opened, and would the next position be beyond its
/// log? The log is seen as of the statement's beginning and the sequence later, so new events cannot deceive it.
const IS_IT_STILL_OURS: &str = "
    SELECT (SELECT incarnation FROM annals.store ORDER BY only_row) AS incarnation,
           (SELECT coalesce(max(position), 0) FROM annals.events) AS head,
           (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM annals.events_position) AS last
    ORDER BY 1
";

/// The connections of one handle. Clones share them.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    connect: PgConnectOptions,
    size: usize,
    timeout: Duration,
    pooled: bool,
    /// The store that was opened; connections made before it is known are not checked.
    store: OnceLock<Incarnation>,
    closed: AtomicBool,
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<Session>>,
}

impl Pool {
    pub(super) fn new(connect: PgConnectOptions, size: usize, timeout: Duration, pooled: bool) -> Self {
        Self(Arc::new(Inner {
            connect,
            size,
            timeout,
            pooled,
            store: OnceLock::new(),
            closed: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(VecDeque::with_capacity(size)),
        }))
    }

    /// Says which store every later connection must find.
    pub(super) fn expect(&self, store: Incarnation) {
        self.0.store.get_or_init(|| store);
    }

    /// Takes a connection; it goes back when it is dropped.
    ///
    /// Dropping the future takes nothing.
    pub(super) async fn take(&self) -> Result<Held, NoConnection> {
        if self.is_closed() {
            return Err(NoConnection::Closed);
        }
        let waited = tokio::time::timeout(self.0.timeout, self.take_in_turn()).await;
        waited.unwrap_or_else(|_| {
            let what = format!("no connection was to be had within {:?}", self.0.timeout);
            Err(NoConnection::Unavailable(BackendError::new(what)))
        })
    }

    async fn take_in_turn(&self) -> Result<Held, NoConnection> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.map_err(|_| NoConnection::Closed)?;
        let idle = self.lock().pop_back();
        let session = match idle {
            Some(session) => session,
            None => self.connect().await?,
        };
        Ok(Held { session: Some(session), pool: self.clone(), _permit: permit })
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
        Ok(session)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Lets whoever has or waits for a connection finish, then closes all. Later calls fail as closed.
    pub(super) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let all = u32::try_from(self.0.size).unwrap_or(u32::MAX);
        // Permits are given in the order of asking, so these come after all that were asked for before. If they cannot
        // be had, another close was here first.
        let turn = self.0.permits.acquire_many(all).await;
        self.0.permits.close();
        drop(turn);
        let idle = std::mem::take(&mut *self.lock());
        for session in idle {
            if let Err(error) = session.close().await {
                tracing::debug!(%error, "a connection was gone before it was closed");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Session>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use, outside of any transaction.
pub(super) struct Held {
    session: Option<Session>,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    /// Runs one statement to its end: an error that comes with the commit, after the rows, is seen too.
    pub(super) async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let result = self.session().fetch_all(query).await;
        self.look();
        result
    }

    /// Makes ready for one statement, which then runs on [`Held::connection`] and whose end is told by [`Held::end`]. If
    /// that does not come, the connection is closed.
    pub(super) async fn begin<'q>(&mut self, query: Query<'q>) -> Result<Query<'q>, sqlx::Error> {
        let begun = self.session().begin(query).await;
        if begun.is_err() {
            self.look();
        }
        begun
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.session().connection()
    }

    /// Ends the statement, which failed with `error` if there is one. Gives the error of the commit.
    pub(super) async fn end(&mut self, error: Option<&sqlx::Error>) -> Result<(), sqlx::Error> {
        let ended = self.session().end(error).await;
        self.look();
        ended
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("it is there until the drop")
    }

    fn look(&mut self) {
        if !self.session().is_usable() {
            // Most likely the server is gone or has started anew, and the idle connections are as dead as this one.
            self.pool.lock().clear();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && session.is_usable()
        {
            self.pool.lock().push_back(session);
        }
    }
}
