//! Clocks that are behind and are then corrected: a request key must not be forgotten with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::Connection;

use super::{event, stream};
use crate::append::Append;
use crate::as_of::AsOf;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::memory::MemoryStore;
use crate::request::{Fingerprint, RequestKey};
use crate::sqlite::SqliteOptions;
use crate::sqlite::append::lone;
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion, Tenant};

fn version(version: i64) -> StreamVersion {
    StreamVersion::stored(version)
}

fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

/// Appends one event by a request whose key is remembered for `lifetime`; says whether it was a repeat.
async fn request(store: &dyn EventStore, key: &str, lifetime: Duration) -> bool {
    let key = RequestKey::new(key, Fingerprint::of_bytes(b"body")).expect("a key").with_lifetime(lifetime);
    let append = Append::to(stream("a"), ExpectedVersion::Any, vec![event(1)]).with_request(key);
    store.append_many(append).await.expect("appended").repeated
}

/// What a store must do whose clock was right, falls behind, and is corrected. `store` opens it again and again.
async fn check<S: EventStore>(behind: &str, lifetime: Duration, mut store: impl AsyncFnMut(Arc<ManualClock>) -> S) {
    let clock = Arc::new(ManualClock::at(at("2026-03-02T12:00:00Z")));
    let opened = store(Arc::clone(&clock)).await;
    opened.append(&stream("b"), ExpectedVersion::Any, vec![event(0)]).await.expect("appended");
    opened.close().await;
    clock.set(at(behind));
    let opened = store(Arc::clone(&clock)).await;
    assert!(!request(&opened, "first", lifetime).await);
    // By now the last event was recorded by the wrong clock.
    opened.append(&stream("b"), ExpectedVersion::Any, vec![event(0)]).await.expect("appended");
    assert!(!request(&opened, "second", lifetime).await);
    clock.set(at("2026-03-02T12:00:10Z"));
    for key in ["first", "second"] {
        assert!(request(&opened, key, lifetime).await, "`{key}` was forgotten when the clock was corrected");
    }
    clock.advance(lifetime);
    assert!(!request(&opened, "first", lifetime).await, "it is remembered for its lifetime and no longer");
    opened.close().await;
}

#[tokio::test]
async fn a_key_outlives_the_correction_of_a_clock_that_was_behind() {
    let cases = [("2026-03-02T10:30:00Z", Duration::from_secs(60)), ("1970-01-01T00:00:00Z", RequestKey::LIFETIME)];
    for (behind, lifetime) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.db");
        let open = async |clock| SqliteOptions::new(&path).clock(clock).open().await.expect("opened");
        check(behind, lifetime, open).await;
    }
}

#[tokio::test]
async fn a_memory_store_keeps_keys_over_the_correction_of_its_clock() {
    let clock = Arc::new(ManualClock::at(at("2026-03-02T12:00:00Z")));
    let store = MemoryStore::builder().clock(Arc::clone(&clock)).build();
    store.append(&stream("b"), ExpectedVersion::Any, vec![event(0)]).await.expect("appended");
    clock.set(at("1970-01-01T00:00:00Z"));
    for key in ["first", "second"] {
        assert!(!request(&store, key, RequestKey::LIFETIME).await);
    }
    clock.set(at("2026-03-02T12:00:10Z"));
    for key in ["first", "second"] {
        assert!(request(&store, key, RequestKey::LIFETIME).await, "`{key}` was forgotten when the clock was corrected");
    }
}

/// Another process may have recorded later than this one has looked at its clock.
#[tokio::test]
async fn the_time_of_another_handle_s_event_counts_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let clocks = [at("1970-01-01T00:00:00Z"), at("2026-03-02T12:00:00Z")].map(|time| Arc::new(ManualClock::at(time)));
    let open = async |clock: &Arc<ManualClock>| {
        let options = SqliteOptions::new(folder.path().join("log.db")).clock(Arc::clone(clock));
        options.open().await.expect("opened")
    };
    let (slow, right) = (open(&clocks[0]).await, open(&clocks[1]).await);
    right.append(&stream("b"), ExpectedVersion::Any, vec![event(0)]).await.expect("appended");
    assert!(!request(&slow, "r", Duration::from_secs(60)).await);
    clocks[0].set(at("2026-03-02T12:00:10Z"));
    assert!(request(&slow, "r", Duration::from_secs(60)).await);
    let tenant = Tenant::default();
    let key = RequestKey::new("r", Fingerprint::of_bytes(b"body")).expect("a key");
    assert!(right.find_request(&tenant, &key).await.expect("read").is_some());
}

/// A clock that reports when it is read while another connection has the write lock of the file.
struct Watched {
    is_locked: AtomicBool,
    was_early: AtomicBool,
}

impl Clock for Watched {
    fn now(&self) -> Timestamp {
        if self.is_locked.load(Ordering::SeqCst) {
            self.was_early.store(true, Ordering::SeqCst);
        }
        at("2026-03-02T12:00:00Z")
    }
}

/// A reader that asks what was true at a time takes the write lock once. So an append that waits for the lock must read the
/// clock afterwards, or it would be recorded before that time.
#[tokio::test]
async fn no_append_reads_the_clock_before_it_has_the_write_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let clock = Arc::new(Watched { is_locked: AtomicBool::new(false), was_early: AtomicBool::new(false) });
    let store = SqliteOptions::new(&path).clock(Arc::clone(&clock)).open().await.expect("opened");
    let connect = async || {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        sqlx::SqliteConnection::connect_with(&options).await.expect("a connection")
    };
    let mut other = connect().await;
    let to = |id: &str, count| Append::to(stream(id), ExpectedVersion::NoStream, (0..count).map(event).collect());
    let key = |name: &str| RequestKey::new(name, Fingerprint::of_bytes(b"body")).expect("a key");
    let together = [to("d", 1), to("e", 2), to("f", 1).with_request(key("f"))];
    let cases = [vec![to("a", 1)], vec![to("b", 3)], vec![to("c", 1).with_request(key("c"))], together.to_vec()];
    let lock = async |other: &mut sqlx::SqliteConnection| {
        sqlx::query("BEGIN IMMEDIATE").execute(other).await.expect("locked");
        clock.is_locked.store(true, Ordering::SeqCst);
    };
    let unlock = async |other: &mut sqlx::SqliteConnection| {
        clock.is_locked.store(false, Ordering::SeqCst);
        sqlx::query("ROLLBACK").execute(other).await.expect("free");
    };
    for appends in cases {
        lock(&mut other).await;
        let mut all = Box::pin(futures::future::join_all(appends.iter().map(|a| store.append_many(a.clone()))));
        assert!(tokio::time::timeout(Duration::from_millis(60), &mut all).await.is_err(), "the lock is held");
        unlock(&mut other).await;
        assert!(all.await.iter().all(Result::is_ok));
    }
    // A transaction of the caller that began without the write lock. SQLite does not let it wait.
    let mut own = connect().await;
    let mut transaction = own.begin().await.expect("begun");
    lock(&mut other).await;
    store.append_in(&mut transaction, to("g", 1)).await.expect_err("the lock is held");
    unlock(&mut other).await;
    transaction.rollback().await.expect("rolled back");
    assert!(!clock.was_early.load(Ordering::SeqCst), "the clock was read before the write lock was taken");
}

/// A lone append is one statement, whose time is bound before it waits for the lock.
#[tokio::test]
async fn a_lone_append_that_waited_for_the_lock_is_recorded_when_it_had_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let store = SqliteOptions::new(&path).open().await.expect("opened");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.expect("a connection");
    for (number, expected) in [(0, ExpectedVersion::NoStream), (1, ExpectedVersion::Exact(version(1)))] {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("locked");
        let to = stream("a");
        let mut append = Box::pin(store.append(&to, expected, vec![event(number)]));
        assert!(tokio::time::timeout(Duration::from_millis(60), &mut append).await.is_err(), "the lock is held");
        let asked = SystemClock.now();
        while SystemClock.now().as_millisecond() == asked.as_millisecond() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sqlx::query("ROLLBACK").execute(&mut other).await.expect("free");
        let appended = append.await.expect("appended");
        assert!(appended.recorded_at > asked, "{} is recorded as at {}", asked, appended.recorded_at);
        let stored = store.load_page(&to, version(number), 1).await.expect("read");
        assert_eq!(stored.events[0].recorded_at, appended.recorded_at);
    }
}

/// The answer to a time would change if a lone append that has read the clock before were recorded at it afterwards.
#[tokio::test]
async fn a_time_that_is_asked_for_before_a_lone_append_has_the_lock_has_the_same_answer_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let store = SqliteOptions::new(&path).open().await.expect("opened");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.expect("a connection");
    for n in 0..30 {
        let append = Append::to(stream(&n.to_string()), ExpectedVersion::NoStream, vec![event(n)]);
        let append = append.check(store.limits()).expect("sound");
        let row = lone::row(&append).expect("it is one event");
        let before = SystemClock.now();
        let asked = AsOf::time(SystemClock.now());
        let Ok(answer) = store.log_as_of(asked).await else { continue };
        lone::store(&mut other, &append, &row, before).await.expect("stored").expect("it is new");
        assert_eq!(store.log_as_of(asked).await.expect("read"), answer, "{n}: {asked}");
    }
}

/// Its connection is not left in a transaction, which would keep the file locked for other processes.
#[tokio::test]
async fn a_dropped_append_does_not_keep_the_write_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let store = SqliteOptions::new(&path).open().await.expect("opened");
    let other = SqliteOptions::new(&path).open().await.expect("opened");
    for polls in 1..8 {
        let dropped = stream("dropped");
        let mut append = Box::pin(store.append(&dropped, ExpectedVersion::Any, vec![event(polls)]));
        for _ in 0..polls {
            let polled = futures::poll!(&mut append);
            if polled.is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        drop(append);
        other.append(&stream("kept"), ExpectedVersion::Any, vec![event(polls)]).await.expect("the lock is free");
    }
}
