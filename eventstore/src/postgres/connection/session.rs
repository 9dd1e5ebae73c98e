//! One connection: straight to the server, or through a pooler that lends server connections.
//!
//! A pooler in transaction mode keeps one server connection for a client only from the beginning of a transaction to
//! its end. sqlx sends the text of a statement, waits for the answer, and then sends the values: outside of a
//! transaction the two may go over different server connections, and the values of one client to the statement of
//! another (tried: four of five answers were another client's). So through a pooler every statement is without a name,
//! and runs in a transaction of its own.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres, Row};

use crate::postgres::connection::planner::by_index;
use crate::postgres::connection::server_run::{ServerRun, server_run};
use crate::postgres::fault::{NotSent, is_answer};

pub(crate) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// Begins, and says which run of which server the pooler has given: it may have connected anew in between. Statements of
/// one text without values need no prepared statement, so these go in one message.
const BEGIN: &str = concat!(
    "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    ",
    by_index!(),
    ";
    SELECT ",
    server_run!(),
    "
    ORDER BY 1
"
);

/// A connection and what is known of it.
pub(crate) struct Session {
    connection: PgConnection,
    /// How long a pooler may take to lend a server connection, if there is one.
    pooled: Option<Duration>,
    /// The run of the server that every statement reaches, once it is known.
    run: Option<ServerRun>,
    answered: bool,
}

impl Session {
    /// Connects; `pooled` says how long a pooler may take to lend a server connection, if there is one.
    pub(crate) async fn connect(options: &PgConnectOptions, pooled: Option<Duration>) -> Result<Self, sqlx::Error> {
        let connection = options.connect().await?;
        Ok(Self { connection, pooled, run: None, answered: true })
    }

    /// Runs one statement to its end: an error that comes with the commit, after the rows, is seen too.
    pub(crate) async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = self.begin(query).await?;
        let result = query.fetch_all(self.connection()).await;
        self.end(result.as_ref().err()).await?;
        result
    }

    /// Makes ready for one statement, which then runs on [`Session::connection`] and whose end is told by
    /// [`Session::end`].
    pub(crate) async fn begin<'q>(&mut self, query: Query<'q>) -> Result<Query<'q>, sqlx::Error> {
        self.begin_plain().await?;
        Ok(if self.pooled.is_some() { query.persistent(false) } else { query })
    }

    /// The same for a statement without values.
    pub(crate) async fn begin_plain(&mut self) -> Result<(), sqlx::Error> {
        self.answered = false;
        let Some(max_wait) = self.pooled else { return Ok(()) };
        let begun = sqlx::raw_sql(BEGIN).fetch_all(&mut self.connection);
        let rows = match tokio::time::timeout(max_wait, begun).await {
            Ok(rows) => rows.map_err(NotSent::because)?,
            Err(_) => {
                let why = format!("the pooler lent no server connection within {max_wait:?}");
                return Err(NotSent::because(why));
            }
        };
        let row = rows.first().ok_or_else(|| NotSent::because(sqlx::Error::RowNotFound))?;
        let run = ServerRun::from(row.try_get::<String, _>(0).map_err(NotSent::because)?);
        if self.run.get_or_insert_with(|| run.clone()) != &run {
            // Without a pooler the connection would be gone; whoever connects anew looks whether the store is the same.
            return Err(NotSent::because("the pooler has connected to another server, or the server has started anew"));
        }
        Ok(())
    }

    /// The run of the server that every statement of the connection reaches: without a pooler it ends with it.
    pub(crate) fn run(&self) -> Option<&ServerRun> {
        self.run.as_ref()
    }

    pub(crate) fn is_of(&mut self, run: ServerRun) {
        self.run = Some(run);
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Ends the statement that was begun, which failed with `error` if there is one. Gives the error of the commit.
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

    /// Hands the connection out; it is unusable until [`Session::returned`] says otherwise.
    pub(crate) fn lend(&mut self) -> &mut PgConnection {
        self.answered = false;
        &mut self.connection
    }

    pub(crate) fn connection_ref(&self) -> &PgConnection {
        &self.connection
    }

    pub(crate) fn returned(&mut self, usable: bool) {
        self.answered = usable;
    }

    /// Asks for a sign of life.
    pub(crate) async fn is_alive(&mut self) -> bool {
        self.answered = false;
        self.answered = self.connection.ping().await.is_ok();
        self.answered
    }

    /// Whether every statement has been answered to its end, so that the next one may follow.
    pub(crate) fn is_usable(&self) -> bool {
        self.answered
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}
