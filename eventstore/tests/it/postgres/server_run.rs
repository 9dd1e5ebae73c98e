//! A run of the server ends and loses commits that were not flushed: what was read in it is invalid.

use std::time::Duration;

use annals_eventstore::{After, EventStore, EventStoreExt, ExpectedVersion, Filter, PostgresOptions, ReadError};
use annals_scratch::{Server, Stop};
use futures::{FutureExt, StreamExt};
use sqlx::{Connection, PgConnection, Row};

use super::{event_for, insert, run, stream};

async fn connect(server: &Server) -> PgConnection {
    loop {
        match PgConnection::connect(&server.url("postgres")).await {
            Ok(connection) => return connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Stopped,
    /// The server recovers by itself, and its start time does not change.
    KilledBackend,
}

/// A handle has read commits that a crash then loses. It must not return events that are written again at their positions
/// before the events below them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_written_after_a_crash_are_not_final_by_what_was_known_before() {
    for end in [End::Stopped, End::KilledBackend] {
        let server = Server::start(&[("wal_writer_delay", "10s")]);
        let store = PostgresOptions::new(server.url("postgres")).migrate().open().await.unwrap();
        let (mut writer, mut other) = (connect(&server).await, connect(&server).await);
        let kept = insert(&mut writer, "kept").await;
        run(&mut writer, "SET synchronous_commit = off").await.unwrap();
        // Stops the process that flushes in the background. The crash ends it too.
        let pid = sqlx::query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
        let pid: i32 = pid.fetch_all(&mut writer).await.unwrap()[0].get(0);
        let stopped = std::process::Command::new("kill").args(["-STOP", &pid.to_string()]).status();
        assert!(stopped.is_ok_and(|status| status.success()));
        // More than the sequence logs in advance, so that their positions are allocated again.
        for n in 0..60 {
            insert(&mut writer, &format!("lost-{n}")).await;
        }
        let all = Filter::all();
        let filters = [all.clone(), all.event_name("placed").unwrap()];
        for filter in &filters {
            assert_eq!(store.read_page(After::START, filter, 100).await.unwrap().events.len(), 61, "{end:?}");
        }
        let mut proven = store.subscribe(store.head().await.unwrap(), Filter::all());
        assert!(proven.next().now_or_never().is_none());
        match end {
            End::Stopped => tokio::task::block_in_place(|| server.restart(Stop::Immediate)),
            End::KilledBackend => {
                let rows = sqlx::query("SELECT pg_backend_pid()").fetch_all(&mut writer).await.unwrap();
                server.kill_backend(rows[0].get(0));
                while run(&mut other, "SELECT 1").await.is_ok() {}
            }
        }
        let (mut slow, mut quick) = (connect(&server).await, connect(&server).await);
        run(&mut slow, "BEGIN").await.unwrap();
        let held = insert(&mut slow, "slow").await;
        let last = insert(&mut quick, "quick").await;
        assert!(last <= kept + 60, "nothing was lost, so nothing was tried: {held}, {last} ({end:?})");
        for filter in &filters {
            let seen = loop {
                match store.read_page(After::START, filter, 100).await {
                    Ok(page) => break page.events.iter().map(|event| event.position.get()).collect::<Vec<_>>(),
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            };
            assert_eq!(seen, [kept], "a reader that continues after {last} misses {held} ({end:?})");
        }
        run(&mut slow, "COMMIT").await.unwrap();
        // A reader that waits after the end gets an error, though no event is appended there.
        let next = tokio::time::timeout(Duration::from_secs(20), proven.next()).await.expect("it is woken");
        assert!(matches!(next, Some(Err(ReadError::StoreRewound { .. }))), "{next:?}");
    }
}

/// A standby that has not got all takes over the address of its primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_continues_after_a_failover_that_lost_its_event() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("server");
    let primary = Server::start(&[]);
    std::os::unix::fs::symlink(primary.folder(), &link).unwrap();
    let store = PostgresOptions::new(Server::url_at(&link, "postgres")).migrate().open().await.unwrap();
    let append = async |count: usize| {
        let events = (0..count).map(|_| event_for(&store)).collect();
        store.append(&stream("a"), ExpectedVersion::Any, events).await.unwrap();
    };
    append(5).await;
    let standby = tokio::task::block_in_place(|| primary.standby());
    let mut cut_off = connect(&standby).await;
    run(&mut cut_off, "ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    run(&mut cut_off, "SELECT pg_reload_conf()").await.unwrap();
    let wait_for_end = "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_replication) LOOP
                    PERFORM pg_sleep(0.005), pg_stat_clear_snapshot(); END LOOP; END $$";
    run(&mut connect(&primary).await, wait_for_end).await.unwrap();
    append(5).await;
    let filters = [Filter::all(), Filter::all().event_name("placed").unwrap()];
    let mut subscriptions = filters.clone().map(|filter| store.subscribe(After::START, filter));
    let mut pages = filters.map(|filter| store.pages(After::START, filter));
    for (subscription, pages) in subscriptions.iter_mut().zip(&mut pages) {
        for _ in 0..10 {
            subscription.next().await.unwrap().unwrap();
        }
        assert!(subscription.next().now_or_never().is_none());
        while pages.position().get() < 10 {
            pages.next().await.unwrap();
        }
    }
    tokio::task::block_in_place(|| {
        primary.stop(Stop::Immediate);
        standby.promote();
    });
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(standby.folder(), &link).unwrap();
    let mut promoted = connect(&standby).await;
    let left = sqlx::query("SELECT count(*) FROM annals.events").fetch_all(&mut promoted).await.unwrap();
    assert_eq!(left[0].get::<i64, _>(0), 5, "the standby had all, so nothing was tried");
    for n in 0..7 {
        insert(&mut promoted, &format!("again-{n}")).await;
    }
    for (subscription, pages) in subscriptions.iter_mut().zip(&mut pages) {
        let next = tokio::time::timeout(Duration::from_secs(20), subscription.next()).await.expect("it is woken");
        assert!(matches!(next, Some(Err(ReadError::StoreRewound { .. }))), "{next:?}");
        let next = tokio::time::timeout(Duration::from_secs(20), pages.next()).await.expect("it is woken");
        assert!(matches!(next, Err(ReadError::StoreRewound { .. })), "{next:?}");
    }
}
