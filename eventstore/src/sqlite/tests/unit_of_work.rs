//! Units of work whose user ends the transaction, or a part of it, by SQL.

use std::time::Duration;

use futures::StreamExt;
use sqlx::Row;

use super::{ANY, Fixture, event, stream};
use crate::DatabaseError;
use crate::append::Append;
use crate::error::{AppendError, ErrorFamily};
use crate::filter::Filter;
use crate::position::Position;
use crate::read::EventStoreExt;
use crate::sqlite::{SqliteOptions, SqliteUnitOfWork};
use crate::store::EventStore;
use crate::unit_of_work::UnitOfWork;

async fn run(unit: &mut SqliteUnitOfWork, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut **unit).await.expect(sql);
}

/// An append that was rolled back to a savepoint has no position; the next one gets the number.
#[tokio::test]
async fn a_rolled_back_append_is_not_announced_and_the_next_one_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions::new(folder.path().join("log.db")).poll_interval(Duration::from_secs(3600));
    let store = options.open().await.expect("opened");
    let mut head = store.watch();
    let mut unit = store.begin().await.expect("begun");
    unit.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
    run(&mut unit, "SAVEPOINT mine").await;
    unit.append(Append::to(stream("a"), ANY, vec![event(2), event(3)])).await.expect("appended");
    run(&mut unit, "ROLLBACK TO mine").await;
    unit.commit().await.expect("committed");
    assert_eq!(head.borrow_and_update().get(), 1, "a position was announced that no event has");

    let mut subscription = store.subscribe(Position::START, Filter::all());
    assert_eq!(subscription.next().await.expect("an event").expect("read").position.get(), 1);
    let mut next = Box::pin(subscription.next());
    assert!(futures::poll!(next.as_mut()).is_pending());
    let mut unit = store.begin().await.expect("begun");
    run(&mut unit, "SAVEPOINT mine").await;
    unit.append(Append::to(stream("a"), ANY, vec![event(4)])).await.expect("appended");
    run(&mut unit, "ROLLBACK TO mine").await;
    unit.commit().await.expect("committed");
    store.append(&stream("a"), ANY, vec![event(5)]).await.expect("appended");
    let woken = tokio::time::timeout(Duration::from_secs(10), next).await.expect("woken");
    assert_eq!(woken.expect("an event").expect("read").position.get(), 2);
}

/// Whatever is announced, every commit wakes: the numbers of one file may be given out again after a restore.
#[tokio::test]
async fn every_commit_wakes_whatever_was_announced_before() {
    let fixture = Fixture::new().await;
    let mut head = fixture.store.watch();
    fixture.store.group().announce(Position::new(1_000).expect("a position"));
    head.borrow_and_update();
    fixture.append("a", crate::ExpectedVersion::NoStream, 1).await.expect("appended");
    assert!(head.has_changed().expect("open"), "directly");
    head.borrow_and_update();
    fixture.append("a", ANY, 2).await.expect("appended");
    assert!(head.has_changed().expect("open"), "by the queue");
    head.borrow_and_update();
    let mut unit = fixture.store.begin().await.expect("begun");
    unit.append(Append::to(stream("a"), ANY, vec![event(3)])).await.expect("appended");
    unit.commit().await.expect("committed");
    assert!(head.has_changed().expect("open"), "by a unit of work");
}

#[tokio::test]
async fn a_commit_by_sql_is_never_answered_as_not_stored() {
    let unknown = |answer: Result<(), AppendError>, by: &str| {
        assert!(matches!(answer, Err(AppendError::OutcomeUnknown { .. })), "{by}: {answer:?}");
    };
    for (way, sql) in [("COMMIT", "COMMIT"), ("END", "END TRANSACTION"), ("and another", "COMMIT; BEGIN")] {
        let fixture = Fixture::new().await;
        let mut head = fixture.store.watch();
        let mut stored = 0;
        for end in ["commit", "rollback", "append", "drop"] {
            let mut unit = fixture.store.begin().await.expect("begun");
            unit.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
            run(&mut unit, sql).await;
            stored += 1;
            match end {
                "commit" => {
                    head.borrow_and_update();
                    unknown(unit.commit().await, way);
                    assert!(head.has_changed().expect("open"), "readers are woken: it may be stored");
                }
                "rollback" => unknown(unit.rollback().await, way),
                "append" => {
                    let more = unit.append(Append::to(stream("b"), ANY, vec![event(2)])).await;
                    unknown(more.map(drop), way);
                    unknown(unit.commit().await, way);
                }
                _ => drop(unit),
            }
            // Whatever was begun after it is rolled back, and the handle goes on.
            let answered = fixture.append("c", ANY, 3).await;
            answered.unwrap_or_else(|error| panic!("{way}, {end}: {error:?}"));
            stored += 1;
            assert_eq!(fixture.log().await.len(), stored, "{way}, {end}");
        }
    }
}

#[tokio::test]
async fn a_rollback_by_sql_stores_nothing_and_says_so() {
    let fixture = Fixture::new().await;
    let mut unit = fixture.store.begin().await.expect("begun");
    run(&mut unit, "CREATE TABLE mine (n INTEGER) STRICT").await;
    unit.commit().await.expect("committed");
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN"] {
        let mut unit = fixture.store.begin().await.expect("begun");
        unit.append(Append::to(stream("a"), ANY, vec![event(1)])).await.expect("appended");
        run(&mut unit, sql).await;
        // What comes after it must not be committed row by row.
        drop(sqlx::raw_sql("INSERT INTO mine VALUES (1)").execute(&mut *unit).await);
        drop(sqlx::raw_sql("COMMIT").execute(&mut *unit).await);
        let more = unit.append(Append::to(stream("b"), ANY, vec![event(2)])).await.expect_err("it has ended");
        assert_eq!(more.family(), ErrorFamily::Transient, "{more:?}");
        let error = unit.commit().await.expect_err("it has ended");
        assert_eq!(error.family(), ErrorFamily::Transient, "{error:?}");
    }
    assert_eq!(fixture.log().await.len(), 0);
    let mut reader = fixture.store.database().read().await.expect("a reader");
    let rows = sqlx::query("SELECT count(*) FROM mine").fetch_all(&mut *reader).await.expect("read");
    assert_eq!(rows[0].get::<i64, _>(0), 0);
}

#[tokio::test]
async fn a_transaction_that_was_committed_by_sql_is_not_called_rolled_back() {
    let fixture = Fixture::new().await;
    for end in ["commit", "rollback"] {
        let mut transaction = fixture.store.database().begin().await.expect("begun");
        let sql = "CREATE TABLE IF NOT EXISTS mine (n INTEGER) STRICT; INSERT INTO mine VALUES (1); COMMIT";
        sqlx::raw_sql(sql).execute(&mut *transaction).await.expect("committed");
        let answer = if end == "commit" { transaction.commit().await } else { transaction.rollback().await };
        assert!(matches!(answer, Err(DatabaseError::OutcomeUnknown { .. })), "{end}: {answer:?}");
    }
}
