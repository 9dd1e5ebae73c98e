//! Servers that crash under readers and writers.

use std::time::Duration;

use annals_eventstore::{EventStore, Filter, Position, PostgresOptions, PostgresStore};
use annals_scratch::{Server, Stop};
use sqlx::{Connection, PgConnection, Row};

use super::{insert, run};

/// The positions that a reader is given, without waiting for more than is final.
pub(super) async fn positions(store: &PostgresStore, filter: &Filter) -> Vec<i64> {
    let (mut after, mut seen) = (Position::START, Vec::new());
    loop {
        match store.read_page(after.into(), filter, 100).await {
            Ok(page) => {
                seen.extend(page.events.iter().map(|event| event.position.get()));
                match page.checkpoint {
                    Some(checkpoint) if !page.end => after = checkpoint.position,
                    _ => return seen,
                }
            }
            Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) async fn connect(server: &Server) -> PgConnection {
    loop {
        match PgConnection::connect(&server.url("postgres")).await {
            Ok(connection) => return connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Crash {
    StopAndStart,
    /// The server recovers by itself. Its start time does not change.
    KilledBackend,
}

/// Positions that were allocated and rolled back are allocated again after a crash, if they were not flushed. A reader that
/// has read the last allocated position before the crash, and waits for the writers of that time, would take the new events
/// for final too soon and miss an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_through_a_restart_misses_no_reallocated_position() {
    check_reallocated(Crash::StopAndStart, Filter::all().event_name("placed").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_through_a_recovery_misses_no_reallocated_position() {
    check_reallocated(Crash::KilledBackend, Filter::all()).await;
}

async fn check_reallocated(crash: Crash, filter: Filter) {
    // Nothing is flushed before a commit waits for it.
    let server = Server::start(&[("wal_writer_delay", "10s")]);
    let store = PostgresOptions::new(server.url("postgres")).migrate().connections(2).open().await.unwrap();
    let mut quick = connect(&server).await;
    let mut slow = connect(&server).await;
    let first = insert(&mut quick, "first").await;
    // Transaction ids start again after a crash: without these, the next one would have the same name.
    for _ in 0..5 {
        run(&mut slow, "SELECT 1").await.unwrap();
    }
    run(&mut slow, "BEGIN").await.unwrap();
    insert(&mut slow, "slow").await;
    let second = insert(&mut quick, "second").await;
    // Without rows, as then the journal is flushed only when one of its pages is full. And without a rollback before the
    // crash, as that would wake the process that flushes.
    run(&mut quick, "BEGIN").await.unwrap();
    let allocate = "SELECT max(nextval('annals.events_position')) FROM generate_series(1, 100)";
    let allocated: i64 = sqlx::query(allocate).fetch_all(&mut quick).await.unwrap()[0].get(0);
    assert_eq!(positions(&store, &filter).await, [first], "the wait begins ({crash:?})");

    match crash {
        Crash::StopAndStart => server.restart(Stop::Immediate),
        Crash::KilledBackend => {
            let rows = sqlx::query("SELECT pg_backend_pid()").fetch_all(&mut slow).await.unwrap();
            server.kill_backend(rows[0].get(0));
            while run(&mut quick, "SELECT 1").await.is_ok() {}
        }
    }
    let mut quick = connect(&server).await;
    let mut slow = connect(&server).await;
    run(&mut slow, "BEGIN").await.unwrap();
    let held = insert(&mut slow, "held").await;
    let last = insert(&mut quick, "last").await;
    assert!(
        held < last && last < allocated,
        "{held} and {last} are not among the {allocated} that were allocated before"
    );
    let seen = positions(&store, &filter).await;
    assert!(!seen.contains(&last), "{seen:?}: a reader that continues after {last} misses {held} ({crash:?})");
    run(&mut slow, "COMMIT").await.unwrap();
    assert_eq!(positions(&store, &filter).await, [first, second, held, last], "({crash:?})");
}
