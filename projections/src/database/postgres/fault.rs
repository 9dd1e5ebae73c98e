//! Which failures of PostgreSQL may pass by themselves.

use annals_eventstore::{BackendError, DatabaseError, PostgresDatabase};

use crate::database::Fault;

/// Besides what says so itself, an unknown outcome may pass, because the next try compares the checkpoint; and a server
/// that does not take writes, because after a failure a connection may lead to a standby for a while.
pub(super) fn fault(error: DatabaseError) -> Fault {
    let passes = matches!(error, DatabaseError::OutcomeUnknown { .. } | DatabaseError::ReadOnly { .. });
    let transient = passes || error.is_transient();
    Fault { transient, blocked: false, part: None, source: BackendError::new(error) }
}

/// The same of a statement that is not a commit.
pub(super) fn statement_fault(database: &PostgresDatabase, error: sqlx::Error) -> Fault {
    let blocked = was_lock_timeout_or_deadlock(&error);
    Fault { blocked, ..fault(database.fault(error)) }
}

/// Whether the server gave up for the sake of another transaction: a lock was not to be had in time, a deadlock, a
/// serialization failure. Beginning again is the remedy.
pub(super) fn was_lock_timeout_or_deadlock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "40P01" | "40001"))
}

/// Whether others depend on an object that was to be dropped.
pub(super) fn is_depended_upon(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("2BP01")
}
