//! Connections in the hands of code that is not ours: whatever it leaves behind is cleaned up before they go back.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::postgres::PgTransactionManager;
use sqlx::{Connection, PgConnection};
use sqlx_core::transaction::TransactionManager;

use crate::postgres::connection::pool::PooledConnection;
use crate::postgres::fault::is_answer;

/// Ends what is open and forgets what outlives a transaction: cursors, roles, settings, channels, locks and tables of the
/// session. Prepared statements stay, as sqlx remembers them.
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

/// The same where no transaction should be open: a rollback of nothing would be a warning in the server's log.
const FORGET: &str = concat!("BEGIN;", forget!());

/// How long a connection may take to be cleaned. One whose statement was given up and still runs, or that still sends
/// rows, is closed then.
const CLEAN_WITHIN: Duration = Duration::from_secs(1);

/// How often cleaning begins again. What a statement that was given up has answered shows as an error of ours.
const ATTEMPTS: usize = 3;

/// A connection that is borrowed. Dropping it cleans it in the background and gives it back; outside of a runtime, or if it
/// cannot be cleaned, it is closed, which rolls back too.
pub(crate) struct BorrowedConnection {
    held: Option<PooledConnection>,
    /// Whether it should be inside of a transaction.
    inside: bool,
}

impl BorrowedConnection {
    /// Lends a connection that is outside of any transaction.
    pub(crate) fn new(mut held: PooledConnection) -> Self {
        // From now on it is closed, unless it is cleaned.
        held.lend();
        Self { held: Some(held), inside: false }
    }

    /// Begins a transaction with `statements`, the first of which is `BEGIN`. sqlx knows of it, so that beginning
    /// another inside makes a savepoint.
    pub(crate) async fn begin(&mut self, statements: sqlx::SqlStr) -> Result<(), sqlx::Error> {
        self.inside = true;
        PgTransactionManager::begin(self, Some(statements)).await
    }

    /// Says that the transaction has ended.
    pub(crate) fn ended(&mut self) {
        self.inside = false;
    }

    /// Closes it, as its connection is lost.
    pub(crate) fn lost(mut self, error: &sqlx::Error) {
        if let Some(mut held) = self.held.take() {
            held.returned(is_answer(error));
        }
    }

    /// Rolls back what is open and cleans up, now.
    pub(crate) async fn give_back(mut self) -> Result<(), sqlx::Error> {
        match self.held.take() {
            Some(held) => clean(held, self.inside).await,
            None => Ok(()),
        }
    }
}

impl Deref for BorrowedConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.held.as_ref().expect("it is there until the drop").connection_ref()
    }
}

impl DerefMut for BorrowedConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.held.as_mut().expect("it is there until the drop").lend()
    }
}

impl Drop for BorrowedConnection {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let inside = self.inside;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = clean(held, inside).await {
                    tracing::debug!(%error, "a connection that cannot be cleaned is closed");
                }
            });
        }
    }
}

async fn clean(mut held: PooledConnection, inside: bool) -> Result<(), sqlx::Error> {
    let Ok(cleaned) = tokio::time::timeout(CLEAN_WITHIN, try_to_clean(held.lend(), inside)).await else {
        return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    };
    match &cleaned {
        Ok(()) => held.returned(true),
        // It was answered, but is not clean.
        Err(error) if is_answer(error) => {}
        Err(_) => held.returned(false),
    }
    cleaned
}

async fn try_to_clean(connection: &mut PgConnection, mut inside: bool) -> Result<(), sqlx::Error> {
    for _ in 1..ATTEMPTS {
        match sweep(connection, inside).await {
            // Either it belongs to a statement before, or the connection is inside of a failed transaction after all.
            Err(error) if is_answer(&error) => inside = true,
            other => return other,
        }
    }
    sweep(connection, inside).await
}

async fn sweep(connection: &mut PgConnection, mut inside: bool) -> Result<(), sqlx::Error> {
    if connection.is_in_transaction() {
        // So sqlx believes, also after a commit of ours. Only a rollback of its own makes it think otherwise.
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
