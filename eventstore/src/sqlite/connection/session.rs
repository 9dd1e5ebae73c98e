//! What the user of a connection may leave on it: temporary objects, attached databases and settings.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

/// Everything that decides whether later statements write where they should, and whether others can write too.
/// `defer_foreign_keys` is not in it, as SQLite switches it off when a transaction ends; the last setting has no
/// function, so it is a row of its own.
macro_rules! session {
    () => {
        "
    SELECT concat_ws(' ',
               (SELECT count(*) FROM sqlite_temp_schema),
               (SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')),
               (SELECT query_only FROM pragma_query_only),
               (SELECT locking_mode FROM pragma_locking_mode),
               (SELECT synchronous FROM pragma_synchronous),
               (SELECT foreign_keys FROM pragma_foreign_keys),
               (SELECT recursive_triggers FROM pragma_recursive_triggers),
               (SELECT ignore_check_constraints FROM pragma_ignore_check_constraints),
               (SELECT writable_schema FROM pragma_writable_schema),
               (SELECT trusted_schema FROM pragma_trusted_schema),
               (SELECT max_page_count FROM pragma_max_page_count),
               (SELECT timeout FROM pragma_busy_timeout))
    ORDER BY 1;
    PRAGMA wal_autocheckpoint"
    };
}

const SESSION: &str = session!();

/// The settings, then the last position, which is read in the transaction that commits it: the user's own SQL may have
/// rolled appends back.
pub(crate) const COMMIT: &str = concat!(session!(), "; COMMIT");
pub(crate) const COMMIT_AT_HEAD: &str = concat!(
    session!(),
    ";
    SELECT coalesce(max(position), 0)
    FROM main.events
    ORDER BY 1;
    COMMIT"
);

/// The first temporary object that intercepts statements on a table of annals: a table or view of the same name, or
/// a trigger.
const INTERCEPTING: &str = "
    SELECT type || ' `' || name || '`'
    FROM sqlite_temp_schema
    WHERE lower(tbl_name) IN (
        SELECT name
        FROM main.sqlite_schema
        WHERE type = 'table' AND (name = 'events' OR name GLOB 'annals_*'))
    ORDER BY rowid
    LIMIT 1
";

/// What a connection has of its own, beside what is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    settings: String,
    wal_autocheckpoint: i64,
}

impl Session {
    pub(crate) async fn of(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        Self::in_rows(&sqlx::query(SESSION).fetch_all(connection).await?).ok_or(sqlx::Error::RowNotFound)
    }

    /// That of the first rows of [`COMMIT`] or [`COMMIT_AT_HEAD`].
    pub(crate) fn in_rows(rows: &[SqliteRow]) -> Option<Self> {
        let [settings, wal_autocheckpoint, ..] = rows else { return None };
        Some(Self { settings: settings.get(0), wal_autocheckpoint: wal_autocheckpoint.get(0) })
    }
}

/// The temporary object that intercepts appends, if there is one.
pub(crate) async fn intercepting(connection: &mut SqliteConnection) -> Result<Option<String>, sqlx::Error> {
    let rows = sqlx::query(INTERCEPTING).fetch_all(connection).await?;
    Ok(rows.first().map(|row| row.get(0)))
}
