//! One append inside an open transaction.

use std::sync::Arc;

use sqlx::{PgConnection, Row};
use tokio::time::Instant;

use crate::append::{Appended, CheckedAppend};
use crate::error::{AppendError, BackendError, ErrorFamily, Holder, Invalid};
use crate::position::Incarnation;
use crate::postgres::append::single::{answer_without_look, find_stored_duplicate, stored_events, with_events};
use crate::postgres::fault::{aborted, append_error, is_aborted};
use crate::stream::StreamId;

/// Without an incarnation it is a unit of work. If a statement of the user's own has ended its transaction, no store matches.
const APPEND_WITHIN: &str = "
    SELECT kind, stream_number, actual, base_versions, positions, recorded_at, fingerprint, result
    FROM annals.append_within($1,
                              CASE WHEN $2::uuid IS NULL
                                    AND coalesce(current_setting('annals.transaction', true), '') <> 'open'
                                   THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE $2::uuid END,
                              $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                              $18)
    ORDER BY 1
";

/// Why an append inside a transaction was not done.
pub(crate) enum NotDone {
    /// It was refused. The transaction is unchanged.
    Refused(AppendError),
    /// The transaction has failed, its connection is lost, or the outcome is unknown: it must not be committed.
    Failed(AppendError),
}

impl From<NotDone> for AppendError {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Refused(error) | NotDone::Failed(error) => error,
        }
    }
}

/// Runs one append, in one round trip unless some of its ids are stored already. If `store` is given, the database must
/// hold that incarnation.
pub(crate) async fn within(
    connection: &mut PgConnection,
    store: Option<Incarnation>,
    append: &CheckedAppend,
) -> Result<Appended, NotDone> {
    let begun = Instant::now();
    append.check_deadline().map_err(NotDone::Refused)?;
    let failed = |e| match is_aborted(&e) {
        // No append of ours has aborted it.
        true => NotDone::Refused(aborted().into()),
        false => NotDone::Failed(failed(e, || append.first_stream())),
    };
    let query = sqlx::query(APPEND_WITHIN).bind(append.tenant.as_str()).bind(store.map(|store| store.0));
    let rows = with_events(query, append).fetch_all(&mut *connection).await.map_err(failed)?;
    let blocked = || NotDone::Refused(AppendError::Busy { waited: begun.elapsed(), holder: Holder::Transaction });
    let Some(row) = rows.first() else { return Err(blocked()) };
    match row.try_get(0).unwrap_or_default() {
        "other_store" if store.is_none() => return Err(NotDone::Refused(ended())),
        "other_store" => return Err(NotDone::Refused(other_store().into())),
        "blocked" => return Err(blocked()),
        _ => {}
    }
    if let Some(appended) = answer_without_look(append, row).map_err(not_done)? {
        return Ok(appended);
    }
    // Unnamed, so that no plan is cached on the caller's connection.
    let rows = stored_events(append).persistent(false).fetch_all(connection).await.map_err(failed)?;
    find_stored_duplicate(append, &rows).map_err(not_done)?.ok_or_else(blocked)
}

fn not_done(answer: AppendError) -> NotDone {
    match answer.family() {
        // A malformed answer.
        ErrorFamily::Broken => NotDone::Failed(answer),
        _ => NotDone::Refused(answer),
    }
}

/// The error for an append in a unit of work whose transaction was ended before.
fn ended() -> AppendError {
    let why = "a statement of the caller's own has ended the transaction before; begin another";
    AppendError::Unavailable { source: BackendError::new(why) }
}

/// The error for a transaction on a database without the store.
pub(crate) fn other_store() -> Invalid {
    Invalid::new(
        "transaction",
        "is not on the database of this store",
        "begin it on a connection to the store's database",
    )
}

/// What the failure of a statement inside a transaction means: nothing will be stored.
pub(crate) fn failed(error: sqlx::Error, stream: impl FnOnce() -> StreamId) -> AppendError {
    match append_error(&Arc::new(error), stream) {
        AppendError::OutcomeUnknown { source, .. } => AppendError::Unavailable { source },
        other => other,
    }
}
