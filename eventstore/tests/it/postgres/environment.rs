//! The environment of a store: other databases, lost connections, a standby, a sequence that was reset.

use std::time::Duration;

use annals_eventstore::{
    Append, AppendError, DatabaseError, ErrorFamily, EventStore, ExpectedVersion, Filter, Position, PostgresOptions,
    PostgresStore, ReadError, StreamVersion,
};
use annals_scratch::Database;
use sqlx::{Connection, PgConnection};

use super::faults::blocked_backend;
use super::{Fixture, insert, run, stream};

const START: StreamVersion = StreamVersion::NONE;

/// The positions of the page after `after`.
async fn page(store: &PostgresStore, after: i64) -> Result<Vec<i64>, ReadError> {
    let page = store.read_page(Position::new(after).unwrap().into(), &Filter::all(), 10).await?;
    Ok(page.events.iter().map(|event| event.position.get()).collect())
}

/// An event, a gap, and another event.
async fn with_a_gap(fixture: &Fixture) -> (i64, i64) {
    let first = fixture.append("first").await.unwrap().position.get();
    let mut rolled_back = fixture.foreign().await;
    run(&mut rolled_back, "BEGIN").await.unwrap();
    insert(&mut rolled_back, "rolled-back").await;
    run(&mut rolled_back, "ROLLBACK").await.unwrap();
    let last = fixture.append("last").await.unwrap().position.get();
    assert_eq!(last, first + 2);
    (first, last)
}

#[tokio::test]
async fn after_a_lost_server_only_one_call_fails() {
    let fixture = Fixture::new().await;
    let store = PostgresOptions::new(fixture.database.url()).connections(4).open().await.unwrap();
    let a = stream("a");
    let loads = futures::future::join_all((0..4).map(|_| store.load_page(&a, START, 1))).await;
    assert!(loads.iter().all(Result::is_ok), "{loads:?}");
    let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'annals'";
    run(&mut fixture.foreign().await, all).await.unwrap();
    // An idle connection would have been pinged first.
    if let Err(error) = store.load_page(&a, START, 1).await {
        assert!(error.is_transient(), "{error:?}");
    }
    for _ in 0..4 {
        store.load_page(&a, START, 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_without_a_free_connection_times_out() {
    let fixture = Fixture::new().await;
    let limit = Duration::from_millis(50);
    let options = PostgresOptions::new(fixture.database.url()).connections(1).connection_timeout(limit);
    let store = options.open().await.unwrap();
    let taken = store.database().read().await.unwrap();
    let a = stream("a");
    let waiting = tokio::time::timeout(Duration::from_secs(2), store.database().read());
    let error = waiting.await.expect("it waits no longer than its timeout").err().expect("none is free");
    assert!(matches!(error, DatabaseError::Unavailable { .. }), "{error:?}");
    // Reads of the store have their own.
    store.load_page(&a, START, 1).await.unwrap();
    drop(taken);
    // It is cleaned first.
    while store.database().read().await.is_err() {}
}

#[tokio::test]
async fn an_append_that_loses_a_deadlock_is_tried_again() {
    let fixture = Fixture::new().await;
    // The one whose timeout expires first is ended, if both wait by then; the rival has a longer timeout.
    let longer = format!("ALTER DATABASE {} SET deadlock_timeout = '2s'", fixture.database.name());
    run(&mut fixture.foreign().await, &longer).await.unwrap();
    let store = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    let mut rival = fixture.foreign().await;
    run(&mut rival, "SET deadlock_timeout = '10min'; BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let events = [fixture.event(), fixture.event()];
    let appending = tokio::spawn(async move {
        let [first, second] = events.map(|event| vec![event]);
        let append = Append::to(stream("b"), ExpectedVersion::NoStream, first);
        store.append_many(append.and(stream("a"), ExpectedVersion::NoStream, second)).await
    });
    // It has its row of `b` and waits for the rival's of `a`. The rival writes `b`, so the server ends ours.
    blocked_backend(&mut fixture.foreign().await).await;
    insert(&mut rival, "b").await;
    run(&mut rival, "ROLLBACK").await.unwrap();
    let done = appending.await.unwrap().unwrap();
    assert_eq!(done.streams.iter().map(|s| s.version.get()).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn writers_of_another_database_block_no_reader() {
    let fixture = Fixture::new().await;
    let elsewhere = Database::empty().await;
    let mut other = PgConnection::connect(elsewhere.url()).await.unwrap();
    run(&mut other, "CREATE SCHEMA annals; CREATE TABLE annals.events (position bigint)").await.unwrap();
    run(&mut other, "BEGIN; INSERT INTO annals.events VALUES (1)").await.unwrap();
    let (first, last) = with_a_gap(&fixture).await;
    assert_eq!(page(&fixture.store, first).await.unwrap(), [last]);
    assert_eq!(fixture.store.head().await.unwrap().position.get(), last);
}

/// The server is not a standby; it only reports so to this database.
#[tokio::test]
async fn a_standby_returns_events_up_to_a_gap_and_reports_why_it_stops_there() {
    let fixture = Fixture::new().await;
    let (first, last) = with_a_gap(&fixture).await;
    let pretend = "CREATE SCHEMA pretended;
                   CREATE FUNCTION pretended.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true';
                   DO $$ BEGIN
                       EXECUTE format('ALTER DATABASE %I SET search_path = pretended, pg_catalog', current_database());
                   END $$";
    run(&mut fixture.foreign().await, pretend).await.unwrap();
    let standby = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    assert_eq!(page(&standby, 0).await.unwrap(), [first]);
    assert_eq!(standby.head().await.unwrap().position.get(), first);
    let wanted = Filter::all().event_name("placed").unwrap();
    let filtered = standby.read_page(Position::START.into(), &wanted, 10).await.unwrap();
    assert_eq!((filtered.events.len(), filtered.checkpoint.unwrap().position.get(), filtered.end), (1, first, false));
    let other = Filter::all().event_name("other").unwrap();
    let none = standby.read_page(Position::START.into(), &other, 10).await.unwrap();
    assert_eq!((none.events.len(), none.checkpoint.unwrap().position.get()), (0, first), "it moves on over others");
    let after = Position::new(first).unwrap().into();
    for error in [page(&standby, first).await.unwrap_err(), standby.read_page(after, &wanted, 10).await.unwrap_err()] {
        assert!(error.is_transient(), "{error:?}");
        let why = std::error::Error::source(&error).expect("it has a cause").to_string();
        assert!(why.contains("read from the primary"), "{why}");
    }
    let after = Position::new(last).unwrap().into();
    assert!(standby.read_page(after, &wanted, 10).await.unwrap().end);
    let no_more = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET search_path', current_database()); END $$";
    run(&mut fixture.foreign().await, no_more).await.unwrap();
    assert_eq!(page(&fixture.store, first).await.unwrap(), [last], "the primary knows");
}

#[tokio::test]
async fn a_sequence_that_was_reset_under_an_open_handle_is_detected() {
    let fixture = Fixture::new().await;
    for id in ["a", "b", "c"] {
        fixture.append(id).await.unwrap();
    }
    let handle = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    let mut foreign = fixture.foreign().await;
    run(&mut foreign, "SELECT setval('annals.events_position', 2)").await.unwrap();
    match handle.append(&stream("d"), ExpectedVersion::Any, vec![fixture.event()]).await.unwrap_err() {
        AppendError::Broken { what, remedy } => {
            assert!(what.contains("is at 2, but the log ends at 3"), "{what}");
            assert!(remedy.contains("setval('annals.events_position', 3)"), "{remedy}");
        }
        other => panic!("expected a broken store: {other:?}"),
    }
    assert_eq!(handle.head().await.unwrap_err().family(), ErrorFamily::Broken);
    run(&mut foreign, "SELECT setval('annals.events_position', 3)").await.unwrap();
    let done = handle.append(&stream("d"), ExpectedVersion::Any, vec![fixture.event()]).await.unwrap();
    assert_eq!(done.position.get(), 4);
}
