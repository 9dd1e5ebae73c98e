//! A unit of work that is kept open: the other writers of the same handle are refused as busy, not blocked for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::{ANY, event, stream};
use crate::append::Append;
use crate::as_of::AsOf;
use crate::clock::{Clock, ManualClock};
use crate::database_error::DatabaseError;
use crate::error::{AppendError, Holder, OpenError};
use crate::filter::Filter;
use crate::position::Position;
use crate::read::EventStoreExt;
use crate::sqlite::SqliteOptions;
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};
use crate::unit_of_work::UnitOfWork;

const TIMEOUT: Duration = Duration::from_millis(200);
/// Far longer than the timeout, and shorter than the test runner waits.
const BLOCKED: Duration = Duration::from_secs(10);

async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(BLOCKED, call).await.unwrap_or_else(|_| panic!("{what} is blocked"))
}

/// Every other writer of the process waited without bound.
#[tokio::test]
async fn a_held_unit_of_work_makes_the_other_writers_of_its_handle_busy() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(TIMEOUT).open().await.expect("opened");
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1)]).await.expect("appended");
    let held = store.begin().await.expect("begun");

    let begun = Instant::now();
    for what in ["append", "the next append"] {
        let busy = bounded(what, store.append(&stream("a"), ANY, vec![event(2)])).await.expect_err("refused");
        assert!(
            matches!(busy, AppendError::Busy { waited, holder: Holder::SameHandle } if waited == TIMEOUT),
            "{what}: {busy:?}"
        );
        assert!(busy.to_string().contains("unit of work"), "{busy}");
        assert!(busy.is_transient());
    }
    let busy = bounded("begin", store.begin()).await.err().expect("refused");
    assert!(matches!(busy, AppendError::Busy { waited, holder: Holder::SameHandle } if waited == TIMEOUT), "{busy:?}");
    let busy = bounded("a transaction", store.database().begin()).await.err().expect("refused");
    assert!(
        matches!(busy, DatabaseError::Busy { waited, holder: Holder::SameHandle } if waited == TIMEOUT),
        "{busy:?}"
    );
    assert!(busy.to_string().contains("unit of work"), "{busy}");
    let busy = bounded("a migration", store.database().migrate(LABELS)).await.expect_err("refused");
    assert!(matches!(busy, OpenError::Unavailable { .. }), "{busy:?}");
    assert!(begun.elapsed() >= TIMEOUT * 5, "refused before the timeout: {:?}", begun.elapsed());
    assert_eq!(store.head().await.expect("readers are not blocked").position.get(), 1);

    held.rollback().await.expect("rolled back");
    store.append(&stream("a"), ANY, vec![event(2)]).await.expect("free again");
    store.begin().await.expect("free again").commit().await.expect("committed");
}

const LABELS: &[crate::Migration] = &[crate::Migration {
    component: "labels",
    number: 1,
    name: "labels",
    sql: "CREATE TABLE labels (order_id TEXT NOT NULL PRIMARY KEY) STRICT",
}];

/// An append that comes shortly before another one is refused has its own time to wait.
#[tokio::test]
async fn an_append_that_comes_late_is_not_refused_with_earlier_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let timeout = Duration::from_secs(1);
    let store = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(timeout).open().await.expect("opened");
    let held = store.begin().await.expect("begun");
    let early = tokio::spawn({
        let store = store.clone();
        async move { store.append(&stream("a"), ANY, vec![event(1)]).await }
    });
    // The late one comes within the wait of the early one.
    tokio::time::sleep(timeout / 2).await;
    let late = tokio::spawn({
        let store = store.clone();
        async move { store.append(&stream("a"), ANY, vec![event(2)]).await }
    });
    let early = bounded("the early append", early).await.expect("joined");
    assert!(matches!(early, Err(AppendError::Busy { .. })), "{early:?}");
    held.rollback().await.expect("rolled back");
    let late = bounded("the late append", late).await.expect("joined").expect("stored");
    assert_eq!(late.version().get(), 1);
}

/// The handle's own commits hold the lock for as long as the disk takes: no timeout counts for them.
#[tokio::test]
async fn own_commits_are_waited_for_however_short_the_timeout_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(Duration::ZERO);
    let store = options.open().await.expect("opened");
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                store.append(&stream(&format!("s-{writer}")), ANY, vec![event(n)]).await.expect("appended");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no append was refused");
    }
    // A commit that takes longer than any timeout: the lock is held, and not by a transaction of a user.
    let commit = store.database().writer().await.expect("free");
    let mut begin = Box::pin(store.begin());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut begin).await.is_err(), "an own commit is no reason");
    drop(commit);
    begin.await.expect("begun").rollback().await.expect("rolled back");
}

/// What the unit of work has appended was recorded before the time, and is not visible yet: to its own handle and to another,
/// such as that of another process.
#[tokio::test]
async fn a_time_waits_for_the_unit_of_work_that_has_appended_before_it() {
    for asks_another_handle in [false, true] {
        let clock = Arc::new(ManualClock::at("2026-03-02T12:00:00Z".parse().expect("a time")));
        let folder = tempfile::tempdir().expect("a folder");
        let open = || SqliteOptions::new(folder.path().join("log.db")).clock(Arc::clone(&clock)).open();
        let store = open().await.expect("opened");
        store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1)]).await.expect("appended");
        let asked_handle = if asks_another_handle { open().await.expect("opened") } else { store.clone() };
        let mut held = store.begin().await.expect("begun");
        held.append(Append::to(stream("a"), ANY, vec![event(2)])).await.expect("appended");
        let time = AsOf::time(clock.now() + Duration::from_secs(5));
        clock.advance(Duration::from_secs(10));
        let mut asked = Box::pin(asked_handle.log_as_of(time));
        let waits = tokio::time::timeout(Duration::from_millis(50), &mut asked).await;
        assert!(waits.is_err(), "another handle {asks_another_handle}: the event is not seen yet");
        held.commit().await.expect("committed");
        let answer = bounded("the answer", asked).await.expect("answered");
        assert_eq!(answer.position.get(), 2, "another handle {asks_another_handle}");
        assert_eq!(store.log_as_of(time).await.expect("answered"), answer);
    }
}

/// A load waited for ever, and nothing said why.
#[tokio::test]
async fn a_read_while_all_readers_are_kept_ends_and_says_who_keeps_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(TIMEOUT).readers(2);
    let store = options.open().await.expect("opened");
    let (_one, two) = (store.database().read().await.expect("free"), store.database().read().await.expect("free"));
    let begun = Instant::now();
    let error = bounded("a load", store.load_page(&stream("a"), StreamVersion::NONE, 1)).await.expect_err("refused");
    assert!(error.is_transient() && begun.elapsed() >= TIMEOUT, "{error:?}");
    let source = std::error::Error::source(&error).expect("a reason").to_string();
    assert!(source.contains("2 are held by readers that `SqliteDatabase::read` gave"), "{source}");
    let error = bounded("a reader", store.database().read()).await.err().expect("refused");
    assert!(matches!(error, DatabaseError::Unavailable { .. }), "{error:?}");
    drop(two);
    bounded("a load", store.load_page(&stream("a"), StreamVersion::NONE, 1)).await.expect("free again");
}

/// The handle's own reads are waited for however long they take.
#[tokio::test]
async fn own_reads_are_waited_for_however_short_the_timeout_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(Duration::ZERO).readers(1);
    let store = options.open().await.expect("opened");
    let own = store.database().held_reader(None).await.expect("free");
    let a = stream("a");
    let mut load = Box::pin(store.load_page(&a, StreamVersion::NONE, 1));
    let early = tokio::time::timeout(Duration::from_millis(250), &mut load).await;
    assert!(early.is_err(), "an own read is no reason");
    drop(own);
    assert!(bounded("the load", load).await.expect("free again").end);
}

/// A shutdown never ended.
#[tokio::test]
async fn closing_ends_while_a_unit_of_work_and_a_reader_are_open_and_the_unit_may_still_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let store = SqliteOptions::new(&path).busy_timeout(TIMEOUT).open().await.expect("opened");
    let reader = store.database().read().await.expect("free");
    let mut held = store.begin().await.expect("begun");
    held.append(Append::to(stream("a"), ExpectedVersion::NoStream, vec![event(1)])).await.expect("appended");
    let begun = Instant::now();
    bounded("close", store.close()).await;
    assert!(begun.elapsed() >= TIMEOUT, "it did not wait: {:?}", begun.elapsed());
    held.commit().await.expect("committed");
    drop(reader);
    // All connections are closed by now: the last one takes the journal away.
    let journal = folder.path().join("log.db-wal");
    bounded("the end of the connections", async {
        while journal.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let again = SqliteOptions::new(&path).open().await.expect("opened");
    assert_eq!(again.head().await.expect("read").position.get(), 1);
}

/// Polls a call so often that it is under way, and gives it back as it is.
async fn begun<T>(call: &mut std::pin::Pin<Box<impl Future<Output = T>>>) {
    assert!(futures::poll!(call).is_pending(), "it waits for the database");
}

/// A caller that polls its append no more kept the connection for writing: all other appends waited for ever.
#[tokio::test]
async fn an_append_whose_future_is_not_polled_keeps_nobody_from_writing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(TIMEOUT).open().await.expect("opened");
    let (a, b) = (stream("a"), stream("b"));
    let mut held = Box::pin(store.append(&a, ANY, vec![event(1)]));
    begun(&mut held).await;
    bounded("another append", store.append(&b, ANY, vec![event(2)])).await.expect("appended");
    bounded("a unit of work", store.begin()).await.expect("begun").rollback().await.expect("rolled back");
    bounded("the first append", held).await.expect("appended");
}

/// One that waits for the connection while it is not polled is given it, and it comes to nobody else: those who are polled get others.
#[tokio::test]
async fn reads_whose_futures_are_not_polled_keep_no_connection_from_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).readers(1).open().await.expect("opened");
    let a = stream("a");
    store.append(&a, ANY, vec![event(1)]).await.expect("appended");
    // What a read has that is under way and that nobody polls.
    let held = store.database().held_reader(None).await.expect("it is free");
    let other = store.database().held_reader(None);
    bounded("a read", store.load_page(&a, StreamVersion::NONE, 10)).await.expect("read");
    let other = bounded("another", other).await.expect("beside the limit");
    tokio::time::pause();
    let refused = store.load_page(&a, StreamVersion::NONE, 10).await.expect_err("nothing became free");
    assert!(refused.is_transient(), "{refused:?}");
    assert!(format!("{refused:?}").contains("futures are not polled"), "{refused:?}");
    tokio::time::resume();
    drop(other);
    drop(held);
    bounded("a read", store.load_page(&a, StreamVersion::NONE, 10)).await.expect("read");
}

/// Beside the stalled ones two reads a second came to an end: each that got another connection made all others wait anew.
#[tokio::test]
async fn reads_beside_stalled_ones_wait_half_a_second_and_then_run_as_many_at_once_as_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).readers(2).open().await.expect("opened");
    let a = stream("a");
    store.append(&a, ANY, vec![event(1)]).await.expect("appended");
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(store.database().held_reader(None).await.expect("it is free"));
    }
    let at_once = |reads: usize| {
        let (store, a) = (&store, &a);
        async move {
            let begun = Instant::now();
            let reads = (0..reads).map(|_| store.load_page(a, StreamVersion::NONE, 10));
            for read in bounded("the reads", futures::future::join_all(reads)).await {
                assert_eq!(read.expect("read").events.len(), 1);
            }
            begun.elapsed()
        }
    };
    let first = at_once(20).await;
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&first), "{first:?}");
    // It is known by now that none of them ends.
    let next = at_once(20).await;
    assert!(next < Duration::from_secs(2), "{next:?}");
    drop(stalled.pop());
    let after = at_once(20).await;
    assert!(after < Duration::from_secs(2), "{after:?}");
}

/// A caller that is polled now and then only would keep the connections that others need meanwhile.
#[tokio::test]
async fn who_is_seldom_polled_gets_no_connection_beside_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).readers(1).open().await.expect("opened");
    let read = || Box::pin(store.database().held_reader(None));
    let stalled = read().await.expect("it is free");
    let beside = bounded("a read", read()).await.expect("beside the limit");
    // From here on nothing waits for the file.
    beside.release();
    tokio::time::pause();
    let mut seldom: Vec<_> = (0..3).map(|_| read()).collect();
    for _ in 0..3 {
        for seldom in &mut seldom {
            assert!(futures::poll!(seldom).is_pending());
        }
        let begun = tokio::time::Instant::now();
        read().await.expect("beside the limit").release();
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
        tokio::time::advance(Duration::from_secs(4)).await;
    }
    // Polled again, it is one of the others.
    seldom.pop().expect("one of them").await.expect("beside the limit").release();
    stalled.release();
    seldom.pop().expect("one of them").await.expect("of the limit").release();
}

/// One reader that a user kept made the reads of a burst fail which had waited for the busy timeout, whatever the others did.
#[tokio::test]
async fn own_reads_are_waited_for_while_they_end_though_a_user_keeps_a_reader() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(TIMEOUT).readers(2);
    let store = options.open().await.expect("opened");
    let database = store.database();
    let (one, two) = (database.held_reader(None).await, database.held_reader(None).await);
    for opened in [one, two] {
        opened.expect("free").release();
    }
    // From here on nothing waits for the file.
    tokio::time::pause();
    let _kept = database.read().await.expect("free");
    let own = (0..10).map(|_| async {
        let own = database.held_reader(None).await?;
        tokio::time::sleep(TIMEOUT * 3 / 4).await;
        own.release();
        Ok::<_, DatabaseError>(())
    });
    let ended = futures::future::join_all(own).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    // Nothing ends any more.
    let _held = database.held_reader(None).await.expect("free");
    let begun = tokio::time::Instant::now();
    let error = database.held_reader(None).await.err().expect("refused");
    assert!(begun.elapsed() >= TIMEOUT && begun.elapsed() < TIMEOUT * 2, "{:?}", begun.elapsed());
    assert!(format!("{error:?}").contains("1 are held by readers that `SqliteDatabase::read` gave"), "{error:?}");
}

/// What was dropped there was cleaned when that runtime went on: no other writer got the lock until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_dropped_in_a_runtime_that_is_driven_no_more_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions::new(folder.path().join("log.db")).busy_timeout(Duration::from_secs(1)).readers(1);
    let store = options.open().await.expect("opened");
    let elsewhere = std::thread::spawn({
        let store = store.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("built");
            runtime.block_on(async {
                drop(store.database().read().await.expect("free"));
                drop(store.begin().await.expect("begun"));
            });
            runtime
        }
    });
    // It is kept for the next call.
    let runtime = elsewhere.join().expect("no panic");
    store.append(&stream("a"), ANY, vec![event(1)]).await.expect("appended");
    let begun = Instant::now();
    store.load_page(&stream("a"), StreamVersion::NONE, 1).await.expect("read");
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    runtime.shutdown_background();
}

/// Each kept a connection in the middle of its read while the consumer of the others did something else.
#[tokio::test]
async fn subscriptions_that_are_not_polled_keep_no_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).readers(1).open().await.expect("opened");
    let a = stream("a");
    store.append(&a, ANY, vec![event(1)]).await.expect("appended");
    let mut subscriptions: Vec<_> = (0..3).map(|_| store.subscribe(Position::START, Filter::all())).collect();
    let mut loads: Vec<_> = (0..3).map(|_| store.load(&a)).collect();
    let mut events = futures::stream::select_all(subscriptions.iter_mut());
    let mut loaded = futures::stream::select_all(loads.iter_mut());
    for _ in 0..3 {
        bounded("an event", events.next()).await.expect("it goes on").expect("read");
        bounded("an event of the stream", loaded.next()).await.expect("it goes on").expect("read");
        bounded("a read", store.load_page(&a, StreamVersion::NONE, 10)).await.expect("read");
    }
}
