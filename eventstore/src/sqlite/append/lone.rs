//! A lone append of one event: one statement that is a transaction of its own.

use jiff::Timestamp;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Row, SqliteConnection};

use crate::append::{Appended, AppendedStream, CheckedAppend};
use crate::position::Position;
use crate::sqlite::append::insert::{NewRow, add, bind};

/// Inserts nothing if the event before is not `?14`; the table's trigger refuses a row that does not continue its stream.
///
/// The event is recorded at `?13`, which was read before the write lock was taken, or, if that was earlier, at the beginning of the
/// millisecond in which the lock was taken: SQLite reads its clock, which has milliseconds, once it has the lock. A reader that asks
/// what was true at a time takes the lock once after the millisecond of that time, so what is recorded later has a later time.
const INSERT_LONE: &str = "
    INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
                        metadata, correlation_id, causation_id, append_id, recorded_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
           max(?13, CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000)
    WHERE ?14 IS NULL OR ?14 = (
        SELECT event_id
        FROM events
        WHERE tenant = ?2 AND aggregate_type = ?3 AND aggregate_id = ?4 AND version = ?5 - 1)
    RETURNING position, recorded_at
";

/// The row of an append of one event to a version that it names, without a request key.
pub(crate) fn row(append: &CheckedAppend) -> Option<NewRow<'_>> {
    let [part] = append.parts.as_slice() else { return None };
    let [event] = part.events.as_slice() else { return None };
    let version = part.expected.version()?.plus(1).filter(|_| append.request.is_none())?;
    Some(NewRow { stream: &part.stream, version, event, append_id: append.append_id })
}

/// Stores the row of [`row`], recorded at `now` or, if the lock was taken in a later millisecond, at the beginning of that; `None`
/// if the stream ends with another event than the expected one, so that nothing is stored.
pub(crate) async fn store(
    connection: &mut SqliteConnection,
    append: &CheckedAppend,
    row: &NewRow<'_>,
    now: Timestamp,
) -> Result<Option<Appended>, sqlx::Error> {
    let last_event = append.parts.first().and_then(|part| part.expected.last_event());
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, row, now.as_microsecond());
    add(&mut arguments, last_event.map(|id| id.get().as_bytes().to_vec()));
    // All rows are fetched, so that the statement is run to its end and an error of the implied commit is not missed.
    let rows = sqlx::query_with(INSERT_LONE, arguments).fetch_all(connection).await?;
    let Some(stored) = rows.first() else { return Ok(None) };
    let recorded_at = Timestamp::from_microsecond(stored.get(1)).unwrap_or(now);
    let positions = vec![Position::stored(stored.get(0))];
    let stream = AppendedStream { stream: row.stream.clone(), version: row.version, positions };
    Ok(Some(Appended::new(vec![stream], recorded_at, false)))
}
