//! The file is moved away, removed, replaced or given a second name under a handle. Without a check its appends would be
//! acknowledged and never seen again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use annals_scratch::again::{is_again, run_again};
use futures::StreamExt;

use super::{ANY, Fixture, event, stream};
use crate::DatabaseError;
use crate::append::Append;
use crate::error::{AppendError, ErrorFamily, OpenError, ReadError};
use crate::filter::Filter;
use crate::position::Position;
use crate::read::EventStoreExt;
use crate::sqlite::{SqliteDatabase, SqliteOptions, SqliteStore};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};
use crate::unit_of_work::UnitOfWork;

const SOON: Duration = Duration::from_secs(10);

fn exact(version: i64) -> ExpectedVersion {
    StreamVersion::new(version).expect("not negative").into()
}

/// A store with five events in `a`, whose version is then 5.
async fn with_five() -> Fixture {
    let fixture = Fixture::new().await;
    for version in 0..5 {
        fixture.append("a", exact(version), version).await.expect("appended");
    }
    fixture
}

/// A backup as a user makes one: a complete database, under another name.
async fn backup(fixture: &Fixture, name: &str) -> std::path::PathBuf {
    let path = fixture.folder.path().join(name);
    let mut foreign = fixture.foreign().await;
    let to = path.display().to_string();
    sqlx::query("VACUUM INTO ?1").bind(to).execute(&mut foreign).await.expect("copied");
    path
}

/// Every way of writing is refused for good, with a reason and a remedy.
async fn refuses_to_write(store: &SqliteStore, at: i64, why: &str) {
    let broken = |answer: Result<(), AppendError>, by: &str| match answer {
        Err(error @ AppendError::Broken { .. }) => {
            assert_eq!(error.family(), ErrorFamily::Broken);
            assert!(error.to_string().contains(why), "{by}: {error}");
        }
        other => panic!("{by}: {other:?}"),
    };
    let to = stream("a");
    broken(store.append(&to, exact(at), vec![event(1)]).await.map(drop), "directly");
    broken(store.append(&to, ANY, vec![event(1)]).await.map(drop), "by the queue");
    let many = (0..3000).map(event).collect();
    broken(store.append(&to, ANY, many).await.map(drop), "in several statements");
    let unit = async {
        let mut unit = store.begin().await?;
        unit.append(Append::to(to.clone(), ANY, vec![event(1)])).await?;
        unit.commit().await
    };
    broken(unit.await, "in a unit of work");
    let rows = async {
        let mut transaction = store.database().begin().await?;
        sqlx::raw_sql("CREATE TABLE mine (n INTEGER) STRICT")
            .execute(&mut *transaction)
            .await
            .map_err(|e| store.database().fault(e))?;
        transaction.commit().await
    };
    let refused: Result<(), DatabaseError> = rows.await;
    assert!(matches!(refused, Err(DatabaseError::FileReplaced { .. })), "{refused:?}");
}

async fn refuses_to_read(store: &SqliteStore) {
    let error = store.load_page(&stream("a"), StreamVersion::NONE, 10).await.expect_err("refused");
    assert!(matches!(error, ReadError::Broken { .. }), "{error:?}");
    assert!(matches!(store.head().await, Err(ReadError::Broken { .. })));
}

#[tokio::test]
async fn a_backup_that_replaces_an_open_file_is_neither_written_nor_read() {
    let fixture = with_five().await;
    let copy = backup(&fixture, "backup.db").await;
    for version in 5..11 {
        fixture.append("a", exact(version), version).await.expect("appended");
    }
    let away = fixture.folder.path().join("away.db");
    fs::rename(fixture.path(), &away).expect("moved");
    refuses_to_write(&fixture.store, 11, "no longer at").await;
    fs::rename(&copy, fixture.path()).expect("renamed");
    refuses_to_write(&fixture.store, 11, "another file").await;
    refuses_to_read(&fixture.store).await;

    // With the first file at its path again, the same handle works.
    fs::rename(fixture.path(), &copy).expect("moved");
    fs::rename(&away, fixture.path()).expect("put back");
    assert_eq!(fixture.log().await.len(), 11, "nothing of the refused appends is there");
    fixture.append("a", exact(11), 11).await.expect("appended");
}

#[tokio::test]
async fn a_removed_file_takes_no_appends_and_is_not_made_anew() {
    let fixture = with_five().await;
    fs::remove_file(fixture.path()).expect("removed");
    refuses_to_write(&fixture.store, 5, "no longer at").await;
    refuses_to_read(&fixture.store).await;
    assert!(!fixture.path().exists(), "a new connection has made a new file");
}

#[tokio::test]
async fn a_removed_journal_makes_the_handle_unusable() {
    for suffix in ["-wal", "-shm"] {
        let fixture = with_five().await;
        let beside = fixture.folder.path().join(format!("log.db{suffix}"));
        fs::remove_file(&beside).expect("removed");
        refuses_to_write(&fixture.store, 5, "was removed or replaced").await;
        // Another handle, of any process, would make a new one.
        fs::write(&beside, []).expect("written");
        refuses_to_write(&fixture.store, 5, "was removed or replaced").await;
        let readers: Vec<_> = futures::future::join_all((0..4).map(|_| fixture.store.database().read())).await;
        assert!(readers.iter().any(Result::is_err), "a new connection would read another journal");
    }
}

#[tokio::test]
async fn a_file_with_two_names_is_not_opened_and_not_written() {
    let fixture = with_five().await;
    let second = fixture.folder.path().join("second.db");
    fs::hard_link(fixture.path(), &second).expect("linked");
    refuses_to_write(&fixture.store, 5, "2 names").await;
    for path in [&second, &fixture.path()] {
        for options in [SqliteOptions::new(path), SqliteOptions::new(path).read_only()] {
            let error = options.open().await.err().expect("refused");
            assert!(matches!(error, OpenError::Unsound { .. }), "{error:?}");
        }
    }
    assert!(!fixture.folder.path().join("second.db-wal").exists(), "it got a journal of its own");
    fs::remove_file(&second).expect("removed");
    fixture.append("a", exact(5), 5).await.expect("it has one name again");
    SqliteStore::open(fixture.path()).await.expect("it has one name again");
}

#[tokio::test]
async fn a_link_that_is_pointed_to_another_file_is_noticed() {
    let (fixture, other) = (with_five().await, with_five().await);
    let link = fixture.folder.path().join("link.db");
    std::os::unix::fs::symlink(fixture.path(), &link).expect("linked");
    let store = SqliteStore::open(&link).await.expect("a link is fine");
    store.append(&stream("a"), exact(5), vec![event(5)]).await.expect("appended");
    fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(other.path(), &link).expect("linked");
    refuses_to_write(&store, 6, "another file").await;
    refuses_to_read(&store).await;
    assert_eq!((fixture.log().await.len(), other.log().await.len()), (6, 5));
}

#[tokio::test]
async fn a_folder_that_is_renamed_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("data");
    fs::create_dir(&inner).expect("made");
    let store = SqliteStore::open(inner.join("log.db")).await.expect("opened");
    store.append(&stream("a"), exact(0), vec![event(0)]).await.expect("appended");
    fs::rename(&inner, folder.path().join("old")).expect("renamed");
    refuses_to_write(&store, 1, "no longer at").await;
    fs::create_dir(&inner).expect("made");
    let fresh = SqliteStore::open(inner.join("log.db")).await.expect("a new store");
    refuses_to_write(&store, 1, "another file").await;
    assert_eq!(fresh.head().await.expect("read").position, Position::START);
}

/// Later connections of a handle would be opened, or even created, in the other folder.
#[tokio::test]
async fn a_relative_path_means_the_same_file_after_a_change_of_folder() {
    if !is_again() {
        let name = "a_relative_path_means_the_same_file_after_a_change_of_folder";
        return run_again(&[], module_path!(), name).expect("it passes in a process of its own");
    }
    let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    std::env::set_current_dir(first.path()).expect("it is there");
    let store = SqliteStore::open("log.db").await.expect("opened");
    std::env::set_current_dir(second.path()).expect("it is there");
    store.append(&stream("a"), exact(0), vec![event(0)]).await.expect("appended");
    assert_eq!(store.head().await.expect("read").position.get(), 1);
    assert_eq!(fs::read_dir(second.path()).expect("listed").count(), 0, "nothing was made there");
}

#[tokio::test]
async fn a_waiting_subscription_ends_when_the_file_is_replaced() {
    for away in [true, false] {
        let fixture = with_five().await;
        let head = Position::new(5).expect("a position");
        let mut subscription = fixture.store.subscribe(head, Filter::all());
        let mut waiting = tokio::spawn(async move { subscription.next().await });
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err(), "it waits");
        if away {
            fs::rename(fixture.path(), fixture.folder.path().join("away.db")).expect("moved");
        } else {
            fs::remove_file(fixture.path()).expect("removed");
        }
        let last = tokio::time::timeout(SOON, waiting).await.expect("woken").expect("no panic");
        assert!(matches!(last, Some(Err(ReadError::Broken { .. }))), "{last:?}");
    }
}

#[tokio::test]
async fn rows_of_a_database_without_events_are_not_written_into_a_replaced_file_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("reports.db");
    let database = SqliteDatabase::open(&path).await.expect("opened");
    let mut transaction = database.begin().await.expect("begun");
    sqlx::raw_sql("CREATE TABLE mine (n INTEGER) STRICT").execute(&mut *transaction).await.expect("created");
    fs::rename(&path, folder.path().join("away.db")).expect("moved");
    let error = transaction.commit().await.expect_err("refused");
    assert!(matches!(error, DatabaseError::FileReplaced { .. }), "{error:?}");
    assert!(matches!(database.read().await.err(), Some(DatabaseError::FileReplaced { .. })));
    assert!(matches!(database.begin().await.map(drop), Ok(())), "only a commit writes");
}

/// A handle for reading holds the file open too, so that no other file can get its inode.
#[tokio::test]
async fn a_handle_for_reading_reads_no_other_file_than_its_own() {
    let fixture = with_five().await;
    let copy = backup(&fixture, "backup.db").await;
    let reading = SqliteOptions::new(fixture.path()).read_only().open().await.expect("opened");
    fixture.store.close().await;
    fs::remove_file(fixture.path()).expect("removed");
    fs::copy(&copy, fixture.path()).expect("restored");
    refuses_to_read(&reading).await;
}

#[tokio::test]
async fn a_foreign_transaction_on_a_replaced_file_is_refused() {
    use sqlx::Connection;
    let fixture = with_five().await;
    let copy = backup(&fixture, "backup.db").await;
    let mut foreign = fixture.foreign().await;
    let mut before = foreign.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    fs::rename(fixture.path(), fixture.folder.path().join("away.db")).expect("moved");
    fs::rename(&copy, fixture.path()).expect("renamed");
    let append = Append::to(stream("a"), ANY, vec![event(1)]);
    let error = fixture.store.append_in(&mut before, append).await.expect_err("refused");
    assert!(matches!(error, AppendError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_foreign_connection_to_the_file_that_was_there_before_is_refused() {
    use sqlx::Connection;
    let fixture = with_five().await;
    let copy = backup(&fixture, "backup.db").await;
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("SELECT count(*) FROM events").execute(&mut foreign).await.expect("read");
    fixture.store.close().await;
    for suffix in ["", "-wal", "-shm"] {
        let beside = fixture.folder.path().join(format!("log.db{suffix}"));
        if beside.exists() {
            fs::remove_file(beside).expect("removed");
        }
    }
    fs::rename(&copy, fixture.path()).expect("renamed");
    let store = SqliteStore::open(fixture.path()).await.expect("a sound file");
    store.append(&stream("a"), exact(5), vec![event(5)]).await.expect("appended");
    let mut old = foreign.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    let error = store.append_in(&mut old, Append::to(stream("a"), ANY, vec![event(1)])).await.expect_err("refused");
    assert!(matches!(&error, AppendError::Invalid(i) if i.field == "transaction"), "{error:?}");
}

#[test]
fn names_of_a_missing_file_are_none() {
    assert_eq!(crate::sqlite::connection::file::names_of(Path::new("/nowhere/log.db")), 0);
}
