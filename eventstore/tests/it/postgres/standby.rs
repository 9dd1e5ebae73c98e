//! A standby: it is read from, refuses appends, and takes them once it is the primary.

use std::time::Duration;

use annals_eventstore::{
    Append, AppendError, AsOf, EventStore, EventStoreExt, ExpectedVersion, Filter, Position, PostgresOptions,
};
use annals_scratch::{Server, Stop};
use futures::StreamExt;
use sqlx::{Connection, PgConnection};

use super::{event_for, insert, run, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_read_from_and_takes_appends_when_it_is_promoted() {
    let primary = Server::start(&[]);
    let store = PostgresOptions::new(primary.url("postgres")).migrate().open().await.unwrap();
    let first = store.append(&stream("first"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    let second = tokio::task::block_in_place(|| primary.standby());
    let standby = PostgresOptions::new(second.url("postgres")).open().await.unwrap();
    let mut subscription = standby.subscribe(Position::START, Filter::all());
    let mut next = async || {
        let event = tokio::time::timeout(Duration::from_secs(20), subscription.next()).await;
        event.expect("it comes").unwrap().unwrap().stream
    };
    assert_eq!(next().await, stream("first"));
    // What the primary takes is read here, as long as no number is missing.
    store.append(&stream("second"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    assert_eq!(next().await, stream("second"));
    // Through a filter too, and the end of it is its head.
    let filter = Filter::all().event_name("placed").unwrap();
    let page = standby.read_page(Position::START.into(), &filter, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (2, true));
    assert_eq!(standby.head().await.unwrap().position, page.events[1].position);
    // So is the past of what it has; for what comes next it would have to know the writers on the primary.
    for past in [AsOf::position(first.position), AsOf::time(first.recorded_at)] {
        let fresh = PostgresOptions::new(second.url("postgres")).open().await.unwrap();
        assert_eq!(fresh.log_as_of(past).await.unwrap().position, first.position, "{past}");
        fresh.close().await;
    }
    let unknown = standby.log_as_of(AsOf::time(jiff::Timestamp::MAX)).await.unwrap_err();
    assert!(unknown.is_transient(), "{unknown:?}");
    let mut rolled_back = PgConnection::connect(&primary.url("postgres")).await.unwrap();
    run(&mut rolled_back, "BEGIN").await.unwrap();
    insert(&mut rolled_back, "rolled-back").await;
    run(&mut rolled_back, "ROLLBACK").await.unwrap();
    store.append(&stream("third"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();

    let appends = [1, 3, 40].map(|count| {
        let events = (0..count).map(|_| event_for(&standby)).collect();
        Append::to(stream(&format!("of {count}")), ExpectedVersion::NoStream, events)
    });
    for append in &appends {
        let error = standby.append_many(append.clone()).await.unwrap_err();
        assert!(matches!(error, AppendError::ReadOnly { .. }), "{error:?}");
    }
    // It must have got all before the primary goes.
    let mut replayed = PgConnection::connect(&second.url("postgres")).await.unwrap();
    let there = "DO $$ BEGIN
                     WHILE (SELECT count(*) FROM annals.events) < 3 LOOP PERFORM pg_sleep(0.005); END LOOP;
                 END $$";
    run(&mut replayed, there).await.unwrap();
    tokio::task::block_in_place(|| {
        primary.stop(Stop::Immediate);
        second.promote();
    });
    // By the same handle, and the subscription continues after the gap.
    for append in appends {
        assert!(!standby.append_many(append).await.unwrap().repeated);
    }
    assert_eq!(next().await, stream("third"));
    assert_eq!(next().await, stream("of 1"));
}
