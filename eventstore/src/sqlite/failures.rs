//! What goes wrong around the store: other processes, cancelled calls, lost transactions, damaged rows.

use std::time::Duration;

use futures::StreamExt;
use sqlx::Row;
use uuid::Uuid;

use super::tests::{ANY, Fixture, event, stream};
use super::*;
use crate::append::Append;
use crate::error::{AppendError, ErrorFamily, OpenError, ReadError};
use crate::filter::Filter;
use crate::position::Position;
use crate::read::EventStoreExt;
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};

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
    let locks = || {
        let all = std::fs::read_to_string("/proc/locks").expect("Linux tells");
        all.lines().filter(|lock| lock.contains(&file)).count()
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
