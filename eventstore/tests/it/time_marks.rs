//! Times on a log that is long enough for marks: the answers are those of reading the whole log, also after the log was restored
//! to a shorter one and has grown again.

use std::collections::BTreeSet;

use annals_eventstore::{AsOf, EventStore, EventStoreExt, Filter, Position, SqliteOptions};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use sqlx::AssertSqlSafe;

use crate::as_of::prefix;

/// Inserts `count` events after the last, each of a stream of its own. Times are in any order. Each thousandth, at which marks
/// are, is later than all before it, except that the clock was ahead for one event, beyond the times of several marks.
const FILL_SQLITE: &str = "
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {count})
    INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data,
                        metadata, recorded_at)
    SELECT randomblob(16), 'default', 'order', '{name}-' || n, 1, 'placed', 1, '{}', '{}',
           {from} + n * 100 + (n * 7919) % 60011 + iif(n % 1000 = 0, 70000, 0) + iif(n = 9321, 400000, 0)
    FROM number
";

/// Marks of too early a time had the first event after a time looked for behind it.
const CHANGED_BY_HAND: [&str; 4] = [
    // As if the clock had not been ahead for an event before them.
    "UPDATE annals_time_marks
     SET latest = (SELECT recorded_at FROM events AS e WHERE e.position = annals_time_marks.position)
     WHERE position > 10500",
    "UPDATE annals_time_marks SET latest = 0 WHERE position > 5000",
    "UPDATE annals_time_marks SET latest = 0",
    "UPDATE annals_time_marks SET latest = 9223372036854775807 WHERE position < 3000",
];

async fn run_on(store: &annals_eventstore::SqliteStore, text: String) {
    let mut transaction = store.database().begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

fn filled(text: &str, count: usize, name: &str, from: i64) -> String {
    text.replace("{count}", &count.to_string()).replace("{name}", name).replace("{from}", &from.to_string())
}

/// Asks for many times, and compares each answer with the whole log.
async fn check<S: EventStoreExt>(store: &S, seed: u64) {
    let log: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let times: BTreeSet<Timestamp> = (0..25).map(|_| log[random.usize(..log.len())].recorded_at).collect();
    let latest = log.iter().map(|event| event.recorded_at).max().unwrap();
    let micro = SignedDuration::from_micros(1);
    let before_marks = log.iter().skip(999).step_by(1_000).map(|event| event.recorded_at - micro);
    let ends = [log[0].recorded_at - micro, latest - micro, latest, latest + micro];
    for time in times.into_iter().chain(before_marks).chain(ends) {
        let answer = store.log_as_of(AsOf::time(time)).await.unwrap();
        let expected = prefix(&log, |event| event.recorded_at <= time);
        assert_eq!(answer.position, expected.last().map_or(Position::START, |event| event.position), "{time}");
    }
}

#[tokio::test]
async fn marks_of_an_sqlite_log_find_what_reading_it_finds_also_after_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let store = SqliteOptions::new(&path).open().await.unwrap();
    let marks = async |store: &annals_eventstore::SqliteStore| -> i64 {
        let mut reader = store.database().read().await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM annals_time_marks").fetch_one(&mut *reader).await.unwrap()
    };
    run_on(&store, filled(FILL_SQLITE, 12_500, "a", 1_000_000_000)).await;
    check(&store, 1).await;
    assert_eq!(marks(&store).await, 12);
    run_on(&store, filled(FILL_SQLITE, 1_800, "b", 1_001_000_000)).await;
    check(&store, 2).await;
    assert_eq!(marks(&store).await, 14);

    for edit in CHANGED_BY_HAND {
        run_on(&store, edit.to_owned()).await;
        let other = SqliteOptions::new(&path).open().await.unwrap();
        check(&other, 5).await;
        other.close().await;
    }

    let rewind = "DROP TRIGGER events_are_never_deleted;
                  DELETE FROM events WHERE position > 3500;
                  UPDATE sqlite_sequence SET seq = 3500 WHERE name = 'events'";
    run_on(&store, rewind.to_owned()).await;
    run_on(&store, filled(FILL_SQLITE, 9_000, "c", 1_005_000_000)).await;
    check(&store, 3).await;
    // Another handle begins with the stored marks.
    let other = SqliteOptions::new(&path).open().await;
    let error = other.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("events_are_never_deleted"), "{error}");
}

#[cfg(feature = "postgres")]
fn edit_postgres(edit: &str) -> String {
    edit.replace("annals_time_marks.position", "time_marks.position")
        .replace("annals_time_marks", "annals.time_marks")
        .replace("recorded_at FROM events", "(extract(epoch FROM recorded_at) * 1000000)::bigint FROM annals.events")
}

#[cfg(feature = "postgres")]
const FILL_POSTGRES: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, recorded_at)
    SELECT gen_random_uuid(), 'default', 'order', '{name}-' || n, 1, 'placed', 1, '{}', '{}',
           'epoch'::timestamptz + ({from} + n * 100 + (n * 7919) % 60011 + CASE WHEN n % 1000 = 0 THEN 70000 WHEN n = 9321 THEN 400000 ELSE 0 END) * interval '1 microsecond'
    FROM generate_series(1, {count}) AS n
";

#[cfg(feature = "postgres")]
#[tokio::test]
async fn marks_of_a_postgres_log_find_what_reading_it_finds_also_after_a_restore() {
    use sqlx::Connection;

    let database = crate::backends::postgres_database().await;
    let options = || annals_eventstore::PostgresOptions::new(database.url());
    let store = options().open().await.unwrap();
    let mut foreign = sqlx::PgConnection::connect(database.url()).await.unwrap();
    let fill = |count, name, from| filled(FILL_POSTGRES, count, name, from);
    async fn run(connection: &mut sqlx::PgConnection, text: String) {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.unwrap();
    }
    async fn marks(connection: &mut sqlx::PgConnection) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM annals.time_marks").fetch_one(connection).await.unwrap()
    }
    run(&mut foreign, fill(12_500, "a", 1_000_000_000)).await;
    check(&store, 1).await;
    assert_eq!(marks(&mut foreign).await, 12);
    run(&mut foreign, fill(1_800, "b", 1_001_000_000)).await;
    check(&store, 2).await;
    assert_eq!(marks(&mut foreign).await, 14);
    // An account that may not write keeps them in memory.
    run(&mut foreign, "ALTER TABLE annals.time_marks ADD CONSTRAINT refused CHECK (false) NOT VALID".to_owned()).await;
    run(&mut foreign, fill(2_500, "d", 1_002_000_000)).await;
    check(&store, 4).await;
    assert_eq!(marks(&mut foreign).await, 14);
    run(&mut foreign, "ALTER TABLE annals.time_marks DROP CONSTRAINT refused".to_owned()).await;
    for edit in CHANGED_BY_HAND {
        run(&mut foreign, edit_postgres(edit)).await;
        let other = options().open().await.unwrap();
        check(&other, 5).await;
        other.close().await;
    }
    // As after a failover that lost events, and other events at their positions.
    let rewind = "ALTER TABLE annals.events DISABLE TRIGGER USER;
                  DELETE FROM annals.events WHERE position > 3500;
                  ALTER TABLE annals.events ENABLE TRIGGER USER;
                  ALTER SEQUENCE annals.events_position RESTART WITH 3501";
    store.close().await;
    run(&mut foreign, rewind.to_owned()).await;
    run(&mut foreign, fill(9_000, "c", 1_005_000_000)).await;
    let store = options().open().await.unwrap();
    check(&store, 3).await;
    assert_eq!(marks(&mut foreign).await, 16, "those of the lost history are replaced, or stay and do not count");
}
