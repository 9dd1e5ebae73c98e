//! Errors of migrations that could not be run: what is wrong, and whether it is transient.

use annals_eventstore::{ErrorFamily, OpenError, PostgresDatabase, PostgresOptions, PostgresStore};
use annals_migrations::Migration;
use annals_scratch::Database;
use sqlx::{Connection, PgConnection};

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
