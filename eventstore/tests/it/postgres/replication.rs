//! Synchronous replication: an acknowledged append is on the standbys, or its outcome is unknown.

use std::time::Duration;

use annals_eventstore::{
    Append, ErrorFamily, EventStore, ExpectedVersion, Fingerprint, PostgresOptions, PostgresStore, RequestKey, Tenant,
    UnitOfWork,
};
use annals_scratch::Server;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use tokio::task::JoinHandle;

use super::{event_for, run, stream};

const NO_STREAM: ExpectedVersion = ExpectedVersion::NoStream;

async fn set_standbys(connection: &mut PgConnection, names: &str) {
    run(connection, &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await.unwrap();
    run(connection, "SELECT pg_reload_conf()").await.unwrap();
    until(connection, &format!("SELECT current_setting('synchronous_standby_names') = '{names}'")).await;
}

/// Waits until `question` is answered with true.
async fn until(connection: &mut PgConnection, question: &str) {
    let begun = tokio::time::Instant::now();
    loop {
        let row = sqlx::query(sqlx::AssertSqlSafe(question)).fetch_one(&mut *connection).await.unwrap();
        if row.get::<Option<bool>, _>(0) == Some(true) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {question}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The result of `task`, whose commits are cancelled while they wait for standbys, as operators do with statements that hang.
async fn with_cancelled_waits<T>(task: JoinHandle<T>, connection: &mut PgConnection) -> T {
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while !task.is_finished() {
        run(connection, cancel).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    task.await.unwrap()
}

fn appends(store: &PostgresStore, round: &str) -> [Append; 3] {
    [1, 2, 40].map(|count| {
        let events = (0..count).map(|_| event_for(store)).collect();
        Append::to(stream(&format!("{round} of {count}")), NO_STREAM, events)
    })
}

/// A commit whose wait for standbys was cancelled is lost when one of them takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_wait_for_standbys_was_cancelled_is_not_acknowledged() {
    let primary = Server::start(&[]);
    let store = PostgresOptions::new(primary.url("postgres")).migrate().open().await.unwrap();
    let mut foreign = PgConnection::connect(&primary.url("postgres")).await.unwrap();
    set_standbys(&mut foreign, "FIRST 1 (standby)").await;
    let key = RequestKey::new("r", Fingerprint::of_bytes(b"")).unwrap();
    let mut sent = appends(&store, "cancelled");
    sent[1] = sent[1].clone().with_request(key.clone());
    for append in &sent {
        let appending = tokio::spawn({
            let (store, append) = (store.clone(), append.clone());
            async move { store.append_many(append).await }
        });
        let error = with_cancelled_waits(appending, &mut foreign).await.unwrap_err();
        assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error:?}");
        // Nor is its repeat, which waits for nothing, as it writes nothing.
        let error = store.append_many(append.clone()).await.unwrap_err();
        assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error:?}");
    }
    let error = store.find_request(&Tenant::default(), &key).await.unwrap_err();
    assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error:?}");
    let committing = tokio::spawn({
        let (store, event) = (store.clone(), event_for(&store));
        async move {
            let mut unit = store.begin().await.unwrap();
            unit.append(Append::to(stream("of a unit"), NO_STREAM, vec![event])).await.unwrap();
            unit.commit().await
        }
    });
    let error = with_cancelled_waits(committing, &mut foreign).await.unwrap_err();
    assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error:?}");

    // Once a standby has it all, the repeats are answered, and new appends as ever.
    let _standby = tokio::task::block_in_place(|| primary.standby());
    until(&mut foreign, "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'").await;
    for append in sent {
        assert!(store.append_many(append).await.unwrap().repeated);
    }
    assert!(store.find_request(&Tenant::default(), &key).await.unwrap().is_some());
    for append in appends(&store, "with a standby") {
        assert!(!store.append_many(append).await.unwrap().repeated);
    }
    set_standbys(&mut foreign, "ANY 1 (standby, another)").await;
    for append in appends(&store, "with any standby") {
        assert!(!store.append_many(append).await.unwrap().repeated);
    }
    set_standbys(&mut foreign, "").await;
    for append in appends(&store, "without") {
        assert!(!store.append_many(append).await.unwrap().repeated);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_may_not_see_the_standbys_gets_the_missing_privilege() {
    let primary = Server::start(&[]);
    let mut foreign = PgConnection::connect(&primary.url("postgres")).await.unwrap();
    let account = "CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO app";
    run(&mut foreign, account).await.unwrap();
    let _standby = tokio::task::block_in_place(|| primary.standby());
    let options: PgConnectOptions = primary.url("postgres").parse().unwrap();
    let store = PostgresOptions::new(options.username("app").to_url_lossy()).migrate().open().await.unwrap();
    set_standbys(&mut foreign, "standby").await;
    let append = appends(&store, "hidden")[0].clone();
    let error = store.append_many(append.clone()).await.unwrap_err();
    assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error:?}");
    let why = std::error::Error::source(&error).expect("it has a cause").to_string();
    assert!(why.contains("GRANT pg_read_all_stats"), "{why}");
    run(&mut foreign, "GRANT pg_read_all_stats TO app").await.unwrap();
    assert!(store.append_many(append).await.unwrap().repeated);
}
