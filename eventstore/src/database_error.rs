//! Why a statement on a database failed, alike for SQLite and PostgreSQL.

use std::time::Duration;

use crate::error::{BackendError, ErrorFamily, Holder, OpenError};

/// Why a statement, a transaction or a connection of a database failed. Nothing was stored, unless it is
/// [`DatabaseError::OutcomeUnknown`].
///
/// `fault` of a database creates one from an error of your own statement.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// Another process, or an open transaction or unit of work of this one, held the write lock of a SQLite file all the
    /// time that was allowed. Try again later.
    #[error("{holder} held the database's write lock for more than {waited:?}")]
    Busy {
        /// How long was waited.
        waited: Duration,
        /// Who held it.
        holder: Holder,
    },
    /// The database could not be reached, or ended the transaction: a lost connection, a deadlock, a timeout. Begin the
    /// transaction again.
    #[error("the database could not be reached, or ended the transaction; begin it again")]
    Unavailable {
        /// The error of the database.
        source: BackendError,
    },
    /// The disk, or the size that the database may have, is full. Make room; no restart is needed.
    #[error("the disk is full")]
    StorageFull {
        /// The error of the database.
        source: BackendError,
    },
    /// The database may not be written. Correct the permissions, or open it for writing.
    #[error("the database is read-only")]
    ReadOnly {
        /// The error of the database.
        source: BackendError,
    },
    /// The database is damaged. Restore it from a backup.
    #[error("the database is damaged; restore it from a backup")]
    Damaged {
        /// The error of the database.
        source: BackendError,
    },
    /// The name of a SQLite file no longer means the file that was opened, the file has a second name, or its journal was
    /// removed. Do what the error says.
    #[error("the database file is not as it was opened: {what}; {remedy}")]
    FileReplaced {
        /// The damage.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A constraint or a trigger of the schema refused the rows. Fix the rows that the statement wrote.
    #[error("the schema refused the rows")]
    Refused {
        /// The error of the database.
        source: BackendError,
    },
    /// The file or the connection failed while a commit was under way, so it may have happened. Look whether the rows
    /// are there before you write them again.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown {
        /// The error of the database.
        source: BackendError,
    },
    /// Anything else, such as a mistake in the SQL. The source has the details.
    #[error("the database could not run the statement")]
    Failed {
        /// The error of the database.
        source: BackendError,
    },
    /// The handle was closed. Open the database again.
    #[error("the database handle is closed; open the database again")]
    Closed,
}

impl DatabaseError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Busy { .. } | Self::Unavailable { .. } | Self::StorageFull { .. } => ErrorFamily::Transient,
            Self::ReadOnly { .. } | Self::Damaged { .. } | Self::FileReplaced { .. } => ErrorFamily::Broken,
            Self::Refused { .. } | Self::Failed { .. } | Self::Closed => ErrorFamily::Invalid,
            Self::OutcomeUnknown { .. } => ErrorFamily::OutcomeUnknown,
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }

    /// The same, for an error while the database `path` was opened or migrated. An unknown outcome is transient there, as
    /// the next attempt reads what is done already.
    #[must_use]
    pub fn into_open(self, path: impl Into<String>) -> OpenError {
        let path = path.into();
        match self {
            Self::StorageFull { source } => OpenError::StorageFull { path, source },
            Self::ReadOnly { source } => OpenError::ReadOnly { path, reason: source.to_string() },
            Self::Damaged { source } => OpenError::Damaged { path, what: source.to_string() },
            Self::FileReplaced { what, remedy } => OpenError::Unsound { path, what, fix: remedy },
            Self::Refused { source } | Self::Failed { source } => OpenError::Refused { path, source },
            Self::Unavailable { source } | Self::OutcomeUnknown { source } => OpenError::Unavailable { path, source },
            Self::Busy { .. } => OpenError::Unavailable { path, source: BackendError::new(self) },
            Self::Closed => OpenError::Closed,
        }
    }
}

/// What a database has answered, with its code, or why nothing was sent; `None` for any other error. sqlx would say it twice, as the error and as its
/// source, and PostgreSQL's with a line number of the server's own source.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn answer(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<String> {
    let shared = || error.downcast_ref::<std::sync::Arc<sqlx::Error>>().map(|error| &**error);
    let error = error.downcast_ref::<sqlx::Error>().or_else(shared)?;
    if let sqlx::Error::AnyDriverError(own) = error {
        // One of ours inside, which sqlx would call an "error in Any driver mapping".
        return Some(own.to_string());
    }
    let answer = error.as_database_error()?;
    #[cfg(feature = "postgres")]
    if let Some(answer) = answer.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return Some(format!("{} (SQLSTATE {})", answer.message(), answer.code()));
    }
    Some(answer.to_string())
}
