//! Errors of SQL that is a transaction projection's own, for every engine.

use annals_eventstore::DatabaseError;

use super::Model;
use crate::error::{ProjectionError, StartError};

/// Whether an error has one of sqlx or of a database among its sources that may pass.
pub(super) fn transient(
    error: &(dyn std::error::Error + 'static),
    of_sqlx: impl Fn(&sqlx::Error) -> bool,
    of_database: impl Fn(&DatabaseError) -> bool,
) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return of_sqlx(error);
        }
        if let Some(error) = error.downcast_ref::<DatabaseError>() {
            return of_database(error);
        }
        next = error.source();
    }
    false
}

/// Why a projection could not make its tables.
pub(super) fn not_set_up(
    model: &Model,
    error: ProjectionError,
    fault: impl Fn(sqlx::Error) -> DatabaseError,
) -> StartError {
    let Model { projection, version, .. } = *model;
    let source = error.into_source();
    match source.downcast::<sqlx::Error>().map(|error| fault(*error)).or_else(|source| source.downcast().map(|e| *e)) {
        Ok(source) => StartError::Database { projection, source },
        Err(source) => StartError::SetUp { projection, version, source },
    }
}

/// It has ended the transaction in which it made them.
pub(super) fn statement_has_ended(model: &Model) -> StartError {
    let Model { projection, version, .. } = *model;
    let source =
        "a statement of its own has ended the transaction, as COMMIT and ROLLBACK do; leave that to annals".into();
    StartError::SetUp { projection, version, source }
}
