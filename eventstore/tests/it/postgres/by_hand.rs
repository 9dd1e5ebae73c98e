//! Rows inserted by other programs, and appends beside other open transactions: positions stay ordered.

use annals_eventstore::{
    After, EventStore, EventStoreExt, ExpectedVersion, Filter, Position, PostgresOptions, ReadError, StreamVersion,
};
use futures::TryStreamExt;
use sqlx::{PgConnection, Row};

use super::{Fixture, code, event_for, insert, run, stream};

/// Version `version` of the stream `id`; `position` is the value for the position, if any.
async fn insert_at(connection: &mut PgConnection, id: &str, version: i64, position: &str) -> Result<(), sqlx::Error> {
    let (column, overriding) = if position.is_empty() { ("", "") } else { ("position, ", "OVERRIDING SYSTEM VALUE") };
    let statement = format!(
        "INSERT INTO annals.events ({column}event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                    schema_version, event_data, metadata)
         {overriding} VALUES ({position} gen_random_uuid(), 'default', 'order', '{id}', {version}, 'placed', 1, '{{}}', '{{}}')"
    );
    run(connection, &statement).await
}

#[tokio::test]
async fn a_position_that_was_not_given_out_is_refused() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    // A gap at 2.
    insert(&mut foreign, "first").await;
    run(&mut foreign, "BEGIN").await.unwrap();
    insert(&mut foreign, "rolled-back").await;
    run(&mut foreign, "ROLLBACK").await.unwrap();
    insert(&mut foreign, "last").await;
    for position in ["-1,", "0,", "4,", "1000,", "9223372036854775807,"] {
        let refused = insert_at(&mut foreign, "by hand", 1, position).await.unwrap_err();
        assert_eq!(code(&refused), "23514", "{position} {refused}");
    }
    let mut newcomer = fixture.foreign().await;
    for position in ["-1,", "2,", "4,"] {
        let refused = insert_at(&mut newcomer, "by hand", 1, position).await;
        assert!(refused.is_err(), "{position}");
    }
    let without_override =
        "INSERT INTO annals.events (position, event_id, tenant, aggregate_type, aggregate_id, version,
                                event_type, schema_version, event_data, metadata)
                            VALUES (2, gen_random_uuid(), 'default', 'order', 'x', 1, 'placed', 1, '{}', '{}')";
    assert_eq!(code(&run(&mut foreign, without_override).await.unwrap_err()), "428C9");
    let log: Vec<_> = fixture.store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    assert_eq!(log.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [1, 3]);
}

/// A reader that waited for it to become final would wait forever.
#[tokio::test]
async fn a_row_beyond_the_sequence_is_reported_by_every_read() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    insert(&mut foreign, "first").await;
    fixture.store.head().await.unwrap();
    run(&mut foreign, "ALTER TABLE annals.events DISABLE TRIGGER USER").await.unwrap();
    insert_at(&mut foreign, "by hand", 1, "1000,").await.unwrap();
    run(&mut foreign, "ALTER TABLE annals.events ENABLE TRIGGER USER").await.unwrap();
    for filter in [Filter::all(), Filter::all().event_name("placed").unwrap()] {
        let after = Position::new(1).unwrap().into();
        match fixture.store.read_page(after, &filter, 10).await {
            Err(ReadError::Damaged { position, .. }) => assert_eq!(position.get(), 1000),
            other => panic!("{filter:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_version_that_was_numbered_before_the_one_below_is_refused() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let reversed = "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                               schema_version, event_data, metadata)
                    VALUES (gen_random_uuid(), 'default', 'order', 'x', 2, 'placed', 1, '{}', '{}'),
                           (gen_random_uuid(), 'default', 'order', 'x', 1, 'placed', 1, '{}', '{}')";
    assert_eq!(code(&run(&mut foreign, reversed).await.unwrap_err()), "23000");
}

/// The same between two transactions: the first has numbered version 2 when it must wait, the second then appends version 1.
#[tokio::test]
async fn a_version_that_was_numbered_before_another_transaction_appended_the_one_below_is_refused() {
    let fixture = Fixture::new().await;
    let (mut foreign, mut early, mut late) =
        (fixture.foreign().await, fixture.foreign().await, fixture.foreign().await);
    run(&mut foreign, "BEGIN").await.unwrap();
    insert(&mut foreign, "y").await;
    let both = "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                           schema_version, event_data, metadata)
                VALUES (gen_random_uuid(), 'default', 'order', 'x', 2, 'placed', 1, '{}', '{}'),
                       (gen_random_uuid(), 'default', 'order', 'y', 1, 'placed', 1, '{}', '{}')";
    let waiting = tokio::spawn(async move { run(&mut early, both).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query(waits).fetch_all(&mut late).await.unwrap()[0].get::<i64, _>(0) == 0 {
        tokio::task::yield_now().await;
    }
    insert(&mut late, "x").await;
    run(&mut foreign, "ROLLBACK").await.unwrap();
    assert_eq!(code(&waiting.await.unwrap().unwrap_err()), "23000");
}

/// A group that expects an event which another handle is about to append waits for a third one, and allocates its positions
/// before that event has its own. It must not be stored like that, and no caller gets an unexpected error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_rise_with_versions_though_a_group_waits_for_a_foreign_transaction() {
    let fixture = Fixture::new().await;
    let a = PostgresOptions::new(fixture.database.url()).writers(1).open().await.unwrap();
    let b = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    let mut foreign = fixture.foreign().await;
    for round in 0..12 {
        let (x, y) = (format!("a-{round}"), format!("b-{round}"));
        a.append(&stream(&x), ExpectedVersion::NoStream, (0..4).map(|_| event_for(&a)).collect()).await.unwrap();
        run(&mut foreign, "BEGIN").await.unwrap();
        insert(&mut foreign, &y).await;
        // Both are in one group: the writer is busy with another append while they arrive.
        let expected = |version| ExpectedVersion::Exact(StreamVersion::new(version).unwrap());
        let (sx, sy, busy) = (stream(&x), stream(&y), stream("busy"));
        let waits = async {
            tokio::join!(
                a.append(&busy, ExpectedVersion::Any, vec![event_for(&a)]),
                a.append(&sx, expected(5), vec![event_for(&a)]),
                a.append(&sy, ExpectedVersion::NoStream, vec![event_for(&a)]),
            )
        };
        let meanwhile = async {
            tokio::time::sleep(std::time::Duration::from_millis(round)).await;
            let appended = b.append(&sx, expected(4), vec![event_for(&b)]).await;
            run(&mut foreign, "ROLLBACK").await.unwrap();
            appended
        };
        let ((_, on_x, on_y), five) = tokio::join!(waits, meanwhile);
        five.unwrap();
        on_y.unwrap();
        if let Err(error) = on_x {
            assert!(matches!(error, annals_eventstore::AppendError::WrongExpectedVersion { .. }), "{error:?}");
        }
        let events: Vec<_> = a.load(&sx).try_collect().await.unwrap();
        assert!(events.is_sorted_by(|one, next| one.position < next.position), "{events:?}");
    }
}

/// Writers of another database of the server have nothing to do with this log.
#[tokio::test]
async fn no_read_waits_for_writers_of_another_database() {
    let (fixture, elsewhere) = (Fixture::new().await, Fixture::new().await);
    let mut writer = elsewhere.foreign().await;
    run(&mut writer, "BEGIN").await.unwrap();
    insert(&mut writer, "open").await;
    let mut foreign = fixture.foreign().await;
    run(&mut foreign, "BEGIN").await.unwrap();
    insert(&mut foreign, "rolled-back").await;
    run(&mut foreign, "ROLLBACK").await.unwrap();
    let done = fixture.append("a").await.unwrap();
    for filter in [Filter::all(), Filter::all().event_name("placed").unwrap()] {
        let page = fixture.store.read_page(After::START, &filter, 10).await.unwrap();
        assert_eq!(page.events.iter().map(|event| event.position).collect::<Vec<_>>(), [done.position]);
    }
    run(&mut writer, "ROLLBACK").await.unwrap();
}

/// A filtered read covers a window of the log; there may be matching events after it.
#[tokio::test]
async fn an_event_after_fifty_thousand_others_is_found_by_its_filter() {
    let fixture = Fixture::new().await;
    let others = "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                             schema_version, event_data, metadata)
                  SELECT gen_random_uuid(), 'default', 'other', 'x', n, 'other', 1, '{}', '{}'
                  FROM generate_series(1, 50001) AS n ORDER BY n";
    run(&mut fixture.foreign().await, others).await.unwrap();
    let expected = fixture.append("expected").await.unwrap();
    let filter = Filter::all().event_name("placed").unwrap();
    let found: Vec<_> = fixture.store.read_all(Position::START, filter).try_collect().await.unwrap();
    assert_eq!(found.iter().map(|event| event.position).collect::<Vec<_>>(), [expected.position]);
}

/// No reader could ever get past such an event, which can never be removed; and no time could be asked for.
#[tokio::test]
async fn an_event_at_a_time_that_no_reader_can_represent_is_refused() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    for (time, is_refused) in [
        ("infinity", true),
        ("-infinity", true),
        ("9999-12-30 22:00:00.000001+00", true),
        ("9999-12-30 22:00:00+00", false),
        ("4713-01-01 00:00:00+00 BC", false),
    ] {
        let statement = format!(
            "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                        event_data, metadata, recorded_at)
             VALUES (gen_random_uuid(), 'default', 'order', '{time}', 1, 'placed', 1, '{{}}', '{{}}', '{time}')"
        );
        match run(&mut foreign, &statement).await {
            Ok(()) => assert!(!is_refused, "{time}"),
            Err(refused) => assert!(is_refused && code(&refused) == "23514", "{time}: {refused}"),
        }
    }
    let log: Vec<_> = fixture.store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    assert_eq!(log.len(), 2);
}

/// A reader got none of the events of a page with a damaged row, however many were good.
#[tokio::test]
async fn the_good_events_before_a_damaged_row_are_given_and_then_the_error_without_its_content() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let stream = stream("a");
    fixture.store.append(&stream, ExpectedVersion::Any, vec![fixture.event(), fixture.event()]).await.unwrap();
    run(&mut foreign, "ALTER TABLE annals.events DISABLE TRIGGER USER").await.unwrap();
    let constraints = "DO $$ DECLARE c record; BEGIN
        FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'annals.events'::regclass AND contype = 'c' LOOP
            EXECUTE format('ALTER TABLE annals.events DROP CONSTRAINT %I', c.conname);
        END LOOP; END $$";
    run(&mut foreign, constraints).await.unwrap();
    let row = r#"INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                            event_data, metadata)
                 VALUES (gen_random_uuid(), 'default', 'order', 'a', 3, 'placed', 1, '{}', '{"$actor": {"secret": 1}}')"#;
    run(&mut foreign, row).await.unwrap();
    run(&mut foreign, "ALTER TABLE annals.events ENABLE TRIGGER USER").await.unwrap();
    fixture.store.append(&stream, ExpectedVersion::Any, vec![fixture.event()]).await.unwrap();

    let is_damaged = |answer: Option<ReadError>| match answer {
        Some(error @ ReadError::Damaged { position, .. }) => {
            assert_eq!(position.get(), 3);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        other => panic!("{other:?}"),
    };
    for filter in [Filter::all(), Filter::all().aggregate_type("order").unwrap()] {
        let page = fixture.store.read_page(After::START, &filter, 10).await.unwrap();
        assert_eq!(page.events.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [1, 2]);
        assert!(!page.end);
        let last = page.checkpoint.unwrap();
        assert_eq!((last.position, last.event_id), (page.events[1].position, Some(page.events[1].event_id)));
        is_damaged(fixture.store.read_page(last.into(), &filter, 10).await.err());
    }
    let page = fixture.store.load_page(&stream, StreamVersion::NONE, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (2, false));
    is_damaged(fixture.store.load_page(&stream, page.events[1].version, 10).await.err());
}
