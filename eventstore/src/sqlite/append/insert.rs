//! Writing many events by one statement.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe};
use uuid::Uuid;

use crate::append::CheckedEvent;
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
    let (text, size) = text(rows.len(), commit);
    debug_assert!(!rows.is_empty() && rows.len() <= MOST_ROWS, "callers chunk the rows");
    let mut arguments = SqliteArguments::default();
    arguments.reserve(size * COLUMNS, 0);
    for row in rows {
        bind(&mut arguments, row, recorded_at);
    }
    for _ in 0..(size - rows.len()) * COLUMNS {
        add(&mut arguments, None::<i64>);
    }
    (AssertSqlSafe(text), arguments)
}

pub(super) fn bind(arguments: &mut SqliteArguments, row: &NewRow<'_>, recorded_at: i64) {
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

pub(super) fn add<'q, T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
    arguments: &mut SqliteArguments,
    value: T,
) {
    Arguments::add(arguments, value).expect("numbers, text and bytes always encode");
}

/// The text for at least so many rows, and for how many it is; each is made once.
fn text(rows: usize, commit: bool) -> (Arc<str>, usize) {
    type Texts = [OnceLock<Arc<str>>; SIZES.len() + 1];
    static TEXTS: [Texts; 2] = [const { [const { OnceLock::new() }; SIZES.len() + 1] }; 2];
    let texts = &TEXTS[usize::from(commit)];
    let (index, size) = if rows == 1 {
        (0, 1)
    } else {
        let index = SIZES.partition_point(|size| *size < rows);
        (index + 1, SIZES[index])
    };
    let text = texts[index].get_or_init(|| {
        let insert = if size == 1 { INSERT_ONE.to_owned() } else { many(size) };
        if commit { format!("{insert}; COMMIT").into() } else { insert.into() }
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
