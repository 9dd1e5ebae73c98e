//! Connections that die, and futures that are dropped, in the middle of an append.

use std::time::Duration;

use annals_eventstore::{
    Append, AppendError, ErrorFamily, EventStore, ExpectedVersion, Limits, OpenError, PostgresOptions, PostgresStore,
    StreamId, StreamVersion, Tenant,
};
use sqlx::{PgConnection, Row};

use super::{Fixture, insert, run, stream};

/// Waits for a backend whose append, outside of the writers, is blocked by another transaction.
pub(super) async fn blocked_backend(connection: &mut PgConnection) -> i32 {
    blocked_in(connection, "annals.append(").await
}

/// The backend that waits in a call of `function` for another one's transaction to end, once there is one.
pub(super) async fn blocked_in(connection: &mut PgConnection, function: &str) -> i32 {
    let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND strpos(query, $1) > 0 ORDER BY pid";
    let begun = tokio::time::Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(10), "no append waits for another transaction");
        let rows = sqlx::query(waiting).bind(function).fetch_all(&mut *connection).await.unwrap();
        if let Some(row) = rows.first() {
            return row.get(0);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_lost_in_an_append_leaves_it_unknown_until_it_is_repeated() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let mut rival = fixture.foreign().await;
    run(&mut rival, "BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let append = Append::to(stream("a"), ExpectedVersion::NoStream, vec![fixture.event(), fixture.event()]);
    let store = fixture.store.clone();
    let appending = tokio::spawn({
        let append = append.clone();
        async move { store.append_many(append).await }
    });
    let pid = blocked_backend(&mut foreign).await;
    run(&mut foreign, &format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
    let error = appending.await.unwrap().unwrap_err();
    assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error}");
    run(&mut rival, "ROLLBACK").await.unwrap();
    let done = fixture.store.append_many(append.clone()).await.unwrap();
    assert_eq!((done.version().get(), done.repeated), (2, false));
    assert!(fixture.store.append_many(append).await.unwrap().repeated);
}

#[tokio::test]
async fn a_cancelled_statement_has_stored_nothing_and_reports_it() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let mut rival = fixture.foreign().await;
    run(&mut rival, "BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let store = fixture.store.clone();
    let event = fixture.event();
    let appending = tokio::spawn(async move { store.append(&stream("a"), ExpectedVersion::Any, vec![event]).await });
    let pid = blocked_backend(&mut foreign).await;
    run(&mut foreign, &format!("SELECT pg_cancel_backend({pid})")).await.unwrap();
    let error = appending.await.unwrap().unwrap_err();
    assert!(error.is_transient(), "{error}");
    let page = fixture.store.load_page(&stream("a"), StreamVersion::NONE, 10).await.unwrap();
    assert_eq!(page.events.len(), 0);
}

#[tokio::test]
async fn a_blocked_append_blocks_neither_writer_nor_connection() {
    let fixture = Fixture::new().await;
    let alone = PostgresOptions::new(fixture.database.url()).connections(2).writers(1).open().await.unwrap();
    let mut rival = fixture.foreign().await;
    run(&mut rival, "BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let append = |id: &'static str, expected| {
        let (store, event) = (alone.clone(), fixture.event());
        tokio::spawn(async move { store.append(&stream(id), expected, vec![event]).await })
    };
    // More of them than there are connections, so that one stream could take them all.
    let blocked: Vec<_> = (0..5).map(|_| append("a", ExpectedVersion::Any)).collect();
    blocked_backend(&mut fixture.foreign().await).await;
    let others = async {
        append("b", ExpectedVersion::NoStream).await.unwrap().unwrap();
        let three = vec![fixture.event(), fixture.event(), fixture.event()];
        alone.append_many(Append::to(stream("c"), ExpectedVersion::NoStream, three)).await.unwrap();
        assert_eq!(alone.load_page(&stream("b"), StreamVersion::NONE, 9).await.unwrap().events.len(), 1);
    };
    tokio::time::timeout(Duration::from_secs(4), others).await.expect("no append waits for the rival");
    assert!(blocked.iter().all(|append| !append.is_finished()));
    run(&mut rival, "COMMIT").await.unwrap();
    let mut versions = Vec::new();
    for append in blocked {
        versions.push(append.await.unwrap().unwrap().version().get());
    }
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn an_append_that_is_blocked_for_long_is_busy_and_has_stored_nothing() {
    let fixture = Fixture::new().await;
    let mut rival = fixture.foreign().await;
    run(&mut rival, "BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let sooner = "ALTER FUNCTION annals.append SET lock_timeout = '50ms'";
    run(&mut fixture.foreign().await, sooner).await.unwrap();
    let error = fixture.append("a").await.unwrap_err();
    assert!(matches!(error, AppendError::Busy { .. }), "{error:?}");
    run(&mut rival, "ROLLBACK").await.unwrap();
    assert_eq!(fixture.append("a").await.unwrap().version().get(), 1);
}

#[tokio::test]
async fn a_dropped_append_blocks_no_connection() {
    let fixture = Fixture::new().await;
    let alone = PostgresOptions::new(fixture.database.url()).connections(1).open().await.unwrap();
    let mut rival = fixture.foreign().await;
    run(&mut rival, "BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let many = |id: &'static str| {
        let events = (0..100).map(|_| fixture.event()).collect();
        let (store, append) = (alone.clone(), Append::to(stream(id), ExpectedVersion::Any, events));
        async move { store.append_many(append).await }
    };
    let appending = tokio::spawn(many("a"));
    blocked_backend(&mut fixture.foreign().await).await;
    appending.abort();
    assert!(appending.await.unwrap_err().is_cancelled());
    // The only connection still waits for the rival; a new one replaces it.
    tokio::time::timeout(Duration::from_secs(4), many("b")).await.expect("it does not wait for the rival").unwrap();
}

#[tokio::test]
async fn too_many_waiting_appends_of_a_tenant_are_refused_and_no_other_tenants() {
    for (appends, bytes, refused) in [(2, 1 << 20, "appends"), (100, 8, "bytes")] {
        let fixture = Fixture::new().await;
        let mut rival = fixture.foreign().await;
        run(&mut rival, "BEGIN").await.unwrap();
        insert(&mut rival, "a").await;
        let limits = Limits { queued_appends: appends, queued_bytes: bytes, ..Limits::default() };
        let store = PostgresOptions::new(fixture.database.url()).limits(limits).open().await.unwrap();
        let append = |id: &'static str| {
            let (store, event) = (store.clone(), fixture.event());
            tokio::spawn(async move { store.append(&stream(id), ExpectedVersion::Any, vec![event]).await })
        };
        // One append waits for the rival, another for the first.
        let first = append("a");
        blocked_backend(&mut fixture.foreign().await).await;
        let second = append("a");
        tokio::task::yield_now().await;
        let error = store.append(&stream("c"), ExpectedVersion::Any, vec![fixture.event()]).await.unwrap_err();
        match error {
            AppendError::Overloaded { unit, .. } => assert_eq!(unit, refused),
            other => panic!("expected to be too many: {other:?}"),
        }
        let theirs = StreamId::new(Tenant::new("other").unwrap(), "order", "a").unwrap();
        store.append(&theirs, ExpectedVersion::Any, vec![fixture.event()]).await.unwrap();
        run(&mut rival, "COMMIT").await.unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_read_only_server_is_distinguished_from_an_unreachable_one() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    let only_reads = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',
                                                  current_database()); END $$";
    run(&mut foreign, only_reads).await.unwrap();
    let again = PostgresStore::open(fixture.database.url()).await.unwrap();
    let error = again.append(&stream("a"), ExpectedVersion::Any, vec![fixture.event()]).await.unwrap_err();
    assert!(matches!(error, AppendError::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn another_incarnation_of_the_store_under_an_open_handle_is_detected() {
    let fixture = Fixture::new().await;
    let handle = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    run(&mut fixture.foreign().await, "UPDATE annals.store SET incarnation = gen_random_uuid()").await.unwrap();
    let error = handle.append(&stream("a"), ExpectedVersion::Any, vec![fixture.event()]).await.unwrap_err();
    assert_eq!(error.family(), ErrorFamily::Broken, "{error}");
    let error = handle.head().await.unwrap_err();
    assert_eq!(error.family(), ErrorFamily::Broken, "{error}");
}

/// The printed text of an error, its causes, and its options.
async fn error_text(url: &str) -> (OpenError, String) {
    let error = PostgresStore::open(url).await.unwrap_err();
    let mut text = format!("{error:?} {error} {:?}", PostgresOptions::new(url));
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text.push_str(&format!(" {error}"));
        source = error.source();
    }
    (error, text)
}

#[tokio::test]
async fn no_error_shows_a_password() {
    for url in [
        "postgres://app:secret@127.0.0.1:1/shop",
        "postgresql://app@127.0.0.1:1/shop?password=secret",
        "postgres://app:secret@127.0.0.1:1/shop?application_name=me&options[search_path]=shop",
    ] {
        let (error, text) = error_text(url).await;
        assert!(matches!(error, OpenError::Unavailable { .. }), "{text}");
        assert!(text.contains("postgres://127.0.0.1:1/shop") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_meant_is_refused_and_not_shown() {
    for url in [
        "postgres://app:secret@[/shop",
        "postgres://app:secret@127.0.0.1:port/shop",
        "http://app:secret@127.0.0.1:1/",
        "secret",
        // Passwords whose characters are those of a URL.
        "postgres://app:1/secret@127.0.0.1:1/shop",
        "postgres://app:1?secret@127.0.0.1:1/shop",
        "postgres://app:1#secret@127.0.0.1:1/shop",
        // sqlx would pass over these, and log the value.
        "postgres://app@127.0.0.1:1/shop?pasword=secret",
        "postgres://app@127.0.0.1:1/shop?user=app&Password=secret",
        // Passwords in the wrong place.
        "postgres://app@127.0.0.1:1/shop?secret",
        "postgres://app@127.0.0.1:1/shop?secret=",
        "postgres://app@secret@127.0.0.1:1/shop",
    ] {
        let (error, text) = error_text(url).await;
        assert!(matches!(&error, OpenError::Invalid(i) if i.field == "url" && !i.fix.is_empty()), "{url}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let (_, text) = error_text("postgres://app@127.0.0.1:1/shop?sslmode=require&channel_binding=require").await;
    assert!(text.contains("`channel_binding`"), "{text}");
}

/// Regression: a caller whose append is refused as too late sends another one, and both are stored. What may be stored is unknown.
#[tokio::test]
async fn an_append_that_was_sent_has_an_unknown_outcome_at_its_deadline_and_its_repetition_tells() {
    let fixture = Fixture::new().await;
    let at_commit = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
                     CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON annals.events DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION wait()";
    let mut foreign = fixture.foreign().await;
    run(&mut foreign, at_commit).await.unwrap();
    // By another function each: one event, several, many.
    for (count, function) in [(1, "annals.append_next("), (2, "annals.append_group("), (40, "annals.append(")] {
        let mut rival = fixture.foreign().await;
        run(&mut rival, "BEGIN; SELECT pg_advisory_xact_lock(4711)").await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_millis(300);
        let events = (0..count).map(|_| fixture.event()).collect();
        let append = Append::to(stream(&format!("of {count}")), ExpectedVersion::NoStream, events);
        let (store, in_time) = (fixture.store.clone(), append.clone().with_deadline(deadline));
        let appending = tokio::spawn(async move { store.append_many(in_time).await });
        blocked_in(&mut foreign, function).await;
        let error = appending.await.unwrap().unwrap_err();
        assert!(matches!(error, AppendError::OutcomeUnknown { .. }), "{count}: {error:?}");
        run(&mut rival, "ROLLBACK").await.unwrap();
        assert_eq!(fixture.store.append_many(append).await.unwrap().version().get(), count);
    }
}
