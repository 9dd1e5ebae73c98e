//! What the user's own SQL leaves on a connection that others use after it.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};

use super::{ANY, Fixture, event, stream};
use crate::append::Append;
use crate::error::AppendError;
use crate::sqlite::{SqliteOptions, SqliteStore};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};
use crate::unit_of_work::UnitOfWork;

const TEMP_TABLE: &str = "CREATE TEMP TABLE events AS SELECT * FROM events WHERE 0";
const TEMP_TRIGGER: &str = "CREATE TEMP TRIGGER mine BEFORE INSERT ON main.events BEGIN SELECT RAISE(IGNORE); END";
const TEMP_VIEW: &str = "CREATE TEMP VIEW Events AS SELECT * FROM main.events WHERE 0";
const TEMP_REQUEST_KEYS: &str = "CREATE TEMP TABLE annals_request_keys (request_key TEXT)";

/// What stays on the connection after the transaction, unless it is looked for.
const LEFT_BEHIND: &[&str] = &[
    TEMP_TABLE,
    TEMP_TRIGGER,
    TEMP_VIEW,
    TEMP_REQUEST_KEYS,
    "PRAGMA query_only = ON",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA writable_schema = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA max_page_count = 100",
    "PRAGMA busy_timeout = 1",
    "PRAGMA wal_autocheckpoint = 0",
    "COMMIT; PRAGMA synchronous = OFF; BEGIN",
    "COMMIT; PRAGMA foreign_keys = OFF; BEGIN",
    "COMMIT; ATTACH ':memory:' AS other; BEGIN",
];

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.expect(sql);
}

/// Appends twice and looks from another connection whether the events are in the file and the file can be written.
async fn assert_appends_are_stored(fixture: &Fixture, version: i64, after: &str) {
    let expected = StreamVersion::new(version).expect("a version");
    let direct = fixture.store.append(&stream("a"), expected.into(), vec![event(1)]).await;
    assert!(direct.is_ok(), "{after}: {direct:?}");
    let queued = fixture.store.append(&stream("a"), ANY, vec![event(2)]).await;
    assert!(queued.is_ok(), "{after}: {queued:?}");
    let other = SqliteStore::open(fixture.path()).await.expect("opened again");
    let stored = other.load_page(&stream("a"), StreamVersion::NONE, 100).await.expect("read").events.len();
    assert_eq!(i64::try_from(stored).expect("few"), version + 2, "{after}: acknowledged appends are not in the file");
    let busy = SqliteOptions::new(fixture.path()).busy_timeout(Duration::from_millis(50)).open().await.expect("opened");
    busy.append(&stream("other"), ANY, vec![event(3)]).await.unwrap_or_else(|e| panic!("{after}: {e:?}"));
    busy.close().await;
    other.close().await;
}

/// Appends went into a temporary table with the name of the log, and were acknowledged.
#[tokio::test]
async fn what_a_transaction_leaves_behind_falsifies_no_later_append() {
    for way in ["commit", "rollback", "drop"] {
        for sql in LEFT_BEHIND {
            // A rollback removes temporary objects, unless they were committed.
            let committed = if way != "commit" && sql.starts_with("CREATE") { "; COMMIT; BEGIN" } else { "" };
            let sql = format!("{sql}{committed}");
            let what = format!("{way} after {sql}");
            let fixture = Fixture::new().await;
            fixture.append("a", ExpectedVersion::NoStream, 1).await.expect("appended");
            let mut unit = fixture.store.begin().await.expect("begun");
            let clean = settings(&mut unit).await;
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *unit).await.expect("run");
            match way {
                "commit" => drop(unit.commit().await),
                "rollback" => drop(unit.rollback().await),
                _ => drop(unit),
            }
            assert_appends_are_stored(&fixture, 1, &what).await;
            let mut next = fixture.store.database().begin().await.expect("begun");
            assert_eq!(settings(&mut next).await, clean, "{what}");
            next.rollback().await.expect("rolled back");
        }
    }
}

async fn settings(connection: &mut SqliteConnection) -> Vec<String> {
    let mut found = Vec::new();
    for sql in [
        "SELECT group_concat(name) FROM sqlite_temp_schema",
        "SELECT group_concat(name) FROM pragma_database_list WHERE name <> 'temp'",
        "SELECT CAST(query_only AS TEXT) FROM pragma_query_only",
        "SELECT CAST(locking_mode AS TEXT) FROM pragma_locking_mode",
        "SELECT CAST(ignore_check_constraints AS TEXT) FROM pragma_ignore_check_constraints",
        "SELECT CAST(recursive_triggers AS TEXT) FROM pragma_recursive_triggers",
        "SELECT CAST(writable_schema AS TEXT) FROM pragma_writable_schema",
        "SELECT CAST(trusted_schema AS TEXT) FROM pragma_trusted_schema",
        "SELECT CAST(max_page_count AS TEXT) FROM pragma_max_page_count",
        "SELECT CAST(timeout AS TEXT) FROM pragma_busy_timeout",
        "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous",
        "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys",
    ] {
        let value: Option<String> = sqlx::query_scalar(sql).fetch_one(&mut *connection).await.expect(sql);
        found.push(value.unwrap_or_default());
    }
    let pages: i64 = sqlx::query_scalar("PRAGMA wal_autocheckpoint").fetch_one(connection).await.expect("a setting");
    found.push(pages.to_string());
    found
}

/// A file without a store is open on one connection alone, whose end would remove the journal.
#[tokio::test]
async fn a_file_without_a_store_has_its_only_connection_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = crate::SqliteDatabase::open(folder.path().join("reports.db")).await.expect("opened");
    for _ in 0..2 {
        let mut transaction = database.begin().await.expect("begun");
        run(&mut transaction, "CREATE TEMP TABLE mine (n INTEGER)").await;
        transaction.commit().await.expect("committed");
    }
    database.close().await;
}

/// The next reads of the store would not see what is in the log.
#[tokio::test]
async fn what_a_reader_leaves_behind_falsifies_no_later_read() {
    for sql in
        ["PRAGMA query_only = OFF; CREATE TEMP TABLE events AS SELECT * FROM events WHERE 0", "PRAGMA query_only = OFF"]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteOptions::new(folder.path().join("log.db")).readers(1).open().await.expect("opened");
        store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1)]).await.expect("appended");
        let mut reader = store.database().read().await.expect("a reader");
        run(&mut reader, sql).await;
        drop(reader);
        let page = store.load_page(&stream("a"), StreamVersion::NONE, 10).await.expect("read");
        assert_eq!(page.events.len(), 1, "{sql}");
        let mut reader = store.database().read().await.expect("a reader");
        let refused = sqlx::query("CREATE TABLE mine (n INTEGER)").execute(&mut *reader).await;
        assert!(refused.is_err(), "{sql}: the next reader writes");
    }
}

/// A clean connection is kept: opening one per commit would cost more than the commit.
#[tokio::test]
async fn a_connection_on_which_nothing_is_left_is_kept() {
    let fixture = Fixture::new().await;
    let mark = "SELECT count(*) FROM pragma_cache_size WHERE cache_size = -1234";
    let mut unit = fixture.store.begin().await.expect("begun");
    // A harmless setting, by which the connection is recognized.
    run(&mut unit, "PRAGMA cache_size = -1234; PRAGMA defer_foreign_keys = ON").await;
    unit.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
    unit.commit().await.expect("committed");
    for way in ["commit", "rollback", "drop"] {
        let mut unit = fixture.store.begin().await.expect("begun");
        let same: i64 = sqlx::query_scalar(mark).fetch_one(&mut *unit).await.expect("counted");
        assert_eq!(same, 1, "another connection before {way}");
        match way {
            "commit" => unit.commit().await.expect("committed"),
            "rollback" => unit.rollback().await.expect("rolled back"),
            _ => drop(unit),
        }
    }
}

/// The unit acknowledged events that went into its own temporary table, which no reader sees.
#[tokio::test]
async fn a_unit_of_work_with_an_object_that_intercepts_appends_acknowledges_none() {
    for (sql, name) in [
        (TEMP_TABLE, "table `events`"),
        (TEMP_TRIGGER, "trigger `mine`"),
        (TEMP_REQUEST_KEYS, "table `annals_request_keys`"),
    ] {
        let fixture = Fixture::new().await;
        let mut unit = fixture.store.begin().await.expect("begun");
        run(&mut unit, sql).await;
        unit.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("answered");
        let error = unit.commit().await.expect_err("refused");
        let AppendError::Invalid(invalid) = &error else { panic!("{error:?}") };
        assert_eq!(invalid.field, "transaction");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(fixture.log().await.len(), 0, "{sql}");
        assert_appends_are_stored(&fixture, 0, sql).await;
    }
    // Its own tables, and triggers on them, intercept nothing.
    let fixture = Fixture::new().await;
    let mut unit = fixture.store.begin().await.expect("begun");
    run(&mut unit, "CREATE TEMP TABLE mine (n INTEGER)").await;
    run(&mut unit, "CREATE TEMP TRIGGER also_mine AFTER INSERT ON mine BEGIN SELECT 1; END").await;
    unit.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
    unit.commit().await.expect("committed");
    assert_eq!(fixture.log().await.len(), 1);
}

#[tokio::test]
async fn a_foreign_transaction_with_an_object_that_intercepts_appends_is_refused() {
    for (sql, name) in [(TEMP_TABLE, "table `events`"), (TEMP_TRIGGER, "trigger `mine`"), (TEMP_VIEW, "view `Events`")]
    {
        let fixture = Fixture::new().await;
        let mut foreign = fixture.foreign().await;
        let mut transaction = foreign.begin_with("BEGIN IMMEDIATE").await.expect("begun");
        run(&mut transaction, sql).await;
        let append = Append::to(stream("a"), ANY, vec![event(1)]);
        let error = fixture.store.append_in(&mut transaction, append).await.expect_err("refused");
        assert!(matches!(&error, AppendError::Invalid(invalid) if invalid.field == "transaction"), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}
