//! Rows and schemas that were changed by hand.

use annals_migrations::SQLITE_PROJECTIONS;
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::{ANY, Fixture, event, stream};
use crate::error::{ErrorFamily, OpenError, ReadError};
use crate::filter::Filter;
use crate::position::{After, Checkpoint};
use crate::read::EventStoreExt;
use crate::sqlite::{SqliteDatabase, SqliteOptions, SqliteStore};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};

/// Inserts a row into the stream `a` at a position.
async fn insert(connection: &mut SqliteConnection, position: i64, version: i64) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO events (position, event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                             event_data, metadata, recorded_at)
         VALUES ({position}, randomblob(16), 'default', 'counter', 'a', {version}, 'x', 1, '{{}}', '{{}}', 0)"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

async fn run(connection: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.expect("run");
}

/// A position below 1 would make every append fail, one in a gap would never be read, and one at the end of the numbers
/// would be the last.
#[tokio::test]
async fn positions_are_given_out_by_the_table_and_not_by_hand() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    for n in 1..=3 {
        fixture.append("a", ANY, n).await.expect("appended");
    }
    force_delete(&mut foreign, 3).await;
    for position in [-1, 0, i64::MIN, 1, 2, 3, 5, 1_000, i64::MAX] {
        let refused = insert(&mut foreign, position, 3).await;
        assert!(refused.is_err(), "position {position} was taken");
    }
    let done = fixture.append("a", ANY, 4).await.expect("appended");
    assert_eq!(done.position.get(), 4);
}

/// A number that was given out is not given out again, or a reader that has seen it would skip the next event.
#[tokio::test]
async fn the_number_of_a_row_that_was_removed_by_force_is_not_used_again() {
    let fixture = Fixture::new().await;
    for n in 1..=3 {
        fixture.append("a", ANY, n).await.expect("appended");
    }
    force_delete(&mut fixture.foreign().await, 3).await;
    let version = StreamVersion::new(2).expect("a version");
    let done = fixture.append("a", version.into(), 4).await.expect("appended");
    assert_eq!((done.version().get(), done.position.get()), (3, 4));
}

async fn force_delete(connection: &mut SqliteConnection, position: i64) {
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'events_are_never_deleted'";
    let rows = sqlx::query(trigger).fetch_all(&mut *connection).await.expect("read");
    let again: String = rows[0].get(0);
    let sql = format!("DROP TRIGGER events_are_never_deleted; DELETE FROM events WHERE position = {position}; {again}");
    run(connection, &sql).await;
}

#[tokio::test]
async fn a_reader_that_meets_an_event_at_an_impossible_position_says_so() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let refused = "SELECT sql FROM sqlite_schema WHERE name = 'events_are_never_replaced'";
    let rows = sqlx::query(refused).fetch_all(&mut foreign).await.expect("read");
    let guard: String = rows[0].get(0);
    run(&mut foreign, "DROP TRIGGER events_are_never_replaced; PRAGMA ignore_check_constraints = ON").await;
    insert(&mut foreign, -1, 1).await.expect("nothing is in the way");
    run(&mut foreign, &guard).await;
    let damaged = |error: ReadError| {
        assert!(matches!(&error, ReadError::Damaged { position, .. } if position.get() == -1), "{error:?}");
    };
    damaged(fixture.store.load_page(&stream("a"), StreamVersion::NONE, 10).await.expect_err("damaged"));
    damaged(fixture.store.head().await.expect_err("damaged"));
    for read_only in [false, true] {
        let options = SqliteOptions::new(fixture.path());
        let options = if read_only { options.read_only() } else { options };
        let error = options.open().await.err().expect("refused");
        assert!(matches!(&error, OpenError::Unsound { what, .. } if what.contains("-1")), "{error:?}");
    }
}

#[tokio::test]
async fn a_stream_whose_positions_do_not_rise_is_reported() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    run(&mut foreign, "DROP TRIGGER events_are_never_replaced").await;
    insert(&mut foreign, 9, 1).await.expect("nothing is in the way");
    insert(&mut foreign, 5, 2).await.expect("nothing is in the way");
    let error = fixture.store.load_page(&stream("a"), StreamVersion::NONE, 10).await.expect_err("damaged");
    assert!(matches!(&error, ReadError::Damaged { position, .. } if position.get() == 5), "{error:?}");
}

/// Without its guard the table takes any version: an append that expects version 7 of an empty stream would be version 8.
#[tokio::test]
async fn a_file_without_any_one_of_its_tables_indexes_and_triggers_is_refused() {
    let whole = Fixture::new().await;
    whole.append("a", ExpectedVersion::NoStream, 1).await.expect("appended");
    whole.store.database().migrate(SQLITE_PROJECTIONS).await.expect("migrated");
    let mut foreign = whole.foreign().await;
    let objects = "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name";
    let objects = sqlx::query(objects).fetch_all(&mut foreign).await.expect("read");
    let objects: Vec<(String, String)> = objects.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(objects.iter().filter(|(kind, _)| kind == "trigger").count(), 3);
    assert!(objects.len() >= 10, "{objects:?}");
    for (kind, name) in &objects {
        // Without its table of migrations a file looks new, and is then refused as its tables are there.
        let copy = whole.folder.path().join("copy.db");
        let to = copy.display().to_string();
        sqlx::query("VACUUM INTO ?1").bind(to).execute(&mut foreign).await.expect("copied");
        let mut connection = foreign_to(&copy).await;
        run(&mut connection, &format!("DROP {kind} {name}")).await;
        sqlx::Connection::close(connection).await.expect("closed");
        for read_only in [false, true] {
            let options = SqliteOptions::new(&copy);
            let options = if read_only { options.read_only() } else { options };
            let opened = async {
                let store = options.open().await?;
                store.database().migrate(SQLITE_PROJECTIONS).await?;
                Ok::<_, OpenError>(store)
            };
            let error = opened.await.err().unwrap_or_else(|| panic!("opened without {kind} {name}"));
            assert_eq!(error.family(), ErrorFamily::Broken, "{kind} {name}: {error:?}");
            if kind == "trigger" {
                assert!(matches!(&error, OpenError::Unsound { what, .. } if what.contains(name.as_str())), "{error:?}");
            }
        }
        std::fs::remove_file(&copy).expect("removed");
    }
}

async fn foreign_to(path: &std::path::Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    <SqliteConnection as sqlx::Connection>::connect_with(&options).await.expect("a connection")
}

#[tokio::test]
async fn a_guard_that_was_replaced_by_another_of_its_name_is_noticed() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    let mut foreign = fixture.foreign().await;
    let toothless = "CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events BEGIN SELECT 1; END";
    run(&mut foreign, &format!("DROP TRIGGER events_are_never_deleted; {toothless}")).await;
    let error = SqliteStore::open(fixture.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Unsound { .. }), "{error:?}");
    // A newer build may have altered it; it says by `min_build` who may still come.
    let newer = "INSERT INTO annals_migrations VALUES ('events', 1000, 'newer', 2, 0)";
    run(&mut foreign, newer).await;
    SqliteStore::open(fixture.path()).await.expect("a newer build's schema").close().await;
    run(&mut foreign, "DROP TRIGGER events_are_never_deleted").await;
    let error = SqliteStore::open(fixture.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Unsound { .. }), "{error:?}");
}

#[tokio::test]
async fn own_tables_and_triggers_beside_those_of_annals_are_fine() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let own = "CREATE TABLE mine (n INTEGER) STRICT;
               CREATE TRIGGER mine AFTER INSERT ON events BEGIN INSERT INTO mine VALUES (NEW.position); END";
    run(&mut foreign, own).await;
    SqliteStore::open(fixture.path()).await.expect("opened").close().await;
    SqliteDatabase::open(fixture.path()).await.expect("opened").close().await;
    let done = fixture.store.append(&stream("a"), ANY, vec![event(1), event(2)]).await.expect("appended");
    assert_eq!(done.position.get(), 2);
}

/// A filtered read looks at a window of the log; at its end there may be more.
#[tokio::test]
async fn an_event_after_fifty_thousand_others_is_found_by_its_filter() {
    let fixture = Fixture::new().await;
    let others = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 50001)
                  INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                      event_data, metadata, recorded_at)
                  SELECT randomblob(16), 'default', 'counter', 'other', n, 'x', 1, '{}', '{}', 0 FROM numbers ORDER BY n";
    run(&mut fixture.foreign().await, others).await;
    let wanted = fixture.append("wanted", ANY, 1).await.expect("appended");
    let filter = Filter::all().event_name("counted").expect("a name");
    let found: Vec<_> = fixture.store.read_all(After::START, filter).try_collect().await.expect("read");
    assert_eq!(found.iter().map(|event| event.position).collect::<Vec<_>>(), [wanted.position]);
}

/// A reader got none of the events of a page with a damaged row, however many were good.
#[tokio::test]
async fn the_good_events_before_a_damaged_row_are_given_and_then_the_error_without_its_content() {
    let long = "replace(hex(zeroblob(5000)), '00', 'ab') || CAST(x'ff' AS TEXT)";
    for (damage, event_type, event_data, metadata) in [
        ("metadata of another shape", "'x'", "'{}'", r#"'{"$actor":{"secret":1}}'"#),
        ("a name that is no text", "'secret' || CAST(x'ff' AS TEXT)", "'{}'", "'{}'"),
        ("a name with a separator", "'secret' || char(31)", "'{}'", "'{}'"),
        ("a long payload that is no text", "'x'", long, "'{}'"),
    ] {
        let fixture = Fixture::new().await;
        for n in 1..=2 {
            fixture.append("a", ANY, n).await.expect("appended");
        }
        let mut foreign = fixture.foreign().await;
        let row = format!(
            "PRAGMA ignore_check_constraints = ON;
             INSERT INTO events (position, event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                 schema_version, event_data, metadata, recorded_at)
             VALUES (3, randomblob(16), 'default', 'counter', 'a', 3, {event_type}, 1, {event_data}, {metadata}, 0)"
        );
        run(&mut foreign, &row).await;
        fixture.append("a", ANY, 4).await.expect("appended");

        let is_damaged = |answer: Option<ReadError>| {
            let error = answer.unwrap_or_else(|| panic!("{damage}: it was read"));
            assert!(
                matches!(&error, ReadError::Damaged { position, .. } if position.get() == 3),
                "{damage}: {error:?}"
            );
            assert!(!error.to_string().contains("secret"), "{error}");
        };
        let of_type = Filter::all().aggregate_type("counter").expect("a type");
        for filter in [Filter::all(), of_type] {
            let page = fixture.store.read_page(After::START, &filter, 10).await.expect(damage);
            assert_eq!(page.events.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [1, 2], "{damage}");
            assert!(!page.end);
            let last = page.checkpoint.expect("there are events");
            assert_eq!(last, Checkpoint { position: page.events[1].position, ..last });
            is_damaged(fixture.store.read_page(last.into(), &filter, 10).await.err());
        }
        let page = fixture.store.load_page(&stream("a"), StreamVersion::NONE, 10).await.expect(damage);
        assert_eq!((page.events.len(), page.end), (2, false), "{damage}");
        is_damaged(fixture.store.load_page(&stream("a"), page.events[1].version, 10).await.err());
        let mut all = fixture.store.read_all(After::START, Filter::all());
        assert!(all.try_next().await.expect(damage).is_some() && all.try_next().await.expect(damage).is_some());
        is_damaged(all.try_next().await.err());
    }
}
