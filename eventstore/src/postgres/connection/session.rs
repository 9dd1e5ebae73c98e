//! One connection: to the server itself, or through a pooler that shares server connections.
//!
//! A pooler in transaction mode assigns a server connection to a client only for the duration of a transaction. sqlx sends
//! the text of a statement, waits for the answer, and then sends the values. Outside of a transaction the two may use
//! different server connections, and the values of one client may reach the statement of another (tested: four of five
//! answers were another client's). So through a pooler every statement is unnamed and runs in its own transaction.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres, Row};

use crate::postgres::connection::planner::by_index;
use crate::postgres::connection::server_run::{ServerRun, server_run};
use crate::postgres::fault::{NotSent, is_answer};

pub(crate) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// How often the server looks, at work or while it waits for a lock, whether the client is still there. Otherwise a backend whose client
/// has given up before a locked table would stay until the lock is gone.
macro_rules! check_client {
    () => {
        "client_connection_check_interval = '100ms'"
    };
}
pub(crate) use check_client;

/// The same for a new connection.
pub(crate) const CHECK_CLIENT: (&str, &str) = ("client_connection_check_interval", "100ms");

/// Begins, and reads which server run the pooler's connection belongs to: it may have reconnected. Statements without
/// values need no prepared statement, so both are sent in one message.
macro_rules! begin {
    ($($also:expr),*) => {
        concat!(
            "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    ",
            by_index!(),
            $($also,)*
            ";
    SELECT ",
            server_run!(),
            "
    ORDER BY 1
"
        )
    };
}

const BEGIN: &str = begin!();
const BEGIN_AND_CHECK_CLIENT: &str = begin!("; SET LOCAL ", check_client!());

/// A connection and its state.
pub(crate) struct Session {
    connection: PgConnection,
    /// How long a pooler may take to assign a server connection, if there is a pooler, and whether transactions set `check_client!`.
    pooled: Option<(Duration, bool)>,
    /// The run of the server of every statement, once it is known.
    run: Option<ServerRun>,
    answered: bool,
    /// Whether further rows of the statement that is not answered completely are not wanted.
    cut: bool,
}

impl Session {
    /// Connects; `pooled` is how long a pooler may take to assign a server connection, if there is a pooler, and whether transactions set
    /// `check_client!`.
    pub(crate) async fn connect(
        options: &PgConnectOptions,
        pooled: Option<(Duration, bool)>,
    ) -> Result<Self, sqlx::Error> {
        let connection = options.connect().await?;
        Ok(Self { connection, pooled, run: None, answered: true, cut: false })
    }

    /// Runs one statement to its end: an error of the commit, after the rows, is returned too.
    pub(crate) async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = self.begin(query).await?;
        let result = query.fetch_all(self.connection()).await;
        self.end(result.as_ref().err()).await?;
        result
    }

    /// Prepares for one statement, to be run on [`Session::connection`] and completed by [`Session::end`].
    pub(crate) async fn begin<'q>(&mut self, query: Query<'q>) -> Result<Query<'q>, sqlx::Error> {
        self.begin_plain().await?;
        Ok(if self.pooled.is_some() { query.persistent(false) } else { query })
    }

    /// The same for a statement without values.
    pub(crate) async fn begin_plain(&mut self) -> Result<(), sqlx::Error> {
        self.answered = false;
        let Some((max_wait, checks_client)) = self.pooled else { return Ok(()) };
        let begun =
            sqlx::raw_sql(if checks_client { BEGIN_AND_CHECK_CLIENT } else { BEGIN }).fetch_all(&mut self.connection);
        let rows = match tokio::time::timeout(max_wait, begun).await {
            Ok(rows) => rows.map_err(NotSent::because)?,
            Err(_) => {
                let why = format!("the pooler assigned no server connection within {max_wait:?}");
                return Err(NotSent::because(why));
            }
        };
        let row = rows.first().ok_or_else(|| NotSent::because(sqlx::Error::RowNotFound))?;
        let run = ServerRun::from(row.try_get::<String, _>(0).map_err(NotSent::because)?);
        if self.run.get_or_insert_with(|| run.clone()) != &run {
            // Without a pooler the connection would be lost; each new connection checks that the store is the same.
            return Err(NotSent::because("the pooler has connected to another server, or the server has restarted"));
        }
        Ok(())
    }

    /// The run of the server of every statement on the connection; without a pooler the connection ends with it.
    pub(crate) fn run(&self) -> Option<&ServerRun> {
        self.run.as_ref()
    }

    pub(crate) fn is_of(&mut self, run: ServerRun) {
        self.run = Some(run);
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Ends the statement that was begun, which failed with `error` if there is one. Returns the error of the commit.
    pub(crate) async fn end(&mut self, error: Option<&sqlx::Error>) -> Result<(), sqlx::Error> {
        self.answered = error.is_none_or(is_answer);
        if self.pooled.is_none() || !self.answered {
            return Ok(());
        }
        let end = if error.is_none() { "COMMIT" } else { "ROLLBACK" };
        self.answered = false;
        let ended = sqlx::raw_sql(end).execute(&mut self.connection).await.map(|_| ());
        self.answered = ended.as_ref().err().is_none_or(is_answer);
        if error.is_none() { ended } else { Ok(()) }
    }

    /// Hands the connection to a borrower; it is unusable until [`Session::returned`] reports that it is usable.
    pub(crate) fn borrow(&mut self) -> &mut PgConnection {
        self.answered = false;
        &mut self.connection
    }

    pub(crate) fn connection_ref(&self) -> &PgConnection {
        &self.connection
    }

    pub(crate) fn returned(&mut self, usable: bool) {
        self.answered = usable;
    }

    pub(crate) fn cut(&mut self) {
        self.cut = true;
    }

    /// Whether the server ends the statement by itself when the connection is closed.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Pings the server.
    pub(crate) async fn is_alive(&mut self) -> bool {
        self.answered = false;
        self.answered = self.connection.ping().await.is_ok();
        self.answered
    }

    /// Whether every statement has been answered completely, so that the next one may be sent.
    pub(crate) fn is_usable(&self) -> bool {
        self.answered
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}
