//! Errors of migrations that could not be run: what is wrong, and whether it is transient.

use std::time::Duration;

use annals_eventstore::{ErrorFamily, EventStore, OpenError, PostgresDatabase, PostgresOptions, PostgresStore};
use annals_migrations::Migration;
use annals_scratch::Database;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::run;

const GOOD: Migration = Migration { component: "mine", number: 1, name: "good", sql: "CREATE TABLE mine (n int)" };
const BAD: Migration = Migration { component: "mine", number: 1, name: "bad", sql: "SELECT 1/0" };

/// An empty database with a setting for all who connect from now on.
async fn with_setting(setting: &str) -> Database {
    let there = Database::empty().await;
    let mut superuser = PgConnection::connect(there.url()).await.unwrap();
    let set = format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {setting}', current_database()); END $$");
    run(&mut superuser, &set).await.unwrap();
    superuser.close().await.unwrap();
    there
}

async fn migrate(there: &Database, migration: Migration) -> OpenError {
    let database = PostgresDatabase::open(there.url()).await.unwrap();
    database.migrate(&[migration]).await.unwrap_err()
}

/// An account without a right in the database took the lock of migrations, and kept every first start from coming to an end.
#[tokio::test]
async fn an_account_that_may_only_connect_keeps_no_store_from_being_made() {
    let there = Database::empty().await;
    let mut owner = PgConnection::connect(there.url()).await.unwrap();
    let name = format!("stranger_{:016x}", fastrand::u64(..));
    run(&mut owner, &format!("CREATE ROLE {name} LOGIN PASSWORD 'only for tests'")).await.unwrap();
    let options: PgConnectOptions = there.url().parse().unwrap();
    let mut stranger = PgConnection::connect_with(&options.username(&name).password("only for tests")).await.unwrap();
    run(&mut stranger, "SELECT pg_advisory_lock(1634627180, 1835624306)").await.unwrap();
    let opened = timeout(Duration::from_secs(20), PostgresOptions::new(there.url()).migrate().open()).await;
    let store = opened.expect("it is made without the lock").unwrap();
    store.close().await;
    let refused = run(&mut stranger, "BEGIN; LOCK TABLE annals.migrations IN SHARE UPDATE EXCLUSIVE MODE").await;
    assert_eq!(super::code(&refused.unwrap_err()), "42501");
    drop(stranger);
    run(&mut owner, &format!("DROP ROLE {name}")).await.unwrap();
}

#[tokio::test]
async fn a_mistake_in_a_migration_is_a_permanent_error() {
    let error = migrate(&Database::empty().await, BAD).await;
    assert!(matches!(&error, OpenError::Refused { source, .. } if source.to_string().contains("zero")), "{error:?}");
    assert_eq!(error.family(), ErrorFamily::Broken);
}

#[tokio::test]
async fn a_read_only_database_is_reported() {
    let there = with_setting("default_transaction_read_only = on").await;
    let error = migrate(&there, GOOD).await;
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    let error = PostgresOptions::new(there.url()).migrate().open().await.unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
}

#[tokio::test]
async fn a_missing_privilege_is_reported_with_what_to_grant() {
    let there = with_setting("role = pg_monitor").await;
    let error = migrate(&there, GOOD).await;
    assert!(matches!(&error, OpenError::Unsound { fix, .. } if fix.contains("grant")), "{error:?}");
}

#[tokio::test]
async fn a_closed_handle_is_reported() {
    let there = Database::empty().await;
    let database = PostgresDatabase::open(there.url()).await.unwrap();
    database.close().await;
    let error = database.migrate(&[GOOD]).await.unwrap_err();
    assert!(matches!(error, OpenError::Closed), "{error:?}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_nothing_to_wait_for() {
    let there = Database::empty().await;
    let url = there.url();
    let (path, parameters) = url.split_once('?').unwrap_or((url, ""));
    let nowhere = format!("{path}_that_does_not_exist?{parameters}");
    let error = PostgresStore::open(&nowhere).await.unwrap_err();
    assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
}
