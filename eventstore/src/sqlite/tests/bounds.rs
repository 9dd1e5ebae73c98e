//! The ends of what the options take.

use std::time::Duration;

use super::{ANY, Fixture, event, stream};
use crate::append::Append;
use crate::error::{AppendError, ErrorFamily};
use crate::sqlite::SqliteOptions;
use crate::store::EventStore;
use crate::unit_of_work::UnitOfWork;

/// A timeout beyond what SQLite counts ended the thread of the connection, and so many readers ended the caller's.
#[tokio::test]
async fn the_largest_and_the_smallest_options_open_a_store_that_works() {
    let most =
        |options: SqliteOptions| options.busy_timeout(Duration::MAX).poll_interval(Duration::MAX).readers(usize::MAX);
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

/// A full disk is transient; a log without another position is not.
#[tokio::test]
async fn an_append_after_the_last_position_is_broken_and_not_transient() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let last_but_one = "UPDATE sqlite_sequence SET seq = 9223372036854775806 WHERE name = 'events'";
    sqlx::query(last_but_one).execute(&mut fixture.foreign().await).await.expect("set");
    let last = fixture.append("a", ANY, 2).await.expect("the last position");
    assert_eq!(last.position.get(), i64::MAX);

    let queued = fixture.append("a", ANY, 3).await;
    let direct = fixture.append("a", last.version().into(), 3).await;
    let mut unit = fixture.store.begin().await.expect("begun");
    let in_unit = unit.append(Append::to(stream("a"), ANY, vec![event(3)])).await;
    drop(unit);
    for (how, answer) in [("queued", queued), ("direct", direct), ("in a unit of work", in_unit)] {
        let error = answer.expect_err(how);
        assert!(
            matches!(&error, AppendError::Broken { what, .. } if what.contains("last position")),
            "{how}: {error:?}"
        );
        assert_eq!(error.family(), ErrorFamily::Broken, "{how}");
    }
    assert_eq!(fixture.log().await.len(), 2);
}
