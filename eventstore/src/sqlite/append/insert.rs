//! Writing many events by one statement.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe};
use uuid::Uuid;

use crate::append::CheckedEvent;
use crate::event::EventId;
use crate::stream::{StreamId, StreamVersion};

/// The sizes of multi-row statements. Fewer rows than a size are filled up with rows of NULLs that the statement
/// leaves out, so that few texts are prepared and few values are bound without need.
const SIZES: [usize; 20] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 128, 192, 256, 384, 512, 640, 768, 1024];

/// The most rows of one statement: 13 values each, of the 32,766 that SQLite binds at most.
pub(crate) const MOST_ROWS: usize = 1024;

const COLUMNS: usize = 13;

const INSERT_ONE: &str = "
    INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
                        metadata, correlation_id, causation_id, append_id, recorded_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
";

/// What an INSERT without VALUES ends with, so that nothing is inserted unless the stream ends with the expected event.
const BEHIND: &str = "(
        SELECT event_id
        FROM events
        WHERE tenant = ? AND aggregate_type = ? AND aggregate_id = ? AND version = ?) = ?";

/// One event that is inserted.
pub(crate) struct NewRow<'a> {
    pub(crate) stream: &'a StreamId,
    pub(crate) version: StreamVersion,
    pub(crate) event: &'a CheckedEvent,
    pub(crate) append_id: Option<Uuid>,
}

/// The statement that inserts `rows`, at most [`MOST_ROWS`] of them, in their order; with `commit` it also ends the
/// transaction, so that both are one call of the database's thread.
pub(crate) fn statement(
    rows: &[NewRow<'_>],
    recorded_at: i64,
    commit: bool,
) -> (AssertSqlSafe<Arc<str>>, SqliteArguments) {
    let (text, size) = text(rows.len(), if commit { Ending::Commit } else { Ending::Nothing });
    (AssertSqlSafe(text), bound(rows, size, recorded_at))
}

/// The statement that inserts `rows`, at most [`MOST_ROWS`] of one stream, if the event before the first is `last_event`.
pub(crate) fn statement_if_last_event(
    last_event: EventId,
    rows: &[NewRow<'_>],
    recorded_at: i64,
) -> (AssertSqlSafe<Arc<str>>, SqliteArguments) {
    let (text, size) = text(rows.len(), Ending::Behind);
    let mut arguments = bound(rows, size, recorded_at);
    let (tenant, aggregate_type, aggregate_id) = rows[0].stream.parts();
    add(&mut arguments, tenant);
    add(&mut arguments, aggregate_type);
    add(&mut arguments, aggregate_id);
    add(&mut arguments, rows[0].version.get() - 1);
    add(&mut arguments, last_event.get().as_bytes().to_vec());
    (AssertSqlSafe(text), arguments)
}

fn bound(rows: &[NewRow<'_>], size: usize, recorded_at: i64) -> SqliteArguments {
    debug_assert!(!rows.is_empty() && rows.len() <= MOST_ROWS, "callers chunk the rows");
    let mut arguments = SqliteArguments::default();
    arguments.reserve(size * COLUMNS, 0);
    for row in rows {
        bind(&mut arguments, row, recorded_at);
    }
    for _ in 0..(size - rows.len()) * COLUMNS {
        add(&mut arguments, None::<i64>);
    }
    arguments
}

fn bind(arguments: &mut SqliteArguments, row: &NewRow<'_>, recorded_at: i64) {
    let (tenant, aggregate_type, aggregate_id) = row.stream.parts();
    let event = row.event;
    add(arguments, event.event_id.get().as_bytes().to_vec());
    add(arguments, tenant);
    add(arguments, aggregate_type);
    add(arguments, aggregate_id);
    add(arguments, row.version.get());
    add(arguments, Arc::clone(&event.name));
    add(arguments, i64::from(event.schema_version));
    add(arguments, event.payload.shared());
    add(arguments, Arc::clone(&event.metadata));
    add(arguments, event.correlation_id.as_ref().map(|id| id.shared()));
    add(arguments, event.causation_id.as_ref().map(|id| id.shared()));
    add(arguments, row.append_id.map(|id| id.as_bytes().to_vec()));
    add(arguments, recorded_at);
}

fn add<'q, T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(arguments: &mut SqliteArguments, value: T) {
    Arguments::add(arguments, value).expect("numbers, text and bytes always encode");
}

/// What a statement does beside inserting.
#[derive(Clone, Copy)]
enum Ending {
    Nothing,
    /// Ends the transaction.
    Commit,
    /// Looks at the event before.
    Behind,
}

/// The text for at least so many rows, and for how many it is; each is made once.
fn text(rows: usize, ending: Ending) -> (Arc<str>, usize) {
    type Texts = [OnceLock<Arc<str>>; SIZES.len() + 1];
    static TEXTS: [Texts; 3] = [const { [const { OnceLock::new() }; SIZES.len() + 1] }; 3];
    let texts = &TEXTS[ending as usize];
    let (index, size) = if rows == 1 {
        (0, 1)
    } else {
        let index = SIZES.partition_point(|size| *size < rows);
        (index + 1, SIZES[index])
    };
    let text = texts[index].get_or_init(|| match ending {
        Ending::Nothing if size == 1 => INSERT_ONE.into(),
        Ending::Nothing => many(size).into(),
        Ending::Commit if size == 1 => format!("{INSERT_ONE}; COMMIT").into(),
        Ending::Commit => format!("{}; COMMIT", many(size)).into(),
        Ending::Behind => format!("{} AND {BEHIND}", many(size)).into(),
    });
    (Arc::clone(text), size)
}

/// Only placeholders are put together here; every value is bound.
fn many(size: usize) -> String {
    let (head, _) = INSERT_ONE.split_once("VALUES").expect("the statement has its values last");
    let mut text = format!("{head}SELECT * FROM (VALUES ");
    for row in 0..size {
        let comma = if row == 0 { "" } else { ", " };
        write!(text, "{comma}(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)").expect("writing to a string never fails");
    }
    text.push_str(") WHERE column1 IS NOT NULL");
    text
}
