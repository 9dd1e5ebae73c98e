//! What only SQLite can get wrong. The contract that all stores share is checked by the conformance suite.

mod another_process;
mod bounds;
mod by_hand;
#[cfg(target_os = "linux")]
mod cancelled;
mod clock;
mod decide_within;
#[cfg(unix)]
mod failing_commit;
mod failures;
mod fair;
#[cfg(target_os = "linux")]
mod full_disk;
mod full_stream;
mod held_unit;
mod journal;
mod left_behind;
#[cfg(unix)]
mod permissions;
#[cfg(unix)]
mod replaced;
mod restored;
mod unit_of_work;

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, Row};
use tempfile::TempDir;

use crate::append::Append;
use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::{AppendError, ErrorFamily, OpenError, ReadError};
use crate::event::{EventId, NewEvent};
use crate::filter::Filter;
use crate::payload::Payload;
use crate::position::{After, Position};
use crate::sqlite::connection::open::mount_of;
use crate::sqlite::{SqliteOptions, SqliteStore};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};
use crate::unit_of_work::UnitOfWork;

pub(super) fn event(n: i64) -> NewEvent {
    let id = EventId::new(TimeOrderedIds.next_id()).expect("it is not nil");
    NewEvent::raw(id, "counted", 1, Payload::from_json(&format!("{{\"n\":{n}}}")).expect("it is JSON")).expect("a name")
}

pub(super) fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "counter", id).expect("a name")
}

pub(super) struct Fixture {
    pub(super) folder: TempDir,
    pub(super) store: SqliteStore,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(folder.path().join("log.db")).await.expect("a new store");
        Self { folder, store }
    }

    pub(super) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("log.db")
    }

    pub(super) async fn foreign(&self) -> sqlx::SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path());
        sqlx::SqliteConnection::connect_with(&options).await.expect("a connection")
    }

    pub(super) async fn append(
        &self,
        id: &str,
        expected: ExpectedVersion,
        n: i64,
    ) -> Result<crate::Appended, AppendError> {
        self.store.append(&stream(id), expected, vec![event(n)]).await
    }

    pub(super) async fn log(&self) -> Vec<crate::RecordedEvent> {
        self.store.read_page(After::START, &Filter::all(), 1000).await.expect("a page").events
    }
}

pub(super) const ANY: ExpectedVersion = ExpectedVersion::Any;

#[tokio::test]
async fn what_is_appended_is_there_after_reopening() {
    let fixture = Fixture::new().await;
    fixture.append("a", ExpectedVersion::NoStream, 1).await.expect("a new stream");
    fixture.store.append(&stream("b"), ANY, (0..300).map(event).collect()).await.expect("many");
    let before = fixture.log().await;
    fixture.store.close().await;
    let again = SqliteStore::open(fixture.path()).await.expect("it is ours");
    let after = again.read_page(After::START, &Filter::all(), 1000).await.expect("a page").events;
    assert_eq!(before.len(), 301);
    assert_eq!(before, after);
    assert_eq!(again.incarnation(), fixture.store.incarnation());
}

#[tokio::test]
async fn insert_or_replace_never_overwrites_an_event() {
    let fixture = Fixture::new().await;
    let first = fixture.append("a", ANY, 1).await.expect("appended");
    let mut foreign = fixture.foreign().await;
    let columns = "event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data, metadata, recorded_at";
    for (what, sql) in [
        (
            "position",
            format!(
                "INSERT OR REPLACE INTO events (position, {columns}) VALUES ({}, x'00112233445566778899aabbccddeeff', 'default', 'counter', 'a', 2, 'x', 1, '{{}}', '{{}}', 0)",
                first.position
            ),
        ),
        (
            "event id",
            format!(
                "INSERT OR REPLACE INTO events ({columns}) SELECT event_id, tenant, aggregate_type, 'other', 1, 'x', 1, '{{}}', '{{}}', 0 FROM events"
            ),
        ),
        (
            "version",
            format!(
                "INSERT OR REPLACE INTO events ({columns}) VALUES (x'00112233445566778899aabbccddeeff', 'default', 'counter', 'a', 1, 'x', 1, '{{}}', '{{}}', 0)"
            ),
        ),
        (
            "gap in the versions",
            format!(
                "INSERT INTO events ({columns}) VALUES (x'00112233445566778899aabbccddeeff', 'default', 'counter', 'a', 3, 'x', 1, '{{}}', '{{}}', 0)"
            ),
        ),
        ("update", "UPDATE events SET event_data = '{}'".to_owned()),
        ("delete", "DELETE FROM events".to_owned()),
    ] {
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut foreign).await;
        assert!(refused.is_err(), "{what} was not refused");
    }
    let log = fixture.log().await;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].payload.as_str(), "{\"n\": 1}");
}

#[tokio::test]
async fn names_that_look_like_numbers_are_different_streams() {
    let fixture = Fixture::new().await;
    for id in ["007", "7", "7.0", "1e3", "1000"] {
        fixture.append(id, ExpectedVersion::NoStream, 1).await.expect("a stream of its own");
    }
    assert_eq!(fixture.log().await.len(), 5);
}

#[tokio::test]
async fn a_mistake_in_a_migration_is_a_permanent_error() {
    const BAD: annals_migrations::Migration =
        annals_migrations::Migration { component: "mine", number: 1, name: "bad", sql: "SELECT n FROM nowhere" };
    let fixture = Fixture::new().await;
    let error = fixture.store.database().migrate(&[BAD]).await.expect_err("refused");
    assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
    fixture.store.close().await;
    let error = fixture.store.database().migrate(&[BAD]).await.expect_err("refused");
    assert!(matches!(error, OpenError::Closed), "{error:?}");
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_untouched() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, but long enough to be looked at as one: ".repeat(40)).expect("written");
    let before = std::fs::read(&text).expect("read");
    let error = SqliteStore::open(&text).await.err().expect("refused");
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(std::fs::read(&text).expect("read"), before);

    let other = folder.path().join("other.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&other).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("a connection");
    sqlx::raw_sql("CREATE TABLE customers (id INTEGER PRIMARY KEY)").execute(&mut connection).await.expect("created");
    connection.close().await.expect("closed");
    let before = std::fs::read(&other).expect("read");
    let error = SqliteStore::open(&other).await.err().expect("refused");
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(std::fs::read(&other).expect("read"), before);
}

#[tokio::test]
async fn a_store_of_a_newer_build_is_refused() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("UPDATE annals_store SET min_build = 1000").execute(&mut foreign).await.expect("updated");
    foreign.close().await.expect("closed");
    let before = std::fs::read(fixture.path()).expect("read");
    for options in [SqliteOptions::new(fixture.path()), SqliteOptions::new(fixture.path()).read_only()] {
        let error = options.open().await.err().expect("refused");
        assert!(matches!(error, OpenError::NewerStore { needed: 1000, .. }), "{error}");
    }
    assert_eq!(std::fs::read(fixture.path()).expect("read"), before);
}

#[tokio::test]
async fn paths_where_no_store_can_be_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in [
        "".into(),
        ":memory:".into(),
        "sqlite://log.db".into(),
        folder.path().to_owned(),
        folder.path().join("nowhere/log.db"),
    ] {
        let error = SqliteStore::open(&path).await.err().expect("refused");
        assert!(matches!(&error, OpenError::Invalid(i) if i.field == "path"), "{path:?}: {error}");
    }
    let missing = SqliteOptions::new(folder.path().join("log.db")).read_only().open().await;
    assert!(missing.is_err(), "a missing file cannot be opened for reading only");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing was created");
}

#[tokio::test]
async fn a_url_instead_of_a_path_is_not_shown_as_it_may_hold_a_password() {
    for url in
        ["postgres://app:secret@127.0.0.1/shop", "sqlite://secret.db", "sqlite:secret.db", "file:secret.db?mode=rw"]
    {
        let error = SqliteStore::open(url).await.err().expect("refused");
        assert!(matches!(&error, OpenError::Invalid(i) if i.field == "path" && i.problem.contains("URL")), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_lost_journal_is_noticed() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    fixture.store.close().await;
    std::fs::write(fixture.folder.path().join("log.db-shm"), [0; 32768]).expect("written");
    let error = SqliteStore::open(fixture.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_read_only_handle_reads_and_refuses_appends() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let reading = SqliteOptions::new(fixture.path()).read_only().open().await.expect("it is there");
    assert_eq!(reading.read_page(After::START, &Filter::all(), 10).await.expect("a page").events.len(), 1);
    let error = reading.append(&stream("a"), ANY, vec![event(2)]).await.expect_err("refused");
    assert!(matches!(error, AppendError::ReadOnly { .. }), "{error}");
    assert_eq!(error.family(), ErrorFamily::Broken);
}

#[test]
fn the_nearest_mount_decides_what_kind_of_file_system_it_is() {
    let mounts = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:33 / /data rw - nfs4 host:/export rw
41 40 0:34 / /data/local\\040disk rw - ext4 /dev/vdb rw";
    let kind = |path: &str| mount_of(mounts, std::path::Path::new(path)).expect("everything lies under the root");
    assert_eq!(kind("/var/lib"), "ext4");
    assert_eq!(kind("/data/orders"), "nfs4");
    assert_eq!(kind("/data/local disk/orders"), "ext4");
    assert_eq!(kind("/database"), "ext4");
}

#[tokio::test]
async fn a_full_disk_is_a_transient_error_and_the_store_goes_on_when_there_is_room() {
    let fixture = Fixture::new().await;
    let set_pages = async |pages: &'static str| {
        let mut writer = fixture.store.database().writer().await.expect("free");
        sqlx::raw_sql(pages).execute(writer.connection().expect("open")).await.expect("set");
    };
    set_pages("PRAGMA max_page_count = 40").await;
    let big = || {
        let text = "x".repeat(100_000);
        let payload = Payload::from_json(&format!("{{\"text\":\"{text}\"}}")).expect("it is JSON");
        NewEvent::raw(EventId::new(TimeOrderedIds.next_id()).expect("not nil"), "written", 1, payload).expect("a name")
    };
    let mut stored = 0;
    let error = loop {
        match fixture.store.append(&stream("big"), ANY, vec![big()]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10, "the limit is never met");
    };
    assert!(matches!(error, AppendError::StorageFull { .. }), "{error:?}");
    assert!(error.is_transient());
    let exactly = ExpectedVersion::Exact(StreamVersion::new(stored).expect("a version"));
    let directly = fixture.store.append(&stream("big"), exactly, vec![big()]).await.expect_err("still full");
    assert!(directly.is_transient(), "{directly:?}");
    assert_eq!(fixture.log().await.len(), usize::try_from(stored).expect("small"));
    set_pages("PRAGMA max_page_count = 1000000").await;
    fixture.store.append(&stream("big"), exactly, vec![big()]).await.expect("there is room again");
}

#[tokio::test]
async fn a_unit_of_work_commits_events_and_own_rows_together_or_neither() {
    let fixture = Fixture::new().await;
    let mut head = fixture.store.watch();
    let mut work = fixture.store.begin().await.expect("begun");
    sqlx::raw_sql("CREATE TABLE mine (n INTEGER)").execute(&mut *work).await.expect("created");
    work.append(Append::to(stream("a"), ExpectedVersion::NoStream, vec![event(1), event(2)])).await.expect("appended");
    let conflict = work.append(Append::to(stream("a"), ExpectedVersion::NoStream, vec![event(3)])).await;
    assert!(matches!(conflict, Err(AppendError::WrongExpectedVersion { .. })), "{conflict:?}");
    sqlx::raw_sql("INSERT INTO mine VALUES (1)").execute(&mut *work).await.expect("the transaction goes on");
    work.commit().await.expect("committed");
    assert!(head.has_changed().expect("open"), "readers are woken");
    assert_eq!(head.borrow_and_update().get(), 2);

    let mut dropped = fixture.store.begin().await.expect("begun");
    dropped.append(Append::to(stream("b"), ANY, vec![event(4)])).await.expect("appended");
    sqlx::raw_sql("INSERT INTO mine VALUES (2)").execute(&mut *dropped).await.expect("inserted");
    drop(dropped);
    let mut reader = fixture.store.database().read().await.expect("a reader");
    let rows = sqlx::query("SELECT n FROM mine ORDER BY n").fetch_all(&mut *reader).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.get::<i64, _>(0)).collect::<Vec<_>>(), [1]);
    assert_eq!(fixture.log().await.len(), 2);
    fixture.append("b", ExpectedVersion::NoStream, 5).await.expect("the lock is free");
}

#[tokio::test]
async fn a_connection_for_reading_refuses_to_write() {
    let fixture = Fixture::new().await;
    let mut reader = fixture.store.database().read().await.expect("a reader");
    let written = sqlx::raw_sql("CREATE TABLE mine (n INTEGER) STRICT").execute(&mut *reader).await;
    assert!(written.is_err(), "{written:?}");
    sqlx::raw_sql("SELECT count(*) FROM events").execute(&mut *reader).await.expect("it reads");
}

#[tokio::test]
async fn append_in_a_foreign_transaction_checks_file_and_durability_and_wakes_readers() {
    let fixture = Fixture::new().await;
    let mut head = fixture.store.watch();
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("PRAGMA synchronous = NORMAL").execute(&mut foreign).await.expect("set");
    let mut weak = foreign.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    let error = fixture.store.append_in(&mut weak, Append::to(stream("a"), ANY, vec![event(1)])).await;
    assert!(matches!(&error, Err(AppendError::Invalid(i)) if i.field == "synchronous"), "{error:?}");
    // A deadline that has passed comes before all questions to the transaction.
    let late = Append::to(stream("a"), ANY, vec![event(1)]).with_deadline(tokio::time::Instant::now());
    let error = fixture.store.append_in(&mut weak, late).await;
    assert!(matches!(error, Err(AppendError::DeadlineExceeded { .. })), "{error:?}");
    weak.rollback().await.expect("rolled back");

    sqlx::raw_sql("PRAGMA synchronous = FULL").execute(&mut foreign).await.expect("set");
    let mut strong = foreign.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    fixture.store.append_in(&mut strong, Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
    let conflict =
        fixture.store.append_in(&mut strong, Append::to(stream("a"), ExpectedVersion::NoStream, vec![event(2)])).await;
    assert!(matches!(conflict, Err(AppendError::WrongExpectedVersion { .. })), "{conflict:?}");
    strong.commit().await.expect("committed");
    tokio::time::timeout(Duration::from_secs(5), head.wait_for(|p| p.get() == 1)).await.expect("woken").expect("open");

    let elsewhere = Fixture::new().await;
    let mut other = elsewhere.foreign().await;
    let mut transaction = other.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    let error = fixture.store.append_in(&mut transaction, Append::to(stream("a"), ANY, vec![event(3)])).await;
    assert!(matches!(&error, Err(AppendError::Invalid(i)) if i.field == "transaction"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_leave_no_transaction_behind() {
    let fixture = Fixture::new().await;
    let seed = crate::testing_seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..200 {
        let max_wait = Duration::from_micros(random.u64(0..600));
        let id = format!("s{}", random.u8(0..4));
        match round % 3 {
            0 => drop(tokio::time::timeout(max_wait, fixture.append(&id, ANY, 1)).await),
            1 => drop(tokio::time::timeout(max_wait, fixture.store.begin()).await),
            _ => {
                let work = async {
                    let mut work = fixture.store.begin().await?;
                    work.append(Append::to(stream(&id), ANY, vec![event(1)])).await?;
                    work.commit().await
                };
                drop(tokio::time::timeout(max_wait, work).await);
            }
        }
    }
    let after = tokio::time::timeout(Duration::from_secs(10), fixture.append("last", ExpectedVersion::NoStream, 1));
    after.await.unwrap_or_else(|_| panic!("the lock was lost, ANNALS_SEED={seed}")).expect("appended");
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK").execute(&mut foreign).await.expect("the file is not locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_rival_in_a_batch_gets_the_conflict() {
    let fixture = Fixture::new().await;
    let blocker = fixture.store.begin().await.expect("begun");
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let store = fixture.store.clone();
            let id = if n % 4 == 0 { "hot".to_owned() } else { format!("cold-{n}") };
            tokio::spawn(async move { store.append(&stream(&id), ExpectedVersion::NoStream, vec![event(n)]).await })
        })
        .collect();
    blocker.rollback().await.expect("rolled back");
    let (mut stored, mut conflicts) = (0, 0);
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(_) => stored += 1,
            Err(AppendError::WrongExpectedVersion { stream, actual, .. }) => {
                assert_eq!((stream.aggregate_id(), actual.get()), ("hot", 1));
                conflicts += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((stored, conflicts), (31, 9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_takes_an_append_out_of_the_queue_and_nothing_is_stored() {
    let fixture = Fixture::new().await;
    let blocker = fixture.store.begin().await.expect("begun");
    let deadline = tokio::time::Instant::now() + Duration::from_millis(30);
    let append = Append::to(stream("late"), ANY, vec![event(1)]).with_deadline(deadline);
    let error = fixture.store.append_many(append).await.expect_err("withdrawn");
    assert!(matches!(error, AppendError::DeadlineExceeded { .. }), "{error:?}");
    blocker.rollback().await.expect("rolled back");
    fixture.append("next", ANY, 1).await.expect("appended");
    assert_eq!(fixture.log().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_its_tenant_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = crate::Limits { queued_appends: 3, ..crate::Limits::default() };
    let store = SqliteOptions::new(folder.path().join("log.db")).limits(limits).open().await.expect("opened");
    let blocker = store.begin().await.expect("begun");
    let mut waiting: Vec<_> = (0..3)
        .map(|n| {
            let store = store.clone();
            Box::pin(async move { store.append(&stream("a"), ANY, vec![event(n)]).await })
        })
        .collect();
    for append in &mut waiting {
        assert!(futures::poll!(append.as_mut()).is_pending());
    }
    let error = store.append(&stream("a"), ANY, vec![event(9)]).await.expect_err("overloaded");
    assert!(matches!(error, AppendError::Overloaded { queued: 3, limit: 3, .. }), "{error:?}");
    let other = StreamId::new(Tenant::new("other").expect("a name"), "counter", "a").expect("a name");
    let mut neighbour = Box::pin(store.append(&other, ANY, vec![event(1)]));
    assert!(futures::poll!(neighbour.as_mut()).is_pending(), "another tenant may still queue");
    blocker.rollback().await.expect("rolled back");
    neighbour.await.expect("appended");
    for append in waiting {
        append.await.expect("appended");
    }
}

#[tokio::test]
async fn waiting_appends_are_bounded_in_bytes_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = crate::Limits { queued_bytes: 22, ..crate::Limits::default() };
    let store = SqliteOptions::new(folder.path().join("log.db")).limits(limits).open().await.expect("opened");
    let blocker = store.begin().await.expect("begun");
    let id = stream("a");
    let append = |n| store.append(&id, ANY, vec![event(n)]);
    // Each has 10 bytes: `{"n": 1}` and `{}`.
    let (mut first, mut second) = (append(1), append(2));
    assert!(futures::poll!(first.as_mut()).is_pending() && futures::poll!(second.as_mut()).is_pending());
    let error = append(3).await.expect_err("overloaded");
    assert!(matches!(error, AppendError::Overloaded { queued: 20, limit: 22, unit: "bytes", .. }), "{error:?}");
    blocker.rollback().await.expect("rolled back");
    first.await.expect("appended");
    second.await.expect("appended");
    append(4).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_one_file_share_one_order_and_wake_each_other() {
    let fixture = Fixture::new().await;
    let other = SqliteStore::open(fixture.path()).await.expect("opened twice");
    let mut head = other.watch();
    let writers: Vec<_> = [fixture.store.clone(), other.clone()]
        .into_iter()
        .map(|store| {
            tokio::spawn(async move {
                for n in 0..100 {
                    store.append(&stream("shared"), ANY, vec![event(n)]).await.expect("appended");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    let last = fixture.append("one-more", ANY, 1).await.expect("appended").position;
    tokio::time::timeout(Duration::from_secs(5), head.wait_for(|p| *p == last)).await.expect("woken").expect("open");
    let log = fixture.log().await;
    let versions: Vec<i64> = log.iter().filter(|e| e.stream == stream("shared")).map(|e| e.version.get()).collect();
    assert_eq!(versions, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn rows_that_annals_did_not_write_are_reported_and_never_skipped() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql(
        "INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data, metadata, recorded_at)
         VALUES (x'00112233445566778899aabbccddeeff', 'default', 'coun' || char(31) || 'ter', 'a', 1, 'x', 1, '{}', '{}', 0)",
    )
    .execute(&mut foreign)
    .await
    .expect("the schema cannot refuse it");
    let error = fixture
        .store
        .read_page(Position::new(1).expect("a position").into(), &Filter::all(), 10)
        .await
        .expect_err("damaged");
    assert!(matches!(error, ReadError::Damaged { position, .. } if position.get() == 2), "{error}");
}

#[tokio::test]
async fn long_events_come_back_whole_and_cut_the_page() {
    let fixture = Fixture::new().await;
    let long = |n: usize| {
        let payload = Payload::from_json(&format!("{{\"text\":\"{}\"}}", "y".repeat(n))).expect("it is JSON");
        NewEvent::raw(EventId::new(TimeOrderedIds.next_id()).expect("not nil"), "written", 1, payload).expect("a name")
    };
    let sizes = [10, 8_000, 9_000, 1_000_000, 10];
    for size in sizes {
        fixture.store.append(&stream("long"), ANY, vec![long(size)]).await.expect("appended");
    }
    let lengths: Vec<usize> = fixture.log().await.iter().map(|e| e.payload.as_str().len() - 12).collect();
    assert_eq!(lengths, sizes);
    for _ in 0..2 {
        fixture.store.append(&stream("long"), ANY, (0..12).map(|_| long(1_000_000)).collect()).await.expect("appended");
    }
    let page = fixture.store.load_page(&stream("long"), StreamVersion::NONE, 1000).await.expect("a page");
    assert!(!page.end && page.events.len() < 29, "{} events in one page", page.events.len());
    let rest = fixture
        .store
        .load_page(&stream("long"), page.events.last().expect("some").version, 1000)
        .await
        .expect("a page");
    assert_eq!(page.events.len() + rest.events.len(), 29);
}

#[tokio::test]
async fn hot_reads_use_their_indexes() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let mut plans = String::new();
    for (name, sql) in crate::sqlite::read::pages::hot_reads()
        .into_iter()
        .chain(crate::sqlite::read::as_of::hot_reads())
        .map(|(n, s)| (n, s.to_owned()))
        .chain(crate::sqlite::snapshots::hot_reads().into_iter().map(|(n, s)| (n, s.to_owned())))
        .chain(crate::sqlite::append::round::hot_reads())
    {
        let is_planned_each_time =
            |limit: &str| !limit.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(" + 0");
        assert!(!sql.split("LIMIT ?").skip(1).any(is_planned_each_time), "{name}: `LIMIT ?N` and not `LIMIT ?N + 0`");
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .fetch_all(&mut foreign)
            .await
            .expect("explained");
        plans.push_str(&format!("{name}\n"));
        for row in rows {
            plans.push_str(&format!("    {}\n", row.get::<String, _>("detail")));
        }
    }
    insta::assert_snapshot!("plans", plans);
}

#[tokio::test]
async fn the_schema_is_what_was_released() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let rows = sqlx::query(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name",
    )
    .fetch_all(&mut foreign)
    .await
    .expect("read");
    let schema: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {}\n{}\n", row.get::<String, _>(0), row.get::<String, _>(1), row.get::<String, _>(2)))
        .collect();
    insta::assert_snapshot!("schema", schema.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_starters_on_an_empty_file_make_one_schema() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Arc::new(folder.path().join("log.db"));
    let starters: Vec<_> = (0..5)
        .map(|_| {
            let path = Arc::clone(&path);
            tokio::spawn(async move { SqliteStore::open(&*path).await.map(|store| store.incarnation()) })
        })
        .collect();
    let mut incarnations = Vec::new();
    for starter in starters {
        incarnations.push(starter.await.expect("no panic").expect("opened"));
    }
    incarnations.dedup();
    assert_eq!(incarnations.len(), 1, "all see the same incarnation of the store");
}
