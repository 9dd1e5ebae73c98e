//! Servers, databases and roles with other settings: a store keeps its guarantees, or reports what it cannot do.

use std::time::Duration;

use annals_eventstore::{
    Append, ErrorFamily, EventStore, EventStoreExt, ExpectedVersion, Filter, Position, PostgresOptions, PostgresStore,
    StreamVersion, UnitOfWork,
};
use annals_scratch::Database;
use futures::StreamExt;
use futures::future::join_all;
use sqlx::{Connection, PgConnection, Row};

use super::proxy::Proxy;
use super::{Fixture, event_for, insert, run, stream};
use crate::backends::postgres_database;

const NO_STREAM: ExpectedVersion = ExpectedVersion::NoStream;
const ANY: ExpectedVersion = ExpectedVersion::Any;

fn events(store: &PostgresStore, id: &str, expected: ExpectedVersion, count: usize) -> Append {
    Append::to(stream(id), expected, (0..count).map(|_| event_for(store)).collect())
}

/// Sets a setting of the database, for all later connections.
async fn set(database: &Database, setting: &str) {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    run(&mut connection, &format!("ALTER DATABASE {} SET {setting}", database.name())).await.unwrap();
}

/// Appends in every way: alone, in a group, outside of the groups.
async fn in_all_ways(store: &PostgresStore, id: &str) {
    store.append_many(events(store, &format!("{id}-alone"), NO_STREAM, 1)).await.unwrap();
    let group: Vec<_> = (0..5).map(|n| events(store, &format!("{id}-{n}"), NO_STREAM, 2)).collect();
    for answer in join_all(group.into_iter().map(|append| store.append_many(append))).await {
        answer.unwrap();
    }
    store.append_many(events(store, &format!("{id}-large"), NO_STREAM, 40)).await.unwrap();
}

/// Waits until the server has ended all connections of stores.
async fn wait_until_gone(database: &Database) {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let begun = tokio::time::Instant::now();
    let left = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'annals'";
    run(&mut connection, "SET idle_session_timeout = 0").await.unwrap();
    while sqlx::query(left).fetch_one(&mut connection).await.unwrap().get::<i64, _>(0) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "they are still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn another_default_of_isolation_is_not_that_of_a_store() {
    for isolation in ["repeatable read", "serializable"] {
        let fixture = Fixture::new().await;
        set(&fixture.database, &format!("default_transaction_isolation = '{isolation}'")).await;
        let look = "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
                    BEGIN
                        IF current_setting('transaction_isolation') <> 'read committed' THEN
                            RAISE EXCEPTION 'it is %', current_setting('transaction_isolation');
                        END IF;
                        RETURN NULL;
                    END $$;
                    CREATE TRIGGER look AFTER INSERT ON annals.events EXECUTE FUNCTION look()";
        run(&mut fixture.foreign().await, look).await.unwrap();
        let store = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
        in_all_ways(&store, "a").await;
        let mut unit = store.begin().await.unwrap();
        unit.append(events(&store, "unit", NO_STREAM, 1)).await.unwrap();
        unit.commit().await.unwrap();
        let mut own = store.database().read().await.unwrap();
        let now: String = sqlx::query("SHOW transaction_isolation").fetch_one(&mut *own).await.unwrap().get(0);
        assert_eq!(now, "read committed");
        // Checks the trigger: it does refuse.
        run(&mut own, "BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
        let refused = "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                                  schema_version, event_data, metadata)
                       VALUES (gen_random_uuid(), 'default', 'order', 'b', 1, 'placed', 1, '{}', '{}')";
        run(&mut own, refused).await.unwrap_err();
    }
}

#[tokio::test]
async fn an_append_stopped_by_a_timeout_of_the_database_is_not_stored_and_works_later() {
    for limit in ["statement_timeout = '100ms'", "lock_timeout = '50ms'"] {
        let fixture = Fixture::new().await;
        // The store's own timeout for a blocked append would expire first, and is not that of the database.
        let sooner = "ALTER FUNCTION annals.append SET lock_timeout = '150ms'";
        run(&mut fixture.foreign().await, sooner).await.unwrap();
        set(&fixture.database, limit).await;
        let store = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
        let mut subscription = store.subscribe(Position::START, Filter::all());
        store.append_many(events(&store, "first", NO_STREAM, 1)).await.unwrap();
        subscription.next().await.unwrap().unwrap();

        let mut rival = fixture.foreign().await;
        run(&mut rival, "BEGIN; LOCK TABLE annals.events IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let mut appends: Vec<_> = (0..5).map(|n| events(&store, &format!("s{n}"), NO_STREAM, 1)).collect();
        appends.push(events(&store, "large", NO_STREAM, 40));
        for answer in join_all(appends.iter().map(|append| store.append_many(append.clone()))).await {
            let error = answer.unwrap_err();
            assert!(error.is_transient(), "{limit}: {error:?}");
        }
        let error = store.load_page(&stream("first"), StreamVersion::NONE, 10).await.unwrap_err();
        assert!(error.is_transient(), "{limit}: {error:?}");
        run(&mut rival, "ROLLBACK").await.unwrap();

        for append in appends {
            assert!(!store.append_many(append).await.unwrap().repeated, "{limit}");
        }
        for _ in 0..45 {
            let event = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await;
            event.expect("it continues").unwrap().unwrap();
        }
    }
}

/// Idle connections of a pool are the first that such a timeout ends.
#[tokio::test]
async fn connections_that_were_ended_while_idle_are_replaced_and_no_call_fails() {
    let database = postgres_database().await;
    // A little longer than connections are idle before they are pinged.
    set(&database, "idle_session_timeout = '1050ms'").await;
    let store = PostgresOptions::new(database.url()).poll_only().open().await.unwrap();
    in_all_ways(&store, "before").await;
    wait_until_gone(&database).await;
    in_all_ways(&store, "after").await;
    store.load_page(&stream("after-large"), StreamVersion::NONE, 10).await.unwrap();
}

#[tokio::test]
async fn a_statement_on_an_ended_connection_is_known_not_to_have_run() {
    let database = postgres_database().await;
    set(&database, "idle_session_timeout = '50ms'").await;
    let proxy = Proxy::before(database.url());
    let store = PostgresOptions::new(proxy.url()).writers(1).poll_only().open().await.unwrap();
    for (n, count) in [1, 2, 40].into_iter().enumerate() {
        let warm = events(&store, &format!("warm-{n}"), NO_STREAM, count);
        // So short is the limit that this may come too late as well.
        while let Err(error) = store.append_many(warm.clone()).await {
            assert!(error.is_transient(), "{count}: {error:?}");
        }
        wait_until_gone(&database).await;
        let append = events(&store, &format!("{n}"), NO_STREAM, count);
        // After more than a second it would be noticed before.
        let appended = loop {
            match store.append_many(append.clone()).await {
                Ok(appended) => break appended,
                Err(error) => assert!(error.is_transient(), "{count}: {error:?}"),
            }
        };
        assert!(!appended.repeated, "{count}");
    }
}

/// PostgreSQL has the setting from 17 on.
#[tokio::test]
async fn an_append_that_a_limit_of_transactions_ends_is_settled_by_repeating_it() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let known = "SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'";
    if sqlx::query(known).fetch_one(&mut foreign).await.unwrap().get::<i64, _>(0) == 0 {
        return;
    }
    set(&fixture.database, "transaction_timeout = '200ms'").await;
    let store = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    let mut rival = fixture.foreign().await;
    run(&mut rival, "SET transaction_timeout = 0; BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let append = events(&store, "a", ANY, 1);
    // The server ends the connection, so it is unknown whether that was before the commit.
    let error = store.append_many(append.clone()).await.unwrap_err();
    assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error:?}");
    run(&mut rival, "COMMIT").await.unwrap();
    let done = store.append_many(append).await.unwrap();
    assert_eq!((done.repeated, done.version().get()), (false, 2));
}

/// As when a copy is put in its place, or it is moved.
#[tokio::test]
async fn a_handle_continues_after_its_database_was_unavailable() {
    let database = postgres_database().await;
    let store = PostgresOptions::new(database.url()).open().await.unwrap();
    let mut subscription = store.subscribe(Position::START, Filter::all());
    in_all_ways(&store, "before").await;
    for _ in 0..51 {
        subscription.next().await.unwrap().unwrap();
    }
    let elsewhere = Database::empty().await;
    let mut connection = PgConnection::connect(elsewhere.url()).await.unwrap();
    let name = database.name();
    run(&mut connection, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'");
    run(&mut connection, &end).await.unwrap();
    run(&mut connection, &format!("ALTER DATABASE {name} RENAME TO {name}_away")).await.unwrap();

    let appends = [1, 2, 40].map(|count| events(&store, &format!("meanwhile-{count}"), NO_STREAM, count));
    for append in &appends {
        // Its connection may have ended before it knew.
        if let Err(error) = store.append_many(append.clone()).await {
            assert!(matches!(error.family(), ErrorFamily::OutcomeUnknown | ErrorFamily::Transient), "{error:?}");
        }
        let error = store.append_many(append.clone()).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let error = store.load_page(&stream("a"), StreamVersion::NONE, 10).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
    run(&mut connection, &format!("ALTER DATABASE {name}_away RENAME TO {name}")).await.unwrap();
    run(&mut connection, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
    for append in appends {
        assert!(!store.append_many(append).await.unwrap().repeated);
    }
    for _ in 0..43 {
        let event = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await;
        event.expect("it continues").unwrap().unwrap();
    }
}
