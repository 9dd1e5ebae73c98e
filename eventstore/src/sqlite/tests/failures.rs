//! What goes wrong around the store: other processes, cancelled calls, lost transactions, damaged rows.

use std::time::Duration;

use futures::StreamExt;
use sqlx::Row;
use uuid::Uuid;

use super::{ANY, Fixture, event, stream};
use crate::DatabaseError;
use crate::append::Append;
use crate::error::{AppendError, ErrorFamily, OpenError, ReadError};
use crate::filter::Filter;
use crate::position::{After, Position};
use crate::read::EventStoreExt;
use crate::request::{Fingerprint, RequestKey};
use crate::sqlite::{SqliteOptions, SqliteStore, Synchronous};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};
use crate::unit_of_work::UnitOfWork;

const SOON: Duration = Duration::from_secs(10);

/// Closing any descriptor of a file drops all POSIX locks that the process has on it. Without its lock another process
/// takes itself for the last one when it closes the store, and removes the journal.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_second_handle_leaves_the_locks_of_the_first_alone() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let file = format!(":{} ", std::fs::metadata(fixture.path()).expect("it is there").ino());
    // Listed per descriptor of this process. The list of the whole machine, `/proc/locks`, repeats and leaves out lines
    // while other processes lock and unlock.
    let locks = || {
        let descriptors = std::fs::read_dir("/proc/self/fdinfo").expect("it is Linux");
        let texts = descriptors.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
        texts
            .map(|text| text.lines().filter(|line| line.starts_with("lock:") && line.contains(&file)).count())
            .sum::<usize>()
    };
    assert_eq!(locks(), 1);
    let second = SqliteStore::open(fixture.path()).await.expect("opened twice");
    assert_eq!(locks(), 1);
    second.close().await;
    assert_eq!(locks(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_lost_journal_is_noticed_behind_a_link() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    fixture.store.close().await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(fixture.path(), &link).expect("linked");
    std::fs::write(fixture.folder.path().join("log.db-shm"), [0; 32768]).expect("written");
    let error = SqliteStore::open(&link).await.err().expect("refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_while_another_handle_closes_is_no_damage() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    let openers: Vec<_> = (0..2)
        .map(|_| {
            let path = fixture.path();
            tokio::spawn(async move {
                for _ in 0..60 {
                    let store = SqliteOptions::new(&path).open().await.expect("it is sound");
                    store.append(&stream("a"), ANY, vec![event(1)]).await.expect("appended");
                    store.close().await;
                }
            })
        })
        .collect();
    for opener in openers {
        opener.await.expect("no panic");
    }
    let again = SqliteStore::open(fixture.path()).await.expect("it is sound");
    assert_eq!(again.head().await.expect("read").position.get(), 120);
}

#[tokio::test]
async fn a_subscription_that_waits_for_events_ends_when_the_store_closes() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let mut subscription = fixture.store.subscribe(Position::START, Filter::all());
    subscription.next().await.expect("an event").expect("read");
    let mut waiting = tokio::spawn(async move { subscription.next().await });
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err(), "it waits");
    fixture.store.close().await;
    let last = tokio::time::timeout(SOON, waiting).await.expect("woken").expect("no panic");
    assert!(matches!(last, Some(Err(ReadError::Closed))), "{last:?}");
}

#[tokio::test]
async fn a_cancelled_close_is_finished_by_the_next() {
    let fixture = Fixture::new().await;
    let work = fixture.store.begin().await.expect("begun");
    let mut queued = Box::pin(fixture.append("a", ANY, 1));
    assert!(futures::poll!(queued.as_mut()).is_pending());
    assert!(tokio::time::timeout(Duration::from_millis(20), fixture.store.close()).await.is_err(), "it waits");
    let mut again = Box::pin(fixture.store.close());
    assert!(futures::poll!(again.as_mut()).is_pending(), "what is queued is not answered yet");
    work.rollback().await.expect("rolled back");
    tokio::time::timeout(SOON, again).await.expect("closed");
    queued.await.expect("answered");
    assert!(matches!(fixture.store.database().begin().await, Err(DatabaseError::Closed)));
}

#[tokio::test]
async fn appends_are_answered_though_the_runtime_of_the_store_has_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let store = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(SqliteStore::open(path)).expect("opened")
    })
    .join()
    .expect("no panic");
    let to = stream("a");
    // Held, so that the append is left to the writer.
    let _held = store.database().writer().await.expect("free");
    let answer = tokio::time::timeout(SOON, store.append(&to, ANY, vec![event(1)]));
    let error = answer.await.expect("answered").expect_err("nobody is there to write it");
    assert!(matches!(error, AppendError::Closed), "{error:?}");
}

#[tokio::test]
async fn a_cancelled_begin_leaves_the_file_to_others() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("PRAGMA busy_timeout = 2000").execute(&mut foreign).await.expect("set");
    for _ in 0..10 {
        let mut begin = Box::pin(fixture.store.begin());
        drop(futures::poll!(begin.as_mut()));
        drop(begin);
        // No caller writes through this handle now.
        sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK").execute(&mut foreign).await.expect("the file is not locked");
    }
}

#[tokio::test]
async fn a_cancelled_append_in_a_unit_of_work_is_never_committed_in_part() {
    let fixture = Fixture::new().await;
    for polls in 1..12 {
        let mut work = fixture.store.begin().await.expect("begun");
        let id = format!("s{polls}");
        let mut append = Box::pin(work.append(Append::to(stream(&id), ANY, (0..3000).map(event).collect())));
        let mut done = false;
        for _ in 0..polls {
            done = futures::poll!(append.as_mut()).is_ready();
            if done {
                break;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        drop(append);
        let committed = work.commit().await;
        assert_eq!(committed.is_ok(), done, "{committed:?}");
        let page = fixture.store.load_page(&stream(&id), StreamVersion::NONE, 1).await.expect("a page");
        assert_eq!(page.events.len(), usize::from(done), "after {polls} polls");
        let full = StreamVersion::new(if done { 3000 } else { 0 }).expect("a version");
        fixture.store.append(&stream(&id), full.into(), vec![event(0)]).await.expect("all or none");
    }
}

#[tokio::test]
async fn a_unit_of_work_whose_transaction_was_lost_stores_nothing() {
    let fixture = Fixture::new().await;
    let mut work = fixture.store.begin().await.expect("begun");
    sqlx::raw_sql("CREATE TABLE mine (n INTEGER PRIMARY KEY); INSERT INTO mine VALUES (1)")
        .execute(&mut *work)
        .await
        .expect("created");
    work.commit().await.expect("committed");

    let mut work = fixture.store.begin().await.expect("begun");
    work.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
    // SQLite rolls back the whole transaction, as it does when the disk is full.
    sqlx::raw_sql("INSERT OR ROLLBACK INTO mine VALUES (1)").execute(&mut *work).await.expect_err("a conflict");
    let error = work.append(Append::to(stream("b"), ANY, vec![event(2)])).await.expect_err("there is no transaction");
    assert_eq!(error.family(), ErrorFamily::Transient, "{error:?}");
    sqlx::raw_sql("INSERT INTO mine VALUES (2)").execute(&mut *work).await.expect_err("it would be committed alone");
    work.commit().await.expect_err("there is nothing to commit");
    assert_eq!(fixture.log().await.len(), 0);
    let mut reader = fixture.store.database().read().await.expect("a reader");
    let rows = sqlx::query("SELECT count(*) FROM mine").fetch_all(&mut *reader).await.expect("read");
    assert_eq!(rows[0].get::<i64, _>(0), 1);
    fixture.append("a", ExpectedVersion::NoStream, 3).await.expect("the store goes on");
}

#[tokio::test]
async fn a_commit_that_is_refused_leaves_no_transaction_open() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let mut work = fixture.store.begin().await.expect("begun");
    // SQLite looks at this rule when the transaction commits, and leaves it open if the rule is broken.
    let rule =
        "CREATE TABLE mine (n INTEGER PRIMARY KEY, other INTEGER REFERENCES mine (n) DEFERRABLE INITIALLY DEFERRED)";
    sqlx::raw_sql(rule).execute(&mut *work).await.expect("created");
    work.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
    sqlx::raw_sql("INSERT INTO mine VALUES (1, 2)").execute(&mut *work).await.expect("not looked at yet");
    let error = work.commit().await.expect_err("refused");
    assert!(matches!(&error, AppendError::Invalid(i) if i.field == "transaction"), "{error:?}");
    sqlx::raw_sql("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE; ROLLBACK")
        .execute(&mut foreign)
        .await
        .expect("not locked");
    assert_eq!(fixture.log().await.len(), 0);
    fixture.append("a", ExpectedVersion::NoStream, 2).await.expect("the store goes on");
}

#[tokio::test]
async fn append_in_refuses_a_transaction_that_was_lost_and_a_closed_store() {
    use sqlx::Connection;
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("CREATE TABLE mine (n INTEGER PRIMARY KEY); INSERT INTO mine VALUES (1)")
        .execute(&mut foreign)
        .await
        .expect("created");
    let mut lost = foreign.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    sqlx::raw_sql("INSERT OR ROLLBACK INTO mine VALUES (1)").execute(&mut *lost).await.expect_err("a conflict");
    let error = fixture.store.append_in(&mut lost, Append::to(stream("a"), ANY, vec![event(1)])).await;
    assert!(matches!(&error, Err(AppendError::Invalid(i)) if i.field == "transaction"), "{error:?}");
    drop(lost);
    assert_eq!(fixture.log().await.len(), 0);

    let mut foreign = fixture.foreign().await;
    let mut late = foreign.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    fixture.store.close().await;
    let error = fixture.store.append_in(&mut late, Append::to(stream("a"), ANY, vec![event(1)])).await;
    assert!(matches!(error, Err(AppendError::Closed)), "{error:?}");
}

#[tokio::test]
async fn a_reader_that_was_left_inside_a_transaction_does_not_go_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).readers(1).open().await.expect("opened");
    let mut reader = store.database().read().await.expect("a reader");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM events").execute(&mut *reader).await.expect("a snapshot");
    drop(reader);
    store.append(&stream("a"), ANY, vec![event(1)]).await.expect("appended");
    assert_eq!(store.head().await.expect("read").position.get(), 1, "the next reader sees the present");
}

#[tokio::test]
async fn text_that_is_no_utf8_is_reported_and_never_a_panic() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql(
        "INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data, metadata, recorded_at)
         VALUES (x'00112233445566778899aabbccddeeff', 'default', 'counter', 'b', 1, 'x', 1, CAST(x'22ff22' AS TEXT), '{}', 0);
         INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data, metadata, recorded_at)
         VALUES (x'00112233445566778899aabbccddee00', 'default', 'counter', CAST(x'ff' AS TEXT), 1, 'x', 1, '\"' || hex(zeroblob(9000)) || '\"', CAST(x'7b2261223a22ff227d' AS TEXT), 0)",
    )
    .execute(&mut foreign)
    .await
    .expect("the schema cannot refuse it");
    for after in [1, 2] {
        let from = Position::new(after).expect("a position");
        let error = fixture.store.read_page(from.into(), &Filter::all(), 10).await.expect_err("damaged");
        assert!(matches!(error, ReadError::Damaged { position, .. } if position.get() == after + 1), "{error}");
    }
    let error = fixture.store.streams_page(&crate::StreamFilter::all(), None, 10).await.expect_err("damaged");
    assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
    // The writer looks at the same row when its id comes again.
    let id = crate::EventId::new(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)).expect("not nil");
    let again = crate::NewEvent { event_id: id, ..event(1) };
    let error = tokio::time::timeout(SOON, fixture.store.append(&stream("b"), ANY, vec![again])).await;
    assert!(matches!(error, Ok(Err(AppendError::EventIdTaken { .. } | AppendError::Broken { .. }))), "{error:?}");
    tokio::time::timeout(SOON, fixture.append("c", ANY, 1)).await.expect("the writer lives").expect("appended");
}

#[tokio::test]
async fn a_damaged_file_is_no_reason_to_try_again() {
    let fixture = Fixture::new().await;
    fixture.store.append(&stream("a"), ANY, (0..2000).map(event).collect()).await.expect("appended");
    fixture.store.close().await;
    let mut bytes = std::fs::read(fixture.path()).expect("read");
    bytes[40 * 4096..60 * 4096].fill(0xa5);
    std::fs::write(fixture.path(), bytes).expect("written");
    let store = SqliteStore::open(fixture.path()).await;
    let error = match &store {
        Ok(store) => store.read_page(After::START, &Filter::all(), 2000).await.expect_err("damaged"),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(error.family(), ErrorFamily::Broken, "{error:?}");
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_damaged_and_left_as_it_is() {
    let fixture = Fixture::new().await;
    fixture.store.append(&stream("a"), ANY, (0..500).map(event).collect()).await.expect("appended");
    fixture.store.close().await;
    let whole = std::fs::read(fixture.path()).expect("read");
    for length in [50, 4096, whole.len() / 2, whole.len() - 4096] {
        std::fs::write(fixture.path(), &whole[..length]).expect("written");
        let error = SqliteStore::open(fixture.path()).await.err().expect("refused");
        assert!(matches!(error, OpenError::Damaged { .. }), "{length} bytes: {error:?}");
        assert_eq!(std::fs::read(fixture.path()).expect("read"), &whole[..length]);
    }
}

const VETO: &str = "
    CREATE TRIGGER veto BEFORE INSERT ON events WHEN NEW.version = 2000
    BEGIN
        SELECT RAISE(ABORT, 'no');
    END";

#[tokio::test]
async fn a_refused_append_leaves_nothing_of_itself_in_a_unit_of_work() {
    let fixture = Fixture::new().await;
    let mut work = fixture.store.begin().await.expect("begun");
    sqlx::raw_sql(VETO).execute(&mut *work).await.expect("created");
    // The rows of the first statement are taken, those of the second are not.
    let error = work.append(Append::to(stream("a"), ANY, (0..3000).map(event).collect())).await;
    assert!(matches!(error, Err(AppendError::Broken { .. })), "{error:?}");
    work.append(Append::to(stream("a"), ExpectedVersion::NoStream, vec![event(1)])).await.expect("it goes on");
    work.commit().await.expect("committed");
    assert_eq!(fixture.log().await.len(), 1);
}

#[tokio::test]
async fn an_append_that_the_schema_refuses_takes_no_other_of_its_batch_along() {
    let fixture = Fixture::new().await;
    sqlx::raw_sql(VETO).execute(&mut fixture.foreign().await).await.expect("created");
    let blocker = fixture.store.begin().await.expect("begun");
    let (good, bad) = (stream("good"), stream("bad"));
    let mut first = fixture.store.append(&good, ANY, vec![event(1)]);
    let mut second = fixture.store.append(&bad, ANY, (0..2500).map(event).collect());
    let mut third = fixture.store.append(&good, ANY, vec![event(2)]);
    for append in [&mut first, &mut second, &mut third] {
        assert!(futures::poll!(append.as_mut()).is_pending());
    }
    blocker.rollback().await.expect("rolled back");
    assert_eq!(first.await.expect("appended").version().get(), 1);
    assert!(matches!(second.await, Err(AppendError::Broken { .. })));
    assert_eq!(third.await.expect("appended").version().get(), 2);
    assert_eq!(fixture.log().await.len(), 2);
}

#[tokio::test]
async fn own_commits_are_announced_at_once_and_not_by_polling() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions::new(folder.path().join("log.db")).poll_interval(Duration::from_secs(3600));
    let store = options.open().await.expect("opened");
    let mut head = store.watch();
    let mut announced = |by: &str| {
        assert!(head.has_changed().expect("open"), "{by}");
        head.borrow_and_update().get()
    };
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1), event(2)]).await.expect("appended");
    assert_eq!(announced("directly"), 2);
    store.append(&stream("a"), ANY, vec![event(3)]).await.expect("appended");
    assert_eq!(announced("by the queue"), 3);
    let mut work = store.begin().await.expect("begun");
    work.append(Append::to(stream("a"), ANY, vec![event(4)])).await.expect("appended");
    work.commit().await.expect("committed");
    assert_eq!(announced("by a unit of work"), 4);
}

#[tokio::test]
async fn a_tenant_with_a_long_queue_does_not_keep_another_waiting() {
    let fixture = Fixture::new().await;
    let other = crate::StreamId::new(crate::Tenant::new("other").expect("a name"), "counter", "a").expect("a name");
    let own = stream("a");
    let blocker = fixture.store.begin().await.expect("begun");
    // A batch has room for two of these.
    let mut long: Vec<_> = (0..4).map(|_| fixture.store.append(&own, ANY, (0..2000).map(event).collect())).collect();
    for append in &mut long {
        assert!(futures::poll!(append.as_mut()).is_pending());
    }
    let mut short = fixture.store.append(&other, ANY, vec![event(1)]);
    assert!(futures::poll!(short.as_mut()).is_pending());
    blocker.rollback().await.expect("rolled back");
    assert_eq!(short.await.expect("appended").position.get(), 2001, "it comes after the first of the others");
    for append in long {
        append.await.expect("appended");
    }
}

#[tokio::test]
async fn expired_request_keys_are_swept_in_bounded_batches() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = std::sync::Arc::new(crate::ManualClock::at("2026-01-02T03:04:05Z".parse().expect("a time")));
    let options = SqliteOptions::new(folder.path().join("log.db")).clock(std::sync::Arc::clone(&clock));
    let store = options.open().await.expect("opened");
    let remember = async |key: String| {
        let print = crate::Fingerprint::of_bytes(b"body");
        let request = crate::RequestKey::new(key, print).expect("a key").with_lifetime(Duration::from_secs(1));
        store.append_many(Append::request_only(crate::Tenant::default(), request)).await.expect("remembered");
    };
    let left = async || {
        let mut reader = store.database().read().await.expect("a reader");
        let rows = sqlx::query("SELECT count(*) FROM annals_request_keys").fetch_all(&mut *reader).await.expect("read");
        rows[0].get::<i64, _>(0)
    };
    for n in 0..120 {
        remember(format!("old-{n}")).await;
    }
    assert_eq!(left().await, 120);
    clock.advance(Duration::from_secs(2));
    remember("new-1".to_owned()).await;
    assert_eq!(left().await, 21);
    remember("new-2".to_owned()).await;
    assert_eq!(left().await, 2);
}

#[tokio::test]
async fn every_connection_is_as_durable_as_was_asked_for() {
    for (asked, level) in [(None, 2), (Some(Synchronous::Full), 2), (Some(Synchronous::Normal), 1)] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SqliteOptions::new(folder.path().join("log.db"));
        let store = asked.map_or(options.clone(), |asked| options.synchronous(asked)).open().await.expect("opened");
        let mut work = store.begin().await.expect("begun");
        let rows = sqlx::query("PRAGMA synchronous").fetch_all(&mut *work).await.expect("read");
        assert_eq!(rows[0].get::<i64, _>(0), level, "{asked:?}");
        let rows = sqlx::query("PRAGMA journal_mode").fetch_all(&mut *work).await.expect("read");
        assert_eq!(rows[0].get::<String, _>(0), "wal");
    }
}

/// Its events without the key would be stored again by the repeat.
#[tokio::test]
async fn an_append_whose_key_cannot_be_stored_stores_nothing() {
    let fixture = Fixture::new().await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON annals_request_keys BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::raw_sql(refuse).execute(&mut fixture.foreign().await).await.expect("made");
    let key = RequestKey::new("r", Fingerprint::of_bytes(b"")).expect("a key");
    let one = Append::to(stream("a"), ANY, vec![event(1)]);
    let large = Append::to(stream("a"), ANY, (0..40).map(event).collect());
    let several = one.clone().and(stream("b"), ANY, vec![event(2), event(3)]);
    for append in [one.clone(), large, several] {
        fixture.store.append_many(append.with_request(key.clone())).await.expect_err("refused");
    }
    // Together with others, which are sound.
    let others = [Append::to(stream("c"), ANY, vec![event(4)]), Append::to(stream("d"), ANY, vec![event(5)])];
    let [first, last] = others;
    let appends = [first, one.clone().with_request(key.clone()), last];
    let answers = futures::future::join_all(appends.map(|append| fixture.store.append_many(append))).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(fixture.log().await.len(), 2);
    sqlx::raw_sql("DROP TRIGGER refuse").execute(&mut fixture.foreign().await).await.expect("dropped");
    let done = fixture.store.append_many(one.with_request(key)).await.expect("appended");
    assert_eq!((done.version().get(), done.repeated), (1, false));
}

/// A caller that is told that its append came too late sends another one; so one that may be stored is said to be unknown.
#[tokio::test]
async fn an_append_that_was_sent_has_an_unknown_outcome_at_its_deadline_and_its_repetition_tells() {
    let fixture = Fixture::new().await;
    for round in 0..3 {
        let mut rival = fixture.foreign().await;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut rival).await.expect("locked");
        let deadline = tokio::time::Instant::now() + Duration::from_millis(200);
        // One alone goes straight to the connection; the others are taken by the writer.
        let appends: Vec<_> = (0..=2 * round).map(|n| (format!("{round}-{n}"), event(n))).collect();
        let appending: Vec<_> = appends
            .iter()
            .map(|(id, event)| {
                let append = Append::to(stream(id), ANY, vec![event.clone()]).with_deadline(deadline);
                let store = fixture.store.clone();
                tokio::spawn(async move { store.append_many(append).await })
            })
            .collect();
        let mut ended = Vec::new();
        for appending in appending {
            ended.push(appending.await.expect("no panic").expect_err("the file is locked"));
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut rival).await.expect("free");
        let mut unknown = 0;
        for ((id, event), error) in appends.iter().zip(ended) {
            match error {
                AppendError::OutcomeUnknown { .. } => unknown += 1,
                AppendError::DeadlineExceeded { .. } => {
                    let page = fixture.store.load_page(&stream(id), StreamVersion::NONE, 10).await.expect("read");
                    assert_eq!(page.events.len(), 0, "{id}");
                }
                other => panic!("neither unknown nor withdrawn: {other:?}"),
            }
            let again = Append::to(stream(id), ANY, vec![event.clone()]);
            assert_eq!(fixture.store.append_many(again).await.expect("it tells").version().get(), 1, "{id}");
        }
        assert!(unknown > 0, "nothing was sent before the deadline");
    }
}

/// Without a busy timeout every append beside a writer of another connection would fail at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_another_one_that_ends_in_time() {
    let fixture = Fixture::new().await;
    fixture.append("a", ExpectedVersion::NoStream, 1).await.expect("appended");
    let one = StreamVersion::new(1).expect("a version");
    let mut foreign = fixture.foreign().await;
    for by in ["directly", "by the queue", "in a unit of work"] {
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut foreign).await.expect("locked");
        let store = fixture.store.clone();
        let mut waiting = tokio::spawn(async move {
            match by {
                "directly" => store.append(&stream("a"), one.into(), vec![event(2)]).await.map(drop),
                "by the queue" => store.append(&stream("a"), ANY, vec![event(3)]).await.map(drop),
                _ => store.begin().await?.commit().await,
            }
        });
        let early = tokio::time::timeout(Duration::from_millis(150), &mut waiting).await;
        assert!(early.is_err(), "{by}: it did not wait: {early:?}");
        sqlx::raw_sql("ROLLBACK").execute(&mut foreign).await.expect("free");
        waiting.await.expect("no panic").unwrap_or_else(|error| panic!("{by}: {error:?}"));
    }
}

/// A batch that was refused must not keep the file locked until this handle happens to write again.
#[tokio::test]
async fn a_refused_append_has_left_the_file_to_others_when_it_is_answered() {
    let fixture = Fixture::new().await;
    sqlx::raw_sql(VETO).execute(&mut fixture.foreign().await).await.expect("created");
    let other = SqliteOptions::new(fixture.path()).busy_timeout(Duration::ZERO).open().await.expect("opened");
    for round in 0..3 {
        let refused = fixture.store.append(&stream("bad"), ANY, (0..2500).map(event).collect()).await;
        assert!(matches!(refused, Err(AppendError::Broken { .. })), "{refused:?}");
        let version = StreamVersion::new(round).expect("a version");
        other.append(&stream("good"), version.into(), vec![event(1)]).await.expect("the file is free");
    }
}

/// A key that is stored after its events could be missing beside them, and a repeat would have its effect twice.
#[tokio::test]
async fn events_whose_request_key_cannot_be_stored_are_not_stored() {
    let fixture = Fixture::new().await;
    let veto = "CREATE TRIGGER no_keys BEFORE INSERT ON annals_request_keys BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::raw_sql(veto).execute(&mut fixture.foreign().await).await.expect("created");
    let request = crate::RequestKey::new("r", crate::Fingerprint::of_bytes(b"body")).expect("a key");
    let append = Append::to(stream("a"), ANY, vec![event(1)]).with_request(request);
    let error = fixture.store.append_many(append.clone()).await.expect_err("refused");
    assert!(matches!(error, AppendError::Broken { .. }), "{error:?}");
    assert_eq!(fixture.log().await.len(), 0);
    let mut unit = fixture.store.begin().await.expect("begun");
    unit.append(append).await.expect_err("refused");
    unit.commit().await.expect("there is nothing in it");
    assert_eq!(fixture.log().await.len(), 0);
}
