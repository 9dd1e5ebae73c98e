//! The connection of a transaction, for the user's own SQL.

use std::fmt;

use annals_eventstore::{BackendError, DatabaseError, Invalid};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::column::{ColumnType, ColumnValue};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::error::ProjectionError;
use crate::reads::{QueryValue, checked};

/// The transaction in which a [`TransactionProjection`](crate::TransactionProjection) writes. It is ended by the runner alone.
///
/// [`execute`](ProjectionTransaction::execute) runs a text that is the same on both databases. For anything else there is the
/// connection of sqlx: `sqlite` and `postgres`, of which one exists at a time. A method of the other is an error, which
/// stops the projection.
pub struct ProjectionTransaction<'a>(Connection<'a>);

/// The connection, and the database that it is one of.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) enum Connection<'a> {
    #[cfg(feature = "sqlite")]
    Sqlite(&'a annals_eventstore::SqliteDatabase, &'a mut sqlx::SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(&'a annals_eventstore::PostgresDatabase, &'a mut sqlx::PgConnection),
}

/// There is none without a database.
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
pub(crate) struct Connection<'a>(std::convert::Infallible, std::marker::PhantomData<&'a ()>);

impl<'a> ProjectionTransaction<'a> {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn over(connection: Connection<'a>) -> Self {
        Self(connection)
    }

    /// Runs one statement and gives the number of rows that it has changed. `$1` is the first of `values`, which may be of any
    /// [`Column`](crate::Column) type but JSON.
    ///
    /// # Errors
    /// What the database said; `Failed` also for a value that no column can hold. Hand it on by `?`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the statement was run; the transaction can still be used.
    pub async fn execute(&mut self, sql: &'static str, values: &[&dyn QueryValue]) -> Result<u64, DatabaseError> {
        let refused = |at: usize, problem: String| DatabaseError::Failed {
            source: BackendError::new(Invalid::new(format!("${at}"), problem, "give a value that a column can hold")),
        };
        let values = checked(values).map_err(|(at, problem)| refused(at, problem))?;
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        return self.run(sql, &values).await;
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        match (self.0.0, sql, values) {}
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    async fn run(&mut self, sql: &'static str, values: &[(ColumnType, ColumnValue)]) -> Result<u64, DatabaseError> {
        if let Some(at) = values.iter().position(|(column_type, _)| *column_type == ColumnType::Json) {
            let why = Invalid::new(format!("${}", at + 1), "is JSON", "run the statement on the connection of sqlx");
            return Err(DatabaseError::Failed { source: BackendError::new(why) });
        }
        match &mut self.0 {
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(database, connection) => {
                crate::database::sqlite::execute(database, connection, sql, values).await
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(database, connection) => {
                crate::database::postgres::execute(database, connection, sql, values).await
            }
        }
    }

    /// The connection, if the read models are in a SQLite file.
    ///
    /// # Errors
    /// [`ProjectionError`] if they are not.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&mut self) -> Result<&mut sqlx::SqliteConnection, ProjectionError> {
        match &mut self.0 {
            Connection::Sqlite(_, connection) => Ok(connection),
            #[cfg(feature = "postgres")]
            Connection::Postgres(..) => Err(elsewhere("PostgreSQL", "postgres")),
        }
    }

    /// The connection, if the read models are in a PostgreSQL database. Through a pooler its statements must be unnamed, which is
    /// `persistent(false)` of sqlx; [`execute`](ProjectionTransaction::execute) sees to that itself.
    ///
    /// # Errors
    /// [`ProjectionError`] if they are not.
    #[cfg(feature = "postgres")]
    pub fn postgres(&mut self) -> Result<&mut sqlx::PgConnection, ProjectionError> {
        match &mut self.0 {
            Connection::Postgres(_, connection) => Ok(connection),
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(..) => Err(elsewhere("SQLite", "sqlite")),
        }
    }

    /// Whether the read models are in a PostgreSQL database, for a text that differs.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        #[cfg(feature = "postgres")]
        return matches!(self.0, Connection::Postgres(..));
        #[cfg(not(feature = "postgres"))]
        false
    }
}

#[cfg(all(feature = "sqlite", feature = "postgres"))]
fn elsewhere(database: &str, method: &str) -> ProjectionError {
    ProjectionError::new(format!("the read models are in {database}; ask for the connection by `{method}`"))
}

impl fmt::Debug for ProjectionTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionTransaction").field("is_postgres", &self.is_postgres()).finish_non_exhaustive()
    }
}
