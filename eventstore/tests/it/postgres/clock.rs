//! When the clock is read: after the writer was announced. Otherwise an append that was delayed in between would be recorded
//! before a time for which a reader has waited for all announced writers.

use std::future::Future;

use annals_eventstore::{
    Append, Appended, EventStore, ExpectedVersion, Fingerprint, NewEvent, PostgresStore, RequestKey,
};
use sqlx::{Connection, PgConnection, Row};

use super::{Fixture, event_for, run, stream};

const WAITS: &str = "
    SELECT count(*)
    FROM pg_locks AS l
    JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.locktype = 'relation' AND NOT l.granted AND l.relation = 'annals.events'::regclass
    ORDER BY 1
";

/// The server's time in microseconds.
const NOW: &str = "
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    ORDER BY 1
";

async fn number(connection: &mut PgConnection, text: &'static str) -> i64 {
    sqlx::query(text).fetch_all(connection).await.unwrap()[0].get(0)
}

/// Blocks the announcement of a writer, and checks that it has not read the clock before.
async fn check(fixture: &Fixture, what: &str, writer: impl Future<Output = i64> + Send + 'static) {
    let mut blocker = fixture.foreign().await;
    run(&mut blocker, "BEGIN; LOCK TABLE annals.events IN SHARE MODE").await.unwrap();
    let writer = tokio::spawn(writer);
    while number(&mut blocker, WAITS).await == 0 {
        assert!(!writer.is_finished(), "{what} is not announced");
        tokio::task::yield_now().await;
    }
    let announced_after = number(&mut blocker, NOW).await;
    run(&mut blocker, "ROLLBACK").await.unwrap();
    let recorded_at = writer.await.unwrap();
    assert!(recorded_at >= announced_after, "{what} has read the clock before it was announced");
}

fn events(store: &PostgresStore, count: usize) -> Vec<NewEvent> {
    (0..count).map(|_| event_for(store)).collect()
}

#[tokio::test]
async fn no_writer_reads_the_clock_before_it_is_announced() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    // Their writers would give up, and try again on another path.
    for function in ["append_next", "append_one", "append_group", "append"] {
        run(&mut foreign, &format!("ALTER FUNCTION annals.{function} RESET lock_timeout")).await.unwrap();
    }
    let to = |id: &str, expected, count| Append::to(stream(id), expected, events(&fixture.store, count));
    let request = RequestKey::new("r", Fingerprint::of_bytes(b"body")).unwrap();
    let (first, any) = (ExpectedVersion::NoStream, ExpectedVersion::Any);
    let appends = [
        ("one event", to("a", first, 1)),
        ("one event, any version", to("a", any, 1)),
        ("several events", to("b", first, 3)),
        ("a request", to("c", first, 1).with_request(request)),
        ("two streams", to("d", first, 2).and(stream("e"), first, events(&fixture.store, 2))),
        ("many events", to("f", first, 2_000)),
    ];
    let micros = |appended: Appended| appended.recorded_at.as_microsecond();
    for (what, append) in appends {
        let store = fixture.store.clone();
        check(&fixture, what, async move { micros(store.append_many(append).await.unwrap()) }).await;
    }
    let (store, append) = (fixture.store.clone(), to("g", first, 2));
    let within = async move {
        let mut transaction = foreign.begin().await.unwrap();
        let appended = store.append_in(&mut transaction, append).await.unwrap();
        transaction.commit().await.unwrap();
        micros(appended)
    };
    check(&fixture, "a transaction of the caller", within).await;
    const BY_HAND: &str = "
        INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                   event_data, metadata)
        SELECT gen_random_uuid(), 'default', 'order', 'h', n, 'placed', 1, '{}', '{}'
        FROM generate_series(1, 3) AS n
        RETURNING (extract(epoch FROM recorded_at) * 1000000)::bigint
    ";
    const BY_HAND_ONE: &str = "
        INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                   event_data, metadata)
        VALUES (gen_random_uuid(), 'default', 'order', 'i', 1, 'placed', 1, '{}', '{}')
        RETURNING (extract(epoch FROM recorded_at) * 1000000)::bigint
    ";
    for text in [BY_HAND, BY_HAND_ONE] {
        let mut connection = fixture.foreign().await;
        check(&fixture, "an INSERT by hand", async move { number(&mut connection, text).await }).await;
    }
}
