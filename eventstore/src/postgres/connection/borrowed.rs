//! Connections used by the caller's own code: session state is cleaned up before they are returned to the pool.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::postgres::{PgRow, PgTransactionManager};
use sqlx::{Connection, PgConnection};
use sqlx_core::transaction::TransactionManager;

use crate::postgres::connection::pool::PooledConnection;
use crate::postgres::fault::{answer_within, is_answer};

/// Ends open transactions and resets what outlives a transaction: cursors, roles, settings, channels, locks and temporary
/// tables. Prepared statements stay, as sqlx keeps them.
macro_rules! forget {
    () => {
        "ROLLBACK;
         CLOSE ALL;
         SET SESSION AUTHORIZATION DEFAULT;
         RESET ALL;
         UNLISTEN *;
         SELECT pg_advisory_unlock_all();
         DISCARD TEMP"
    };
}

const ROLL_BACK_AND_FORGET: &str = forget!();

/// The same where no transaction should be open: a rollback without one would log a warning on the server.
const FORGET: &str = concat!("BEGIN;", forget!());

/// How long cleaning a connection may take. A connection that is still running a cancelled statement, or still sending
/// rows, is closed after that.
const CLEAN_WITHIN: Duration = Duration::from_secs(1);

/// How often cleaning is tried. The answer to a cancelled statement may arrive as an error of the cleaning statement.
const ATTEMPTS: usize = 3;

/// A borrowed connection. Dropping it cleans it in the background and returns it; outside of a runtime, or if it cannot be
/// cleaned, it is closed, which rolls back too.
pub(crate) struct BorrowedConnection {
    connection: Option<PooledConnection>,
    /// Whether a transaction should be open.
    inside: bool,
}

impl BorrowedConnection {
    /// Borrows a connection without an open transaction.
    pub(crate) fn new(mut connection: PooledConnection) -> Self {
        // From now on it is closed on drop, unless it is cleaned.
        connection.borrow();
        Self { connection: Some(connection), inside: false }
    }

    /// Begins a transaction with `statements`, the first of which is `BEGIN`. sqlx tracks it, so that a nested `begin`
    /// makes a savepoint.
    pub(crate) async fn begin(&mut self, statements: sqlx::SqlStr) -> Result<(), sqlx::Error> {
        self.inside = true;
        let max_wait = self.answer_timeout();
        answer_within(max_wait, PgTransactionManager::begin(self, Some(statements))).await
    }

    /// Runs statements of the store, without values.
    pub(crate) async fn run(&mut self, statements: &'static str) -> Result<Vec<PgRow>, sqlx::Error> {
        let max_wait = self.answer_timeout();
        answer_within(max_wait, sqlx::raw_sql(statements).fetch_all(&mut **self)).await
    }

    /// How long the server may take for them.
    fn answer_timeout(&self) -> Duration {
        self.connection.as_ref().expect("it is there until the drop").answer_timeout()
    }

    /// Marks the transaction as ended.
    pub(crate) fn ended(&mut self) {
        self.inside = false;
    }

    /// Closes it after a failed `BEGIN`, unless the server has answered with an error.
    pub(crate) fn lost(mut self, error: &sqlx::Error) {
        if let Some(mut connection) = self.connection.take() {
            connection.returned(is_answer(error));
        }
    }

    /// Rolls back the open transaction and cleans up now.
    pub(crate) async fn return_to_pool(mut self) -> Result<(), sqlx::Error> {
        match self.connection.take() {
            Some(connection) => clean(connection, self.inside).await,
            None => Ok(()),
        }
    }
}

impl Deref for BorrowedConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is there until the drop").connection_ref()
    }
}

impl DerefMut for BorrowedConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is there until the drop").borrow()
    }
}

impl Drop for BorrowedConnection {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let inside = self.inside;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = clean(connection, inside).await {
                    tracing::debug!(%error, "a connection that could not be cleaned and is closed");
                }
            });
        }
    }
}

async fn clean(mut connection: PooledConnection, inside: bool) -> Result<(), sqlx::Error> {
    let Ok(cleaned) = tokio::time::timeout(CLEAN_WITHIN, try_to_clean(connection.borrow(), inside)).await else {
        return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    };
    match &cleaned {
        Ok(()) => connection.returned(true),
        // It was answered, but is not clean.
        Err(error) if is_answer(error) => {}
        Err(_) => connection.returned(false),
    }
    cleaned
}

async fn try_to_clean(connection: &mut PgConnection, mut inside: bool) -> Result<(), sqlx::Error> {
    for _ in 1..ATTEMPTS {
        match sweep(connection, inside).await {
            // The error belongs to an earlier statement, or the connection is inside of a failed transaction.
            Err(error) if is_answer(&error) => inside = true,
            other => return other,
        }
    }
    sweep(connection, inside).await
}

async fn sweep(connection: &mut PgConnection, mut inside: bool) -> Result<(), sqlx::Error> {
    if connection.is_in_transaction() {
        // sqlx counts a transaction as open even after our own COMMIT. Only its own rollback resets that.
        if !inside {
            sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
        }
        while connection.is_in_transaction() {
            PgTransactionManager::rollback(connection).await?;
        }
        inside = false;
    }
    sqlx::raw_sql(if inside { ROLL_BACK_AND_FORGET } else { FORGET }).execute(connection).await?;
    Ok(())
}
