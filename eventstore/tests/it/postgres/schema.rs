//! The schema: its guards, its migrations, and what the store refuses to work without.

use annals_eventstore::{After, EventStore, ExpectedVersion, Filter, OpenError, PostgresOptions, PostgresStore};
use annals_scratch::Database;
use futures::future::join_all;
use sqlx::{Connection, PgConnection, Row};

use super::{Fixture, code, run, stream};

#[tokio::test]
async fn recorded_events_are_never_changed_or_removed_by_hand() {
    let fixture = Fixture::new().await;
    fixture.append("a").await.unwrap();
    let mut foreign = fixture.foreign().await;
    for always in ["SET session_replication_role = origin", "SET session_replication_role = replica"] {
        run(&mut foreign, always).await.unwrap();
        for statement in [
            "UPDATE annals.events SET event_data = '{\"forged\":true}'",
            "DELETE FROM annals.events",
            "TRUNCATE annals.events",
        ] {
            let refused = run(&mut foreign, statement).await.unwrap_err();
            assert_eq!(code(&refused), "23001", "{statement}: {refused}");
        }
    }
    let log = fixture.store.read_page(After::START, &Filter::all(), 10).await.unwrap().events;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].payload.as_str(), "{}");
}

#[tokio::test]
async fn a_hand_written_row_cannot_leave_a_gap_in_a_stream() {
    let fixture = Fixture::new().await;
    fixture.append("a").await.unwrap();
    let mut foreign = fixture.foreign().await;
    let insert = |version: i64| {
        format!(
            "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                        schema_version, event_data, metadata)
             VALUES (gen_random_uuid(), 'default', 'order', 'a', {version}, 'x', 1, '{{}}', '{{}}')"
        )
    };
    assert_eq!(code(&run(&mut foreign, &insert(3)).await.unwrap_err()), "23000");
    assert_eq!(code(&run(&mut foreign, &insert(1)).await.unwrap_err()), "23505");
    run(&mut foreign, &insert(2)).await.unwrap();
}

#[tokio::test]
async fn a_database_without_the_schema_is_refused_and_untouched() {
    let database = Database::empty().await;
    let refused = PostgresStore::open(database.url()).await.unwrap_err();
    assert!(matches!(refused, OpenError::PendingMigrations { .. }), "{refused}");
    let message = refused.to_string();
    assert!(message.contains("`events 1: events`") && message.contains("PostgresOptions::migrate"), "{message}");
    let mut foreign = PgConnection::connect(database.url()).await.unwrap();
    let schemas = sqlx::query("SELECT count(*) FROM pg_namespace WHERE nspname = 'annals'");
    assert_eq!(schemas.fetch_all(&mut foreign).await.unwrap()[0].get::<i64, _>(0), 0);
}

#[tokio::test]
async fn five_migrators_at_once_create_one_schema() {
    let database = Database::empty().await;
    let starters = (0..5).map(|_| PostgresOptions::new(database.url()).migrate().open());
    let stores: Vec<_> = join_all(starters).await.into_iter().map(Result::unwrap).collect();
    assert!(stores.iter().all(|store| store.incarnation() == stores[0].incarnation()));
    let again = PostgresOptions::new(database.url()).migrate().open().await.unwrap();
    assert_eq!(again.incarnation(), stores[0].incarnation());
}

#[tokio::test]
async fn a_store_of_a_newer_build_is_refused() {
    let fixture = Fixture::new().await;
    run(&mut fixture.foreign().await, "UPDATE annals.store SET min_build = 1000000").await.unwrap();
    let refused = PostgresOptions::new(fixture.database.url()).migrate().open().await.unwrap_err();
    assert!(matches!(refused, OpenError::NewerStore { needed: 1_000_000, .. }), "{refused}");
}

#[tokio::test]
async fn what_the_order_relies_on_must_be_in_place() {
    let fixture = Fixture::new().await;
    for _ in 0..3 {
        fixture.store.append(&stream("a"), ExpectedVersion::Any, vec![fixture.event()]).await.unwrap();
    }
    let mut foreign = fixture.foreign().await;
    for (harm, repair) in [
        ("ALTER SEQUENCE annals.events_position CACHE 10", "ALTER SEQUENCE annals.events_position CACHE 1"),
        ("ALTER SEQUENCE annals.events_position INCREMENT 2", "ALTER SEQUENCE annals.events_position INCREMENT 1"),
        ("ALTER SEQUENCE annals.events_position CYCLE", "ALTER SEQUENCE annals.events_position NO CYCLE"),
        ("SELECT setval('annals.events_position', 1)", "SELECT setval('annals.events_position', 3)"),
        (
            "ALTER TABLE annals.events DISABLE TRIGGER events_continue_their_stream",
            "ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_continue_their_stream",
        ),
    ] {
        run(&mut foreign, harm).await.unwrap();
        let refused = PostgresStore::open(fixture.database.url()).await.unwrap_err();
        assert!(matches!(refused, OpenError::Unsound { .. }), "{harm}: {refused}");
        run(&mut foreign, repair).await.unwrap();
        PostgresStore::open(fixture.database.url()).await.unwrap();
    }
}

/// One event for the stream `a` by each function that appends.
pub(super) const APPENDS: [&str; 5] = [
    "SELECT annals.append_next('default', 'order', 'a', 0, gen_random_uuid(), 'x', 1, '{}', '{}', NULL, NULL)",
    "SELECT annals.append_one('default', 'order', 'a', NULL, gen_random_uuid(), 'x', 1, '{}', '{}', NULL, NULL)",
    "SELECT annals.append_group(false, '{default}', '{order}', array['a'], '{NULL}', '{1}', '{1}',
                                '{default}', '{order}', array['a'], array[gen_random_uuid()], '{x}', '{1}', '{\"{}\"}',
                                '{\"{}\"}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{}', '{}', '{}', '{}', '{}', '{}')",
    "SELECT annals.append('default', false, '{order}', array['a'], '{NULL}', '{NULL}', '{1}', array[gen_random_uuid()], '{x}', '{1}',
                          '{\"{}\"}', '{\"{}\"}', '{NULL}', '{NULL}', NULL, NULL, NULL, NULL)",
    "SELECT annals.append_within('default', NULL, '{order}', array['a'], '{NULL}', '{NULL}', '{1}', array[gen_random_uuid()],
                                 '{x}', '{1}', '{\"{}\"}', '{\"{}\"}', '{NULL}', '{NULL}', NULL, NULL, NULL, NULL)",
];

#[tokio::test]
async fn an_append_is_durable_at_any_session_setting() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    for (before, within) in [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
        for (n, append) in APPENDS.iter().enumerate() {
            run(&mut foreign, &format!("SET synchronous_commit = {before}; BEGIN")).await.unwrap();
            run(&mut foreign, &append.replace("'a'", &format!("'{before}-{n}'"))).await.unwrap();
            let setting = sqlx::query("SELECT current_setting('synchronous_commit')");
            let setting: String = setting.fetch_all(&mut foreign).await.unwrap()[0].get(0);
            assert_eq!(setting, within, "{append}");
            run(&mut foreign, "COMMIT").await.unwrap();
        }
    }
    let log = fixture.store.read_page(After::START, &Filter::all(), 100).await.unwrap().events;
    assert_eq!(log.len(), 4 * APPENDS.len());
}
