//! The journal beside the file: one that is missing is noticed where it can be, and one that has grown is cut again.

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection};

use super::{ANY, Fixture, event, stream};
use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::OpenError;
use crate::event::{EventId, NewEvent};
use crate::payload::Payload;
use crate::sqlite::SqliteStore;
use crate::store::EventStore;
use crate::stream::StreamVersion;

/// A backup of the file alone opened as a new, empty store.
#[tokio::test]
async fn a_copy_of_the_file_without_its_journal_is_not_taken_for_a_new_store() {
    let fixture = Fixture::new().await;
    fixture.store.append(&stream("a"), ANY, vec![event(1)]).await.expect("stored");
    let copy = fixture.path().with_extension("copy");
    std::fs::copy(fixture.path(), &copy).expect("copied");
    let refused = SqliteStore::open(&copy).await.err().expect("its events are missing");
    assert!(matches!(&refused, OpenError::Damaged { what, .. } if what.contains("-wal")), "{refused:?}");
    assert!(!copy.with_extension("copy-wal").metadata().is_ok_and(|journal| journal.len() > 0), "nothing was written");
    // Closed, the file is everything.
    fixture.store.close().await;
    let whole = fixture.path().with_extension("whole");
    std::fs::copy(fixture.path(), &whole).expect("copied");
    let store = SqliteStore::open(&whole).await.expect("opened");
    assert_eq!(store.load_page(&stream("a"), StreamVersion::NONE, 9).await.expect("read").events.len(), 1);
    store.close().await;
}

/// A process that is killed while it creates its file leaves the same bytes, once another program has opened and closed the file. The
/// error must help in both cases.
#[tokio::test]
async fn a_file_without_tables_and_journal_is_refused_with_both_causes_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("young.db");
    let connect =
        SqliteConnectOptions::new().filename(&path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    connect.connect().await.expect("created").close().await.expect("closed");
    let refused = SqliteStore::open(&path).await.err().expect("it cannot be told from a copy").to_string();
    let path = path.display();
    for part in [
        format!("`{path}-wal` is missing"),
        "a copy of the file alone".into(),
        "If the store was being created when its process ended, nothing was stored: delete the file".into(),
    ] {
        assert!(refused.contains(&part), "{part}: {refused}");
    }
}

fn large() -> NewEvent {
    let id = EventId::new(TimeOrderedIds.next_id()).expect("not nil");
    NewEvent::raw(id, "large", 1, Payload::of(&"x".repeat(900_000)).expect("it is JSON")).expect("a name")
}

/// A reader that keeps its snapshot keeps the journal from being reused, and so it grows; it stayed as long for ever.
#[tokio::test]
async fn a_journal_that_has_grown_under_a_long_reader_is_cut_afterwards() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    store.append(&stream("a"), ANY, vec![event(1)]).await.expect("stored");
    let mut reader = store.database().read().await.expect("one is free");
    let mut snapshot = reader.begin().await.expect("begun");
    sqlx::query("SELECT count(*) FROM events").fetch_all(&mut *snapshot).await.expect("read");
    for _ in 0..40 {
        store.append(&stream("a"), ANY, vec![large()]).await.expect("stored");
    }
    let journal = || fixture.path().with_extension("db-wal").metadata().expect("it is there").len();
    assert!(journal() > 32 << 20, "{}", journal());
    snapshot.rollback().await.expect("ended");
    drop(reader);
    for n in 0..2_000 {
        if journal() <= 17 << 20 {
            return;
        }
        store.append(&stream("a"), ANY, vec![event(n)]).await.expect("stored");
    }
    panic!("{} bytes", journal());
}
