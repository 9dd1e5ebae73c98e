//! The past while writers run: transactions that are open when it is asked for, and appends between whose events others are.

use std::time::Duration;

use annals_eventstore::{AsOf, Checkpoint, EventStore, ExpectedVersion, Position, ReadError};
use jiff::Timestamp;
use sqlx::{PgConnection, Row};
use tokio::time::timeout;

use super::{Fixture, event_for, insert, run, stream};

/// Three events of one append, the last two of which wait for the advisory lock 42 after the first has its position.
const SLOW: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, append_id)
    SELECT gen_random_uuid(), 'default', 'order', $1, n, 'placed', 1, '{}', '{}', md5($1)::uuid
    FROM generate_series(1, 3) AS n
    WHERE n = 1 OR pg_advisory_xact_lock_shared(42) IS NOT NULL
";

/// Its writer is announced and has read the clock; it waits for the advisory lock 42 before it gets a position.
const LATE: &str = "
    WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, recorded_at)
    SELECT gen_random_uuid(), 'default', 'order', $1, 1, 'placed', 1, '{}', '{}', clock.now
    FROM clock
    WHERE clock.now IS NOT NULL AND pg_advisory_xact_lock_shared(42) IS NOT NULL
";

const WAITING: &str = "
    SELECT count(*)
    FROM pg_locks AS l
    JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.locktype = 'advisory' AND NOT l.granted AND l.objid = 42
    ORDER BY 1
";

const NOW: &str = "
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    ORDER BY 1
";

async fn number(connection: &mut PgConnection, text: &'static str) -> i64 {
    sqlx::query(text).fetch_all(connection).await.unwrap()[0].get(0)
}

async fn now(connection: &mut PgConnection) -> Timestamp {
    Timestamp::from_microsecond(number(connection, NOW).await).unwrap()
}

/// Starts statements that stop at the lock, one after the other.
async fn begin(
    fixture: &Fixture,
    gate: &mut PgConnection,
    text: &'static str,
    ids: &[&'static str],
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut running = Vec::new();
    for id in ids.iter().copied() {
        let before = number(gate, WAITING).await;
        let mut connection = fixture.foreign().await;
        running.push(tokio::spawn(async move {
            sqlx::query(text).bind(id).execute(&mut connection).await.unwrap();
        }));
        while number(gate, WAITING).await == before {
            tokio::task::yield_now().await;
        }
    }
    running
}

async fn as_of(fixture: &Fixture, position: i64) -> i64 {
    let as_of = AsOf::position(Position::new(position).unwrap());
    fixture.store.log_as_of(as_of).await.unwrap().position.get()
}

async fn append(fixture: &Fixture, id: &str, count: usize) {
    let events = (0..count).map(|_| event_for(&fixture.store)).collect();
    fixture.store.append(&stream(id), ExpectedVersion::NoStream, events).await.unwrap();
}

#[tokio::test]
async fn no_append_is_divided_though_others_are_between_its_events() {
    let fixture = Fixture::new().await;
    let mut gate = fixture.foreign().await;
    append(&fixture, "first", 1).await; // 1
    run(&mut gate, "SELECT pg_advisory_lock(42)").await.unwrap();
    let slow = begin(&fixture, &mut gate, SLOW, &["outer"]).await; // 2
    append(&fixture, "between", 2).await; // 3, 4
    let inner = begin(&fixture, &mut gate, SLOW, &["inner"]).await; // 5
    append(&fixture, "single", 1).await; // 6
    run(&mut gate, "SELECT pg_advisory_unlock(42)").await.unwrap();
    for writer in slow.into_iter().chain(inner) {
        writer.await.unwrap();
    }
    append(&fixture, "last", 2).await;
    // Both slow appends have begun before position 6 and ended after it.
    let head = fixture.store.head().await.unwrap().position.get();
    assert_eq!(head, 12);
    let answers: Vec<i64> = {
        let mut answers = Vec::new();
        for position in 0..=head {
            answers.push(as_of(&fixture, position).await);
        }
        answers
    };
    assert_eq!(answers[..7], [0, 1, 1, 1, 1, 1, 1]);
    let rows =
        sqlx::query("SELECT aggregate_id FROM annals.events ORDER BY position").fetch_all(&mut gate).await.unwrap();
    let ends: Vec<i64> = ["outer", "inner"]
        .map(|id| rows.iter().rposition(|row| row.get::<&str, _>(0) == id).unwrap())
        .map(|index| i64::try_from(index).unwrap() + 1)
        .to_vec();
    let both = *ends.iter().max().unwrap();
    assert_eq!(both, 10);
    assert_eq!(answers[7..], [1, 1, 1, 10, 10, 12], "{ends:?}");
}

/// The announced writers are waited for, though everything that has a position is final.
#[tokio::test]
async fn a_time_waits_for_a_writer_that_has_read_the_clock_and_has_no_position() {
    let fixture = Fixture::new().await;
    let mut gate = fixture.foreign().await;
    append(&fixture, "first", 1).await;
    run(&mut gate, "SELECT pg_advisory_lock(42)").await.unwrap();
    let late = begin(&fixture, &mut gate, LATE, &["late"]).await;
    let time = AsOf::time(now(&mut gate).await);
    let mut asked = Box::pin(fixture.store.log_as_of(time));
    assert!(
        timeout(Duration::from_millis(100), &mut asked).await.is_err(),
        "the late writer can still be recorded at {time}"
    );
    run(&mut gate, "SELECT pg_advisory_unlock(42)").await.unwrap();
    for writer in late {
        writer.await.unwrap();
    }
    let answer = asked.await.unwrap();
    assert_eq!(answer.position.get(), 2);
    append(&fixture, "next", 1).await;
    assert_eq!(fixture.store.log_as_of(time).await.unwrap(), answer);
}

/// However the transaction ends, the answer is the same afterwards.
#[tokio::test]
async fn a_time_waits_for_a_transaction_that_is_open_when_it_is_asked() {
    for (end, position) in [("COMMIT", 3), ("ROLLBACK", 3)] {
        let fixture = Fixture::new().await;
        let mut slow = fixture.foreign().await;
        let mut other = fixture.foreign().await;
        append(&fixture, "first", 1).await;
        run(&mut slow, "BEGIN").await.unwrap();
        insert(&mut slow, "slow").await;
        append(&fixture, "quick", 1).await;
        let time = AsOf::time(now(&mut other).await);
        let mut asked = Box::pin(fixture.store.log_as_of(time));
        assert!(timeout(Duration::from_millis(100), &mut asked).await.is_err(), "{end}");
        run(&mut slow, end).await.unwrap();
        let answer: Checkpoint = asked.await.unwrap();
        assert_eq!(answer.position.get(), position, "{end}");
        // A writer that comes later is not waited for, as it is recorded later.
        run(&mut slow, "BEGIN").await.unwrap();
        insert(&mut slow, "later").await;
        let again = timeout(Duration::from_secs(5), fixture.store.log_as_of(answer.into())).await.unwrap();
        assert_eq!(again.unwrap(), answer, "{end}");
        run(&mut slow, "COMMIT").await.unwrap();
        assert_eq!(fixture.store.log_as_of(time).await.unwrap(), answer, "{end}");
    }
}

/// A position that is visible but not final, because a transaction before it is open, is waited for too.
#[tokio::test]
async fn a_position_behind_an_open_transaction_is_waited_for() {
    let fixture = Fixture::new().await;
    let mut slow = fixture.foreign().await;
    run(&mut slow, "BEGIN").await.unwrap();
    insert(&mut slow, "slow").await;
    append(&fixture, "quick", 1).await;
    let asked_for = AsOf::position(Position::new(2).unwrap());
    let mut asked = Box::pin(fixture.store.log_as_of(asked_for));
    assert!(timeout(Duration::from_millis(100), &mut asked).await.is_err());
    run(&mut slow, "ROLLBACK").await.unwrap();
    assert_eq!(asked.await.unwrap().position.get(), 2);
    match fixture.store.log_as_of(AsOf::position(Position::new(3).unwrap())).await {
        Err(ReadError::Invalid(invalid)) => assert!(invalid.problem.contains("ends at 2"), "{invalid}"),
        other => panic!("{other:?}"),
    }
}
