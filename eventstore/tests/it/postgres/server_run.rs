//! A run of the server ends and loses commits that were not flushed: what was read in it is invalid.

use std::process::Stdio;
use std::time::Duration;

use annals_eventstore::{
    After, EventStore, EventStoreExt, ExpectedVersion, Filter, PostgresOptions, ReadError, StreamVersion,
};
use annals_scratch::{Server, Stop};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use sqlx::{PgConnection, Row};

use super::crash::{connect, positions};
use super::proxy::Proxy;
use super::{event_for, insert, run, stream};

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
        let options = PostgresOptions::new(server.url("postgres"));
        check_written_again(&server, options, end).await;
    }
}

/// A connection to a pooler stays open after the server's run has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_final_before_a_crash_behind_a_pooler_is_not_what_is_written_anew() {
    for end in [End::Stopped, End::KilledBackend] {
        let server = Server::start(&[("wal_writer_delay", "10s")]);
        let url = tokio::task::block_in_place(|| server.url_through_pooler("postgres"));
        check_written_again(&server, PostgresOptions::new(url).pooled(), end).await;
    }
}

/// Stops a process. Once the server tells it to quit at once, it goes on and does that; the server would wait 5 s for it.
const STOP_UNTIL_ENDED: &str = r#"
    kill -STOP "$0" || exit 1
    while [ -d "/proc/$0" ]; do
        if grep -q '^ShdPnd:.*[4-7c-f]$' "/proc/$0/status"; then kill -CONT "$0"; exit; fi
        sleep 0.02
    done 2>/dev/null &
"#;

/// Writes an event that is kept, and 60 that a crash loses. Returns the connection, and the position of the first.
async fn commit_unflushed(server: &Server) -> (PgConnection, i64) {
    let mut writer = connect(server).await;
    let kept = insert(&mut writer, "kept").await;
    run(&mut writer, "SET synchronous_commit = off").await.unwrap();
    // Stops the process that flushes in the background. The crash ends it too.
    let pid = sqlx::query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
    let pid: i32 = pid.fetch_all(&mut writer).await.unwrap()[0].get(0);
    let mut stop = std::process::Command::new("sh");
    let stopped = stop.args(["-c", STOP_UNTIL_ENDED]).arg(pid.to_string()).stdout(Stdio::null()).status();
    assert!(stopped.is_ok_and(|status| status.success()));
    // More than the sequence logs in advance, so that their positions are allocated again.
    for n in 0..60 {
        insert(&mut writer, &format!("lost-{n}")).await;
    }
    (writer, kept)
}

/// Two transactions that get positions of the lost events. The one with the lower position is open.
async fn write_again(server: &Server, kept: i64) -> (PgConnection, i64, i64) {
    let (mut slow, mut quick) = (connect(server).await, connect(server).await);
    run(&mut slow, "BEGIN").await.unwrap();
    let held = insert(&mut slow, "slow").await;
    let last = insert(&mut quick, "quick").await;
    assert!(held < last && last <= kept + 60, "nothing was lost, so nothing was tried: {held}, {last}");
    (slow, held, last)
}

async fn check_written_again(server: &Server, options: PostgresOptions, end: End) {
    let watching = options.clone().migrate().open().await.unwrap();
    // A handle without a subscription sends no queries while the server is down.
    let store = options.open().await.unwrap();
    let (mut writer, kept) = commit_unflushed(server).await;
    let mut other = connect(server).await;
    let all = Filter::all();
    let filters = [all.clone(), all.event_name("placed").unwrap()];
    for filter in &filters {
        assert_eq!(store.read_page(After::START, filter, 100).await.unwrap().events.len(), 61, "{end:?}");
    }
    let mut proven = watching.subscribe(watching.head().await.unwrap(), Filter::all());
    assert!(proven.next().now_or_never().is_none());
    match end {
        End::Stopped => tokio::task::block_in_place(|| server.restart(Stop::Immediate)),
        End::KilledBackend => {
            let ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'annals' ORDER BY pid";
            let rows = sqlx::query(ours).fetch_all(&mut writer).await.unwrap();
            server.kill_backend(rows[0].get(0));
            while run(&mut other, "SELECT 1").await.is_ok() {}
        }
    }
    let (mut slow, held, last) = write_again(server, kept).await;
    for filter in &filters {
        assert_eq!(
            positions(&store, filter).await,
            [kept],
            "a reader that continues after {last} misses {held} ({end:?})"
        );
    }
    run(&mut slow, "COMMIT").await.unwrap();
    for filter in &filters {
        assert_eq!(positions(&store, filter).await, [kept, held, last], "{end:?}");
    }
    // A reader that waits after the end gets an error, though no event is appended there.
    let next = tokio::time::timeout(Duration::from_secs(20), proven.next()).await.expect("it is woken");
    assert!(matches!(next, Some(Err(ReadError::StoreRewound { .. }))), "{next:?}");
}

/// The known final part is from before the crash, and the statement runs after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_waits_for_a_connection_through_a_crash_uses_nothing_of_before() {
    let server = Server::start(&[("wal_writer_delay", "10s")]);
    let options = PostgresOptions::new(server.url("postgres")).migrate().poll_only().connections(1);
    let store = options.connection_timeout(Duration::from_secs(60)).open().await.unwrap();
    let (_writer, kept) = commit_unflushed(&server).await;
    let filter = Filter::all().event_name("placed").unwrap();
    assert_eq!(store.read_page(After::START, &filter, 100).await.unwrap().events.len(), 61);
    // A load that is blocked has the only connection for reads.
    let mut blocker = connect(&server).await;
    run(&mut blocker, "BEGIN; LOCK TABLE annals.events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let of_load = store.clone();
    let mut load = async move { of_load.load_page(&stream("kept"), StreamVersion::NONE, 1).await }.boxed();
    assert!((&mut load).now_or_never().is_none());
    let mut reading = store.read_page(After::START, &filter, 100);
    assert!((&mut reading).now_or_never().is_none());
    tokio::task::block_in_place(|| server.restart(Stop::Immediate));
    let (mut slow, held, last) = write_again(&server, kept).await;
    assert!(load.await.is_err_and(|error| error.is_transient()));
    let answer = reading.await;
    assert!(answer.as_ref().is_err_and(ReadError::is_transient), "{answer:?}");
    run(&mut slow, "COMMIT").await.unwrap();
    assert_eq!(positions(&store, &filter).await, [kept, held, last]);
}

/// The log ends at the same position, with other events, so its end shows no change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_is_woken_when_as_much_was_written_anew() {
    let server = Server::start(&[("wal_writer_delay", "10s")]);
    let proxy = Proxy::before(&server.url("postgres"));
    let store = PostgresOptions::new(proxy.url()).migrate().open().await.unwrap();
    let (_writer, kept) = commit_unflushed(&server).await;
    let mut proven = store.subscribe(store.head().await.unwrap(), Filter::all());
    // It waits for the end to move, not for a running read.
    store.watch().wait_for(|end| end.get() == kept + 60).await.unwrap();
    tokio::time::timeout(Duration::from_millis(200), proven.next()).await.expect_err("there is nothing");
    proxy.be_away(true);
    tokio::task::block_in_place(|| server.restart(Stop::Immediate));
    let mut again = connect(&server).await;
    run(&mut again, "BEGIN").await.unwrap();
    let mut last = kept;
    while last < kept + 60 {
        last = insert(&mut again, &format!("again-{last}")).await;
    }
    run(&mut again, "COMMIT").await.unwrap();
    assert_eq!(last, kept + 60, "nothing was lost, so nothing was tried");
    proxy.be_away(false);
    let next = tokio::time::timeout(Duration::from_secs(20), proven.next()).await.expect("it is woken");
    assert!(matches!(next, Some(Err(ReadError::StoreRewound { .. }))), "{next:?}");
}

/// A primary that was not stopped still answers on its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_goes_on_after_a_failover_is_asked_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("server");
    let primary = Server::start(&[]);
    std::os::unix::fs::symlink(primary.folder(), &link).unwrap();
    let options =
        PostgresOptions::new(Server::url_at(&link, "postgres")).migrate().poll_only().connections(2).writers(1);
    let store = options.open().await.unwrap();
    store.append(&stream("before"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    let taken = store.database().read().await.unwrap();
    let standby = tokio::task::block_in_place(|| {
        let standby = primary.standby();
        standby.promote();
        standby
    });
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(standby.folder(), &link).unwrap();
    let mut again = connect(&standby).await;
    insert(&mut again, "again").await;
    let page = store.load_page(&stream("again"), StreamVersion::NONE, 10).await.unwrap();
    assert_eq!(page.events.len(), 1, "a new connection reaches the new primary");
    drop(taken);
    // Both at once, so that one of them was the connection to the old primary.
    for reader in join_all((0..2).map(|_| store.database().read())).await {
        let count = sqlx::query("SELECT count(*) FROM annals.events WHERE aggregate_id = 'again'");
        let count: i64 = count.fetch_one(&mut *reader.unwrap()).await.unwrap().get(0);
        assert_eq!(count, 1, "the old primary was queried");
    }
    store.append(&stream("after"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    let count = sqlx::query("SELECT count(*) FROM annals.events WHERE aggregate_id = 'after'");
    assert_eq!(count.fetch_all(&mut again).await.unwrap()[0].get::<i64, _>(0), 1, "it was appended on the old primary");
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
    let mut again = connect(&standby).await;
    let left = sqlx::query("SELECT count(*) FROM annals.events").fetch_all(&mut again).await.unwrap();
    assert_eq!(left[0].get::<i64, _>(0), 5, "the standby had all, so nothing was tried");
    for n in 0..7 {
        insert(&mut again, &format!("again-{n}")).await;
    }
    for (subscription, pages) in subscriptions.iter_mut().zip(&mut pages) {
        let next = tokio::time::timeout(Duration::from_secs(20), subscription.next()).await.expect("it is woken");
        assert!(matches!(next, Some(Err(ReadError::StoreRewound { .. }))), "{next:?}");
        let next = tokio::time::timeout(Duration::from_secs(20), pages.next()).await.expect("it is woken");
        assert!(matches!(next, Err(ReadError::StoreRewound { .. })), "{next:?}");
    }
}
