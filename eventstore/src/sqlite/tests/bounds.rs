//! The ends of what the options take.

use std::time::Duration;

use super::{ANY, event, stream};
use crate::sqlite::SqliteOptions;
use crate::store::EventStore;
use crate::unit_of_work::UnitOfWork;

/// A timeout beyond what SQLite counts ended the thread of the connection, and so many readers ended the caller's.
#[tokio::test]
async fn the_largest_and_the_smallest_options_open_a_store_that_works() {
    let most = |options: SqliteOptions| {
        options.busy_timeout(Duration::MAX).poll_interval(Duration::MAX).readers(usize::MAX)
    };
    let least = |options: SqliteOptions| options.busy_timeout(Duration::ZERO).poll_interval(Duration::ZERO).readers(0);
    for options in [most, least] as [fn(SqliteOptions) -> SqliteOptions; 2] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = options(SqliteOptions::new(folder.path().join("log.db"))).open().await.expect("opened");
        store.append(&stream("a"), ANY, vec![event(1)]).await.expect("appended");
        store.begin().await.expect("begun").commit().await.expect("committed");
        assert_eq!(store.head().await.expect("read").position.get(), 1);
        store.close().await;
    }
}
