//! The guarantees of a unit of work: all or nothing, with any concurrent writers.

use std::time::Duration;

use annals_eventstore::{
    AggregateStore, Append, AppendError, DatabaseError, ErrorFamily, EventStore, ExecuteError, ExpectedVersion, Filter,
    Fingerprint, Payload, PostgresOptions, PostgresStore, PostgresUnitOfWork, Repeat, RequestKey, StreamVersion,
    Tenant, UnitOfWork,
};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::time::Instant;

use crate::order::{Order, OrderId};

use super::{ANY, Fixture, NO_STREAM, append_blocked, heads, kill, own_row, pid, run, stream};

#[tokio::test]
async fn events_and_own_rows_are_committed_together_or_neither() {
    let fixture = Fixture::with_table().await;
    let mut unit = fixture.store.begin().await.unwrap();
    own_row(&mut unit, 1).await.unwrap();
    let done = unit.append(fixture.to("a", NO_STREAM, 2)).await.unwrap();
    assert_eq!((done.version().get(), done.repeated), (2, false));
    assert_eq!(fixture.stored().await, (vec![], vec![]), "it is invisible before");
    unit.commit().await.unwrap();
    assert_eq!(fixture.stored().await, (heads(&[("a", 2)]), vec![1]));

    for rolled_back in [true, false] {
        let mut unit = fixture.store.begin().await.unwrap();
        own_row(&mut unit, 2).await.unwrap();
        unit.append(fixture.to("b", NO_STREAM, 1)).await.unwrap();
        match rolled_back {
            true => unit.rollback().await.unwrap(),
            false => drop(unit),
        }
        fixture.store.append_many(fixture.to("a", ANY, 1)).await.unwrap();
        assert_eq!(fixture.stored().await.1, [1]);
    }
    assert_eq!(fixture.stored().await.0, heads(&[("a", 4)]));
}

#[tokio::test]
async fn readers_are_woken_by_the_commit_and_see_nothing_after_an_open_unit() {
    let fixture = Fixture::with_table().await;
    let options = PostgresOptions::new(fixture.database.url()).poll_interval(Duration::from_secs(3600));
    let store = options.open().await.unwrap();
    let mut head = store.watch();
    let mut unit = store.begin().await.unwrap();
    let first = unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    assert!(!head.has_changed().unwrap());
    unit.commit().await.unwrap();
    assert!(head.has_changed().unwrap());
    assert_eq!(*head.borrow_and_update(), first.position);

    let mut unit = store.begin().await.unwrap();
    let mine = unit.append(fixture.to("a", ANY, 1)).await.unwrap();
    let other = fixture.append("b").await.unwrap();
    assert!(other.position > mine.position);
    let page = store.read_page(first.position.into(), &Filter::all(), 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (0, false), "the later event waits for the earlier one");
    unit.commit().await.unwrap();
    let page = store.read_page(first.position.into(), &Filter::all(), 10).await.unwrap();
    let positions: Vec<_> = page.events.iter().map(|event| event.position).collect();
    assert_eq!(positions, [mine.position, other.position]);
}

#[tokio::test]
async fn a_refused_append_leaves_the_unit_usable_and_unchanged() {
    let fixture = Fixture::with_table().await;
    let first = fixture.to("a", NO_STREAM, 2);
    fixture.store.append_many(first.clone()).await.unwrap();
    fill("full", &fixture).await;
    let key = |body: u8| RequestKey::new("form-1", Fingerprint::of(&body).unwrap()).unwrap();
    fixture.store.append_many(Append::request_only(Tenant::default(), key(1))).await.unwrap();

    let mut unit = fixture.store.begin().await.unwrap();
    own_row(&mut unit, 1).await.unwrap();
    let conflict = unit.append(fixture.to("b", NO_STREAM, 3).and(stream("a"), NO_STREAM, vec![fixture.event()])).await;
    match conflict.unwrap_err() {
        AppendError::WrongExpectedVersion { stream: at, actual, .. } => {
            assert_eq!((at, actual.get()), (stream("a"), 2))
        }
        other => panic!("{other:?}"),
    }
    let mut forged = fixture.event();
    let taken = fixture.event();
    unit.append(Append::to(stream("c"), NO_STREAM, vec![taken.clone()])).await.unwrap();
    forged.event_id = taken.event_id;
    forged.payload = Payload::from_json("[1]").unwrap();
    for expected in [ANY, NO_STREAM] {
        match unit.append(Append::to(stream("c"), expected, vec![forged.clone()])).await.unwrap_err() {
            AppendError::EventIdTaken { how, .. } => assert_eq!(how, Repeat::OtherContent),
            other => panic!("{other:?}"),
        }
    }
    let full = unit.append(fixture.to("full", ANY, 1)).await.unwrap_err();
    assert!(matches!(full, AppendError::StreamFull { .. }), "{full:?}");
    let reused = unit.append(fixture.to("d", ANY, 1).with_request(key(2))).await.unwrap_err();
    assert!(matches!(reused, AppendError::RequestKeyReused { .. }), "{reused:?}");
    let late = unit.append(fixture.to("d", ANY, 1).with_deadline(Instant::now())).await.unwrap_err();
    assert!(matches!(late, AppendError::DeadlineExceeded { .. }), "{late:?}");
    let invalid = unit.append(Append::to(stream("d"), ANY, vec![])).await.unwrap_err();
    assert_eq!(invalid.family(), ErrorFamily::Invalid, "{invalid:?}");
    // The same append again gets its first answer, whether it was committed before or is part of this unit.
    let again = unit.append(first).await.unwrap();
    assert_eq!((again.version().get(), again.repeated), (2, true));
    let again = unit.append(Append::to(stream("c"), ANY, vec![taken])).await.unwrap();
    assert_eq!((again.version().get(), again.repeated), (1, true));
    unit.append(fixture.to("a", StreamVersion::new(2).unwrap().into(), 1)).await.unwrap();
    unit.commit().await.unwrap();
    let (streams, rows) = fixture.stored().await;
    assert_eq!(streams, heads(&[("a", 3), ("c", 1), ("full", i64::MAX)]));
    assert_eq!(rows, [1]);
}

/// Puts an event at the last version that there is.
async fn fill(id: &str, fixture: &Fixture) {
    let statement = format!(
        "ALTER TABLE annals.events DISABLE TRIGGER events_continue_their_stream;
         INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                    event_data, metadata)
         VALUES (gen_random_uuid(), 'default', 'order', '{id}', 9223372036854775807, 'x', 1, '{{}}', '{{}}');
         ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_continue_their_stream"
    );
    run(&mut fixture.foreign().await, &statement).await.unwrap();
}

#[tokio::test]
async fn of_two_units_on_one_stream_the_second_waits_for_the_first_and_sees_its_result() {
    for (committed, expected) in [(true, NO_STREAM), (true, ANY), (false, NO_STREAM), (false, ANY)] {
        let fixture = Fixture::with_table().await;
        let mut first = fixture.store.begin().await.unwrap();
        first.append(fixture.to("a", NO_STREAM, 2)).await.unwrap();
        let mut second = fixture.store.begin().await.unwrap();
        own_row(&mut second, 2).await.unwrap();
        let waiting = append_blocked(&fixture, second, fixture.to("a", expected, 1)).await;
        match committed {
            true => first.commit().await.unwrap(),
            false => first.rollback().await.unwrap(),
        }
        let (second, appended) = waiting.await.unwrap();
        let version = match appended {
            Ok(appended) => appended.version().get(),
            Err(AppendError::WrongExpectedVersion { actual, .. }) => {
                assert!(committed && expected == NO_STREAM, "it was true");
                assert_eq!(actual.get(), 2);
                2
            }
            Err(other) => panic!("{other:?}"),
        };
        second.commit().await.unwrap();
        let expected_head = match (committed, expected) {
            (true, ExpectedVersion::Any) => 3,
            (true, _) => 2,
            (false, _) => 1,
        };
        assert_eq!(version, expected_head);
        assert_eq!(fixture.stored().await, (heads(&[("a", expected_head)]), vec![2]));
    }
}

#[tokio::test]
async fn an_append_that_is_blocked_for_too_long_is_refused_and_the_unit_stays_usable() {
    let fixture = Fixture::with_table().await;
    let impatient = "
        DO $$ BEGIN
            EXECUTE format('ALTER FUNCTION %s SET lock_timeout = 50', 'annals.append'::regproc::regprocedure);
        END $$";
    run(&mut fixture.foreign().await, impatient).await.unwrap();
    let mut first = fixture.store.begin().await.unwrap();
    first.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    let mut second = fixture.store.begin().await.unwrap();
    own_row(&mut second, 2).await.unwrap();
    second.append(fixture.to("b", NO_STREAM, 1)).await.unwrap();
    let error = second.append(fixture.to("a", ANY, 1)).await.unwrap_err();
    assert!(matches!(error, AppendError::Busy { .. }), "{error:?}");
    second.append(fixture.to("b", ANY, 1)).await.unwrap();
    second.commit().await.unwrap();
    first.rollback().await.unwrap();
    assert_eq!(fixture.stored().await, (heads(&[("b", 2)]), vec![2]));
}

#[tokio::test]
async fn one_of_two_deadlocked_units_is_ended_and_stores_nothing() {
    let fixture = Fixture::with_table().await;
    let mut units = Vec::new();
    for (n, id) in [(1, "a"), (2, "b")] {
        let mut unit = fixture.store.begin().await.unwrap();
        own_row(&mut unit, n).await.unwrap();
        unit.append(fixture.to(id, NO_STREAM, 1)).await.unwrap();
        units.push((n, unit));
    }
    let (mut second, mut first) = (units.pop().unwrap(), units.pop().unwrap());
    let ended = async |(n, unit): &mut (i32, PostgresUnitOfWork), id: &str| {
        let appended = unit.append(fixture.to(id, ANY, 1)).await;
        appended.map(|_| *n)
    };
    // The victim is rolled back at once, so the other continues while it is still open.
    let (one, other) = tokio::join!(ended(&mut first, "b"), ended(&mut second, "a"));
    let (winner, victim) = if one.is_ok() { (first, second) } else { (second, first) };
    let error = one.and(other).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let (_, mut victim) = victim;
    let error = victim.append(fixture.to("c", ANY, 1)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let error = victim.commit().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let (n, winner) = winner;
    winner.commit().await.unwrap();
    let (streams, rows) = fixture.stored().await;
    let (own, others) = if n == 1 { ("a", "b") } else { ("b", "a") };
    assert_eq!(rows, [n]);
    let mut wanted = heads(&[(own, 1), (others, 1)]);
    wanted.sort();
    assert_eq!(streams, wanted);
}

#[tokio::test]
async fn a_unit_in_which_an_own_statement_failed_stores_nothing_and_reports_it() {
    let fixture = Fixture::with_table().await;
    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    own_row(&mut unit, 1).await.unwrap();
    own_row(&mut unit, 1).await.unwrap_err();
    // Not transient: the same statements may always fail.
    let is_aborted = |error: AppendError| {
        assert!(matches!(&error, AppendError::Invalid(e) if e.field == "transaction"), "{error:?}");
    };
    is_aborted(unit.append(fixture.to("b", NO_STREAM, 1)).await.unwrap_err());
    let orders = fixture.store.aggregate::<Order>();
    let error = unit.execute(&orders, &OrderId::new("o-1").unwrap(), |order| order.place(5)).await.unwrap_err();
    assert!(matches!(&error, ExecuteError::Invalid(e) if e.field == "transaction"), "{error:?}");
    is_aborted(unit.commit().await.unwrap_err());

    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    own_row(&mut unit, 1).await.unwrap();
    own_row(&mut unit, 1).await.unwrap_err();
    is_aborted(unit.commit().await.unwrap_err());
    assert_eq!(fixture.stored().await, (vec![], vec![]));
    // Inside of a savepoint a failure is no harm, also to appends before and after.
    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    own_row(&mut unit, 1).await.unwrap();
    let mut savepoint = (*unit).begin().await.unwrap();
    own_row(&mut savepoint, 1).await.unwrap_err();
    savepoint.rollback().await.unwrap();
    unit.append(fixture.to("a", ANY, 1)).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(fixture.stored().await, (heads(&[("a", 2)]), vec![1]));
}

#[tokio::test]
async fn an_append_with_a_malformed_answer_is_never_committed() {
    let fixture = Fixture::with_table().await;
    let other_answer = "
        DO $$ BEGIN
            EXECUTE replace(pg_get_functiondef('annals.append_within'::regproc), 'RETURN annals.append(',
                            'outcome := annals.append(');
            EXECUTE replace(pg_get_functiondef('annals.append_within'::regproc), 'EXCEPTION',
                            'outcome.kind := ''perhaps''; RETURN outcome; EXCEPTION');
        END $$";
    run(&mut fixture.foreign().await, other_answer).await.unwrap();
    let mut unit = fixture.store.begin().await.unwrap();
    let error = unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap_err();
    assert_eq!(error.family(), ErrorFamily::Broken, "{error:?}");
    unit.commit().await.unwrap_err();
    assert_eq!(fixture.stored().await.0, []);
}

#[tokio::test]
async fn a_constraint_of_the_users_that_refuses_the_commit_is_named_and_nothing_is_stored() {
    let fixture = Fixture::with_table().await;
    let deferred = "ALTER TABLE mine ADD COLUMN m int, ADD UNIQUE (m) DEFERRABLE INITIALLY DEFERRED";
    run(&mut fixture.foreign().await, deferred).await.unwrap();
    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    run(&mut unit, "INSERT INTO mine VALUES (1, 7), (2, 7)").await.unwrap();
    match unit.commit().await.unwrap_err() {
        AppendError::Invalid(invalid) => {
            assert_eq!(invalid.field, "transaction");
            assert!(invalid.to_string().contains("mine_m_key"), "{invalid}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.stored().await, (vec![], vec![]));
}

#[tokio::test]
async fn a_unit_that_is_idle_for_too_long_is_ended_and_the_next_call_fails() {
    let fixture = Fixture::with_table().await;
    let options = PostgresOptions::new(fixture.database.url()).idle_timeout(Duration::from_millis(50));
    let store = options.open().await.unwrap();
    let mut unit = store.begin().await.unwrap();
    unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    // Readers wait at its position until it is ended; then they continue.
    let other = fixture.append("b").await.unwrap();
    while fixture.store.head().await.unwrap().position < other.position {}
    let error = unit.append(fixture.to("a", ANY, 1)).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable { .. }), "{error:?}");
    unit.commit().await.unwrap_err();
    assert_eq!(fixture.stored().await.0, heads(&[("b", 1)]));
}

#[tokio::test]
async fn a_connection_lost_before_the_commit_was_answered_leaves_it_unknown_until_it_is_repeated() {
    let fixture = Fixture::with_table().await;
    let append = fixture.to("a", NO_STREAM, 2);
    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(append.clone()).await.unwrap();
    let pid = pid(&mut unit).await;
    kill(&fixture.database, pid).await;
    match unit.commit().await.unwrap_err() {
        AppendError::OutcomeUnknown { stream: at, .. } => assert_eq!(at, stream("a")),
        other => panic!("{other:?}"),
    }
    assert!(!fixture.store.append_many(append.clone()).await.unwrap().repeated);
    assert!(fixture.store.append_many(append).await.unwrap().repeated);
}

#[tokio::test]
async fn a_closed_store_begins_nothing() {
    let fixture = Fixture::with_table().await;
    let unit = fixture.store.begin().await.unwrap();
    let store = fixture.store.clone();
    let closing = tokio::spawn(async move { store.close().await });
    unit.commit().await.unwrap();
    closing.await.unwrap();
    assert!(matches!(fixture.store.begin().await.err().unwrap(), AppendError::Closed));
    let mut foreign = fixture.foreign().await;
    let mut late = foreign.begin().await.unwrap();
    let error = fixture.store.append_in(&mut late, fixture.to("a", ANY, 1)).await.unwrap_err();
    assert!(matches!(error, AppendError::Closed), "{error:?}");
}

#[tokio::test]
async fn a_standby_or_a_read_only_server_is_reported_when_a_unit_appends() {
    let fixture = Fixture::with_table().await;
    let database: String =
        sqlx::query("SELECT current_database()").fetch_one(&mut fixture.foreign().await).await.unwrap().get(0);
    let only_reads = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    sqlx::raw_sql(AssertSqlSafe(only_reads)).execute(&mut fixture.foreign().await).await.unwrap();
    let store = PostgresStore::open(fixture.database.url()).await.unwrap();
    let mut unit = store.begin().await.unwrap();
    let error = unit.append(fixture.to("a", ANY, 1)).await.unwrap_err();
    assert!(matches!(error, AppendError::ReadOnly { .. }), "{error:?}");
}

/// A shutdown never ended.
#[tokio::test]
async fn closing_ends_while_a_unit_of_work_and_a_reader_are_open_and_the_unit_may_still_commit() {
    let fixture = Fixture::with_table().await;
    let wait = Duration::from_millis(200);
    let store = PostgresOptions::new(fixture.database.url()).connection_timeout(wait).open().await.unwrap();
    let mut unit = store.begin().await.unwrap();
    unit.append(fixture.to("a", NO_STREAM, 1)).await.unwrap();
    let mut reader = store.database().read().await.unwrap();
    let reading = pid(&mut reader).await;
    let begun = Instant::now();
    tokio::time::timeout(Duration::from_secs(10), store.close()).await.expect("closed");
    assert!(begun.elapsed() >= wait, "it did not wait: {:?}", begun.elapsed());
    assert!(matches!(store.database().read().await, Err(DatabaseError::Closed)));
    unit.commit().await.unwrap();
    assert_eq!(fixture.stored().await.0, heads(&[("a", 1)]));
    drop(reader);
    // Its connection is closed, not kept for a next user.
    let open = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {reading}");
    let mut foreign = fixture.foreign().await;
    let closed = async {
        while sqlx::query(AssertSqlSafe(open.clone())).fetch_one(&mut foreign).await.unwrap().get::<i64, _>(0) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("its connection is closed");
}
