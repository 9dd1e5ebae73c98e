//! What SQLite's result codes mean. Meaning is read from codes, never from message text.

use std::time::Duration;

use crate::database_error::DatabaseError;
use crate::error::{AppendError, BackendError, Holder, ReadError};
use crate::position::Position;
use crate::stream::StreamId;

impl DatabaseError {
    pub(crate) fn of(error: sqlx::Error, waited: Duration) -> Self {
        match result_code(&error) {
            Some(BUSY | LOCKED) => Self::Busy { waited, holder: Holder::OtherHandle },
            Some(FULL) => Self::StorageFull { source: BackendError::new(error) },
            Some(READONLY | PERM) => Self::ReadOnly { source: BackendError::new(error) },
            Some(CORRUPT | NOTADB) => Self::Damaged { source: BackendError::new(error) },
            Some(CONSTRAINT) => Self::Refused { source: BackendError::new(error) },
            Some(IOERR) => Self::OutcomeUnknown { source: BackendError::new(error) },
            _ => match error {
                // The worker thread ended in the middle of a statement.
                sqlx::Error::WorkerCrashed => Self::OutcomeUnknown { source: BackendError::new(error) },
                error => Self::Failed { source: BackendError::new(error) },
            },
        }
    }

    pub(crate) fn into_append(self, stream: impl FnOnce() -> StreamId) -> AppendError {
        match self {
            Self::Busy { waited, holder } => AppendError::Busy { waited, holder },
            Self::StorageFull { source } => AppendError::StorageFull { source },
            Self::ReadOnly { source } => AppendError::ReadOnly { reason: source.to_string() },
            Self::Damaged { source } => {
                AppendError::Broken { what: source.to_string(), remedy: "restore the file from a backup".to_owned() }
            }
            Self::FileReplaced { what, remedy } => AppendError::Broken { what, remedy },
            Self::Refused { source } => AppendError::Broken {
                what: format!("the schema refused a checked append: {source}"),
                remedy: "compare the file with a backup".to_owned(),
            },
            Self::OutcomeUnknown { source } => AppendError::OutcomeUnknown { stream: stream(), source },
            Self::Unavailable { source } | Self::Failed { source } => AppendError::Unavailable { source },
            Self::Closed => AppendError::Closed,
        }
    }

    pub(crate) fn into_read(self) -> ReadError {
        match self {
            Self::Closed => ReadError::Closed,
            Self::Damaged { source } => {
                ReadError::Damaged { position: Position::START, what: format!("the database file: {source}") }
            }
            Self::FileReplaced { what, remedy } => ReadError::Broken { what, remedy },
            Self::Unavailable { source } => ReadError::Unavailable { source },
            other => ReadError::Unavailable { source: BackendError::new(other) },
        }
    }
}

/// A mistake in the SQL, or a table that is not there.
pub(crate) const ERROR: i32 = 1;
pub(crate) const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
pub(crate) const READONLY: i32 = 8;
const IOERR: i32 = 10;
pub(crate) const CORRUPT: i32 = 11;
pub(crate) const FULL: i32 = 13;
pub(crate) const CANTOPEN: i32 = 14;
pub(crate) const CONSTRAINT: i32 = 19;
pub(crate) const NOTADB: i32 = 26;
const READONLY_DIRECTORY: i32 = READONLY | (6 << 8);
const COMMIT_HOOK: i32 = CONSTRAINT | (2 << 8);

/// The primary result code: the low byte of the extended one.
pub(crate) fn result_code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Whether a statement that failed so may work in another transaction: what is locked, full or fails to be read.
pub(crate) fn may_pass(error: &sqlx::Error) -> bool {
    matches!(result_code(error), Some(BUSY | LOCKED | FULL | IOERR)) || matches!(error, sqlx::Error::WorkerCrashed)
}

/// Whether the file's folder may not be written, so that the journal cannot be made.
pub(crate) fn is_about_the_folder(error: &sqlx::Error) -> bool {
    extended_code(error) == Some(READONLY_DIRECTORY)
}

/// Whether a constraint or trigger refused the rows.
pub(crate) fn is_refusal(error: &sqlx::Error) -> bool {
    result_code(error) == Some(CONSTRAINT) && !is_refused_commit(error)
}

/// Whether it was not the schema but this library, or the user's own hook, that refused the commit; it was rolled back.
pub(crate) fn is_refused_commit(error: &sqlx::Error) -> bool {
    extended_code(error) == Some(COMMIT_HOOK)
}
