//! Many units of work at once, on few streams.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    Append, AppendError, EventStore, EventStoreExt, Filter, NewEvent, Payload, Position, StreamVersion, UnitOfWork,
};
use futures::StreamExt;
use sqlx::Row;

use super::{ANY, Fixture, cut, run, stream};

/// Appends to one of few streams and keeps a row with the number of its events, again and again; some are rolled back,
/// some dropped, some while they commit.
async fn race(fixture: Arc<Fixture>, writer: i32, mut random: fastrand::Rng) {
    for round in 0..25 {
        let n = writer * 1_000 + round;
        let to = stream(&format!("s{}", random.u8(..3)));
        let events: Vec<_> = (0..random.usize(1..4)).map(|_| marked(&fixture, n)).collect();
        let mut stored = events.len();
        let expected = match random.u8(..3) {
            0 => ANY,
            _ => StreamVersion::new(fixture.store.load(&to).count().await as i64).unwrap().into(),
        };
        if random.u8(..4) == 0 {
            // One without own rows, by the writers of the handle.
            let plain = (0..events.len()).map(|_| marked(&fixture, -1)).collect();
            let done = fixture.store.append(&to, expected, plain).await;
            assert!(done.is_ok() || matches!(done, Err(AppendError::WrongExpectedVersion { .. })), "{done:?}");
        }
        let mut unit = fixture.store.begin().await.unwrap();
        match unit.append(Append::to(to, expected, events)).await {
            Ok(_) => {}
            Err(AppendError::WrongExpectedVersion { .. }) => stored = 0,
            Err(error) => panic!("{error:?}"),
        }
        let row = sqlx::query("INSERT INTO pairs VALUES ($1, $2)").bind(n).bind(stored as i64);
        row.execute(&mut *unit).await.unwrap();
        match random.u8(..6) {
            0 => unit.rollback().await.unwrap(),
            1 => drop(unit),
            2 => drop(cut(unit.commit(), 1, Duration::ZERO).await),
            _ => unit.commit().await.unwrap(),
        }
    }
}

fn marked(fixture: &Fixture, n: i32) -> NewEvent {
    let mut event = fixture.event();
    event.payload = Payload::from_json(&format!("{{\"n\":{n}}}")).unwrap();
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_units_store_their_events_and_rows_together_and_hide_nothing_from_readers() {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let fixture = Arc::new(Fixture::new().await);
    let mut foreign = fixture.foreign().await;
    run(&mut foreign, "CREATE TABLE pairs (n int PRIMARY KEY, events bigint NOT NULL)").await.unwrap();
    let mut subscription = fixture.store.subscribe(Position::START, Filter::all());
    let races: Vec<_> = (0..6)
        .map(|n| tokio::spawn(race(fixture.clone(), n, fastrand::Rng::with_seed(seed.wrapping_add(n as u64)))))
        .collect();
    for race in futures::future::join_all(races).await {
        race.unwrap();
    }
    // A commit that was dropped may still be under way.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
                AND pid <> pg_backend_pid()";
    while sqlx::query(open).fetch_one(&mut foreign).await.unwrap().get::<i64, _>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let torn = "
        SELECT count(*)
        FROM pairs
        FULL JOIN (SELECT (event_data ->> 'n')::int AS n, count(*) AS events
                   FROM annals.events WHERE event_data ->> 'n' <> '-1' GROUP BY 1) AS stored USING (n)
        WHERE coalesce(pairs.events, -1) <> coalesce(stored.events, 0)
    ";
    assert_eq!(sqlx::query(torn).fetch_one(&mut foreign).await.unwrap().get::<i64, _>(0), 0, "ANNALS_SEED={seed}");
    let pairs = "SELECT count(*) FILTER (WHERE events > 0), count(*) FILTER (WHERE events = 0) FROM pairs";
    let pairs = sqlx::query(pairs).fetch_one(&mut foreign).await.unwrap();
    assert!(pairs.get::<i64, _>(0) > 20 && pairs.get::<i64, _>(1) > 0, "ANNALS_SEED={seed}: too little was tried");
    let gaps =
        "SELECT count(*) FROM (SELECT max(version) <> count(*) AS gap FROM annals.events GROUP BY aggregate_id) AS s
                 WHERE gap";
    assert_eq!(sqlx::query(gaps).fetch_one(&mut foreign).await.unwrap().get::<i64, _>(0), 0, "ANNALS_SEED={seed}");
    let all =
        sqlx::query("SELECT position FROM annals.events ORDER BY position").fetch_all(&mut foreign).await.unwrap();
    for row in &all {
        let next = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await;
        let next = next.expect("nothing is missing").unwrap().unwrap();
        assert_eq!(next.position.get(), row.get::<i64, _>(0), "ANNALS_SEED={seed}");
    }
}
