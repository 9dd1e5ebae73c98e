//! What PostgreSQL's error codes mean. Meaning is read from codes, never from message text.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, TryStreamExt};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::database_error::DatabaseError;
use crate::error::{AppendError, BackendError, Invalid, ReadError};
use crate::position::{Incarnation, Position};
use crate::stream::StreamId;

/// Why no connection was available. Nothing was sent.
#[derive(Clone, Debug)]
pub(crate) enum NoConnection {
    /// The handle was closed.
    Closed,
    /// The server could not be reached, or all connections were busy until the timeout.
    Unavailable(BackendError),
    /// The database holds another incarnation of the store than the one that was opened.
    OtherIncarnation(Incarnation),
    /// The connection goes through a pooler, which does not support the call.
    Pooled,
    /// The server is a standby, which does not see the writers on the primary.
    Standby,
    /// The next position would not be after the end of the log, which readers have passed.
    SequenceBehind { last: i64, head: i64 },
}

const ON_STANDBY: &str = "a standby does not know whether a gap will be filled; read from the primary";

impl NoConnection {
    pub(crate) fn into_append(self) -> AppendError {
        match self {
            Self::Closed => AppendError::Closed,
            Self::Unavailable(source) => AppendError::Unavailable { source },
            Self::Standby => AppendError::Unavailable { source: BackendError::new(ON_STANDBY) },
            Self::Pooled => AppendError::Invalid(not_through_pooler()),
            Self::OtherIncarnation(_) => AppendError::Broken {
                what: "the database holds another incarnation of the store than the one that was opened".to_owned(),
                remedy: "open it again, and rebuild its readers".to_owned(),
            },
            Self::SequenceBehind { last, head } => AppendError::Broken {
                what: sequence_behind(last, head),
                remedy: format!("run `SELECT setval('annals.events_position', {head})`"),
            },
        }
    }

    pub(crate) fn into_database(self) -> DatabaseError {
        let broken = |what: String| DatabaseError::Failed { source: BackendError::new(what) };
        match self {
            Self::Closed => DatabaseError::Closed,
            Self::Unavailable(source) => DatabaseError::Unavailable { source },
            Self::Standby => DatabaseError::Unavailable { source: BackendError::new(ON_STANDBY) },
            Self::Pooled => DatabaseError::Failed { source: BackendError::new(not_through_pooler()) },
            Self::OtherIncarnation(_) => {
                broken("the database holds another incarnation of the store than the one that was opened".to_owned())
            }
            Self::SequenceBehind { last, head } => broken(sequence_behind(last, head)),
        }
    }

    pub(crate) fn into_read(self) -> ReadError {
        match self {
            Self::Closed => ReadError::Closed,
            Self::Unavailable(source) => ReadError::Unavailable { source },
            Self::Standby => ReadError::Unavailable { source: BackendError::new(ON_STANDBY) },
            Self::Pooled => ReadError::Invalid(not_through_pooler()),
            Self::OtherIncarnation(incarnation) => ReadError::StoreRewound { position: Position::START, incarnation },
            Self::SequenceBehind { last, head } => {
                ReadError::Damaged { position: Position::stored(head), what: sequence_behind(last, head) }
            }
        }
    }
}

/// The caller's own statements are named, and a pooler would leave them to other clients.
pub(crate) fn not_through_pooler() -> Invalid {
    Invalid::new(
        "pooled",
        "is set, and a pooler supports neither units of work nor statements outside of transactions",
        "open the database with the URL of the server itself",
    )
}

/// Why a statement was not sent, inside an error of sqlx.
#[derive(Debug, thiserror::Error)]
#[error("the statement was not sent: {0}")]
pub(crate) struct NotSent(BackendError);

impl NotSent {
    pub(crate) fn because(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
        sqlx::Error::AnyDriverError(Box::new(Self(BackendError::new(why))))
    }

    pub(crate) fn is(error: &sqlx::Error) -> bool {
        matches!(error, sqlx::Error::AnyDriverError(why) if why.is::<Self>())
    }
}

/// Waits no longer than `max_wait` for an answer of the server. The connection must be closed after that, as the answer may still come.
pub async fn answer_within<T>(
    max_wait: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(max_wait, answer).await.unwrap_or_else(|_| {
        let why = format!("the server gave no answer within {max_wait:?}");
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)))
    })
}

/// The next item of an answer. The timeout applies to each item, as a large answer may take long. An item that is ready needs no timer.
pub async fn next_within<T>(
    max_wait: Duration,
    answer: &mut BoxStream<'_, Result<T, sqlx::Error>>,
) -> Result<Option<T>, sqlx::Error> {
    match answer.try_next().now_or_never() {
        Some(next) => next,
        None => answer_within(max_wait, answer.try_next()).await,
    }
}

pub(crate) fn sequence_behind(last: i64, head: i64) -> String {
    format!("the sequence `annals.events_position` is at {last}, but the log ends at {head}")
}

/// The SQLSTATE of an error that the server has sent.
pub(crate) fn code(error: &sqlx::Error) -> Option<&str> {
    Some(refusal(error)?.code())
}

/// The error that the server has sent, unless it ended the connection.
fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    let refusal = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    matches!(refusal.severity(), PgSeverity::Error).then_some(refusal)
}

/// Whether the server has answered, so that the connection is as usable as before.
pub(crate) fn is_answer(error: &sqlx::Error) -> bool {
    refusal(error).is_some()
}

/// Whether the transaction was rolled back because another one was committed first: a duplicate key, a serialization
/// failure, a deadlock. Trying the same append again reads the facts.
pub(crate) fn has_lost_a_race(error: &sqlx::Error) -> bool {
    matches!(code(error), Some("23505" | "40001" | "40P01"))
}

/// Whether another open transaction blocked the statement until the timeout. Nothing is stored.
pub(crate) fn was_blocked(error: &sqlx::Error) -> bool {
    code(error) == Some("55P03")
}

/// Whether the table has refused an event that would leave a gap between versions: its stream is shorter than expected.
pub(crate) fn would_leave_a_gap(error: &sqlx::Error) -> bool {
    code(error) == Some("23000")
}

/// Whether the rows of the statement were rejected, so that one of its appends is the cause.
pub(crate) fn is_about_rows(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

/// The SQLSTATE of a statement in a transaction that an earlier statement has aborted.
const ABORTED: &str = "25P02";

/// Whether an earlier statement of the transaction, one of the caller's own, has aborted it.
pub(crate) fn is_aborted(error: &sqlx::Error) -> bool {
    code(error) == Some(ABORTED)
}

/// The error for that case. The same statements may always fail, so it is not transient.
pub(crate) fn aborted() -> Invalid {
    Invalid::new(
        "transaction",
        "was aborted by an earlier failed statement, so nothing of it will be stored",
        "look at the error of that statement, roll back and begin again; a statement that may fail needs a savepoint",
    )
}

/// The SQLSTATE of a missing privilege.
pub(crate) const PRIVILEGE: &str = "42501";

/// How to fix it.
pub(crate) const GRANT: &str = "grant it what the example of roles, `migrations/postgres/roles.example.sql`, grants";

/// Maps a failed append. An error that the server has sent, unless it ended the connection, means a rolled-back
/// transaction; after any other the outcome is unknown.
pub(crate) fn append_error(error: &Arc<sqlx::Error>, stream: impl FnOnce() -> StreamId) -> AppendError {
    let source = BackendError::new(Arc::clone(error));
    if was_not_run(error) {
        return AppendError::Unavailable { source };
    }
    let Some(code) = code(error) else {
        return AppendError::OutcomeUnknown { stream: stream(), source };
    };
    match code {
        ABORTED => aborted().into(),
        // The server itself does not know.
        code if code == "40003" || code.starts_with("08") => AppendError::OutcomeUnknown { stream: stream(), source },
        "25006" => AppendError::ReadOnly { reason: "the server is a standby, or set to read only".to_owned() },
        PRIVILEGE => AppendError::ReadOnly { reason: format!("the account may not append ({source}); {GRANT}") },
        "53100" => AppendError::StorageFull { source },
        // The sequence of the positions is at its end.
        "2200H" => AppendError::no_position_left(),
        // Missing tables and functions, rejected rows: an operator must act.
        code if ["42", "3F", "23", "22"].iter().any(|class| code.starts_with(class)) => AppendError::Broken {
            what: format!("the database refused a checked append: {source}"),
            remedy: "compare the schema `annals` and its privileges with what the migrations make".to_owned(),
        },
        _ => AppendError::Unavailable { source },
    }
}

/// Maps a failed statement, other than a commit: the transaction will not be stored.
pub(crate) fn database_error(error: sqlx::Error) -> DatabaseError {
    let source = |error| BackendError::new(error);
    match code_of_any(&error).unwrap_or_default() {
        "53100" => DatabaseError::StorageFull { source: source(error) },
        "25006" => DatabaseError::ReadOnly { source: source(error) },
        "XX001" | "XX002" => DatabaseError::Damaged { source: source(error) },
        // Includes errors that a trigger raises without its own code.
        code if code == "P0001" || code.starts_with("23") || code.starts_with("44") => {
            DatabaseError::Refused { source: source(error) }
        }
        _ if may_pass(&error) => DatabaseError::Unavailable { source: source(error) },
        _ => DatabaseError::Failed { source: source(error) },
    }
}

/// Whether a statement that failed so may work in another transaction: lost connections, serialization failures and
/// deadlocks, exhausted resources, locks and prepared objects in use, cancelled statements, servers that start or stop;
/// transactions that were idle for too long.
pub(crate) fn may_pass(error: &sqlx::Error) -> bool {
    match code_of_any(error) {
        Some(code) => code == "25P03" || ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class)),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)),
    }
}

/// The SQLSTATE, also of an error with which the server ended the connection.
fn code_of_any(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// Maps a failed commit. An error that the server has sent means that nothing was stored, unless it ended the connection.
pub(crate) fn commit_error(error: sqlx::Error) -> DatabaseError {
    match code(&error) {
        Some(code) if code != "40003" && !code.starts_with("08") => database_error(error),
        _ if ended_idle(&error) => database_error(error),
        _ => DatabaseError::OutcomeUnknown { source: BackendError::new(error) },
    }
}

/// Maps an error at the end of a unit of work to the one that its users get.
pub(crate) fn append_fault(error: DatabaseError, stream: impl FnOnce() -> StreamId) -> AppendError {
    match error {
        DatabaseError::Busy { waited, holder } => AppendError::Busy { waited, holder },
        DatabaseError::Unavailable { source } => AppendError::Unavailable { source },
        // Transient errors are handled above; this transaction was aborted by one of the caller's own statements.
        DatabaseError::Failed { .. } => aborted().into(),
        DatabaseError::StorageFull { source } => AppendError::StorageFull { source },
        DatabaseError::ReadOnly { source } => AppendError::ReadOnly { reason: source.to_string() },
        DatabaseError::Damaged { source } => {
            AppendError::Broken { what: source.to_string(), remedy: "restore the database from a backup".to_owned() }
        }
        DatabaseError::FileReplaced { what, remedy } => AppendError::Broken { what, remedy },
        // Events are checked when they are appended, so the caller's own rows are the cause.
        DatabaseError::Refused { source } => {
            let what = format!("was refused at its commit: {source}");
            Invalid::new("transaction", what, "fix the rows that break the constraint").into()
        }
        DatabaseError::OutcomeUnknown { source } => AppendError::OutcomeUnknown { stream: stream(), source },
        DatabaseError::Closed => AppendError::Closed,
    }
}

/// Whether the server has ended the transaction or the connection because it was idle for too long. It checks that again
/// between reading a statement and running it; so the statement was not run.
fn ended_idle(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| matches!(e.code().as_deref(), Some("25P03" | "57P05")))
}

/// Whether the statement is known not to have been run.
pub(crate) fn was_not_run(error: &sqlx::Error) -> bool {
    NotSent::is(error) || ended_idle(error)
}

/// Maps a failed read.
pub(crate) fn read_error(error: sqlx::Error) -> ReadError {
    if is_aborted(&error) {
        return ReadError::Invalid(aborted());
    }
    ReadError::Unavailable { source: BackendError::new(error) }
}
