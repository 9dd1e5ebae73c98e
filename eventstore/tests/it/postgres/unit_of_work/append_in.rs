//! Appends in transactions that the caller has begun.

use std::time::Duration;

use annals_eventstore::{AppendError, ErrorFamily, EventStore, Position, PostgresOptions, PostgresStore};
use sqlx::{Connection, PgConnection};

use super::{ANY, Fixture, NO_STREAM, heads, insert, own_row, run};
use crate::backends::postgres_database;

#[tokio::test]
async fn append_in_a_foreign_transaction_commits_with_it_and_reports_a_conflict_without_harm() {
    let fixture = Fixture::with_table().await;
    let options = PostgresOptions::new(fixture.database.url()).poll_interval(Duration::from_millis(1));
    let store = options.open().await.unwrap();
    let mut head = store.watch();
    let mut foreign = fixture.foreign().await;
    for committed in [false, true] {
        let mut transaction = foreign.begin().await.unwrap();
        own_row(&mut transaction, 1).await.unwrap();
        let first = fixture.to("a", NO_STREAM, 1);
        store.append_in(&mut transaction, first.clone()).await.unwrap();
        let conflict = store.append_in(&mut transaction, fixture.to("a", NO_STREAM, 1)).await.unwrap_err();
        assert_eq!(conflict.family(), ErrorFamily::Conflict, "{conflict:?}");
        assert!(store.append_in(&mut transaction, first).await.unwrap().repeated);
        // A rival that committed first, unseen until now: found by a unique key, and only the append is undone.
        insert(&mut fixture.foreign().await, &format!("b{committed}")).await;
        let next = store.append_in(&mut transaction, fixture.to(&format!("b{committed}"), ANY, 1)).await.unwrap();
        assert_eq!(next.version().get(), 2);
        match committed {
            true => transaction.commit().await.unwrap(),
            false => transaction.rollback().await.unwrap(),
        }
    }
    assert_eq!(fixture.stored().await, (heads(&[("a", 1), ("bfalse", 1), ("btrue", 2)]), vec![1]));
    tokio::time::timeout(Duration::from_secs(5), head.changed()).await.expect("readers find it by polling").unwrap();
}

#[tokio::test]
async fn append_in_refuses_unsuitable_settings_and_leaves_the_transaction_unchanged() {
    let fixture = Fixture::with_table().await;
    let mut foreign = fixture.foreign().await;
    for (setting, field) in [
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "transaction_isolation"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "transaction_isolation"),
        ("SET TRANSACTION READ ONLY", "transaction_read_only"),
        ("SET LOCAL synchronous_commit = off", "synchronous_commit"),
        ("SET LOCAL synchronous_commit = local", "synchronous_commit"),
        ("SET LOCAL synchronous_commit = remote_write", "synchronous_commit"),
    ] {
        let mut transaction = foreign.begin().await.unwrap();
        run(&mut transaction, setting).await.unwrap();
        match fixture.store.append_in(&mut transaction, fixture.to("a", ANY, 1)).await.unwrap_err() {
            AppendError::Invalid(invalid) => assert_eq!(invalid.field, field, "{setting}"),
            other => panic!("{setting}: {other:?}"),
        }
        run(&mut transaction, "SELECT 1").await.unwrap();
        transaction.commit().await.unwrap();
    }
    for fits in [
        "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
        "SET LOCAL synchronous_commit = remote_apply",
        "SET LOCAL synchronous_commit = on",
    ] {
        let mut transaction = foreign.begin().await.unwrap();
        run(&mut transaction, fits).await.unwrap();
        fixture.store.append_in(&mut transaction, fixture.to("a", ANY, 1)).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let mut transaction = foreign.begin().await.unwrap();
    run(&mut transaction, "SELECT 1/0").await.unwrap_err();
    let error = fixture.store.append_in(&mut transaction, fixture.to("a", ANY, 1)).await.unwrap_err();
    assert!(matches!(&error, AppendError::Invalid(i) if i.field == "transaction"), "{error:?}");
    // A deadline that has passed comes before all questions to the transaction.
    let late = fixture.to("a", ANY, 1).with_deadline(tokio::time::Instant::now());
    let error = fixture.store.append_in(&mut transaction, late).await.unwrap_err();
    assert!(matches!(error, AppendError::DeadlineExceeded { .. }), "{error:?}");
    drop(transaction);
    let mut transaction = foreign.begin().await.unwrap();
    let in_time = tokio::time::Instant::now() + Duration::from_secs(60);
    let in_time = fixture.to("a", ANY, 1).with_deadline(in_time);
    fixture.store.append_in(&mut transaction, in_time).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(fixture.stored().await.0, heads(&[("a", 4)]));
}

#[tokio::test]
async fn append_in_refuses_a_transaction_on_another_store_or_on_none() {
    let fixture = Fixture::with_table().await;
    let (other, empty) = (postgres_database().await, annals_scratch::Database::empty().await);
    for url in [other.url(), empty.url()] {
        let mut foreign = PgConnection::connect(url).await.unwrap();
        let mut transaction = foreign.begin().await.unwrap();
        let error = fixture.store.append_in(&mut transaction, fixture.to("a", ANY, 1)).await.unwrap_err();
        assert!(matches!(&error, AppendError::Invalid(i) if i.field == "transaction"), "{error:?}");
        run(&mut transaction, "CREATE TABLE continues (n int)").await.unwrap();
        transaction.commit().await.unwrap();
    }
    let elsewhere = PostgresStore::open(other.url()).await.unwrap();
    assert_eq!(elsewhere.head().await.unwrap().position, Position::START);
}
