//! Behind a pgbouncer in transaction mode, with fewer server connections than the handles have. The whole contract runs
//! there too: `conformance::pooler`.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    After, AppendError, ErrorFamily, EventStore, EventStoreExt, ExpectedVersion, Filter, OpenError, Position,
    PostgresDatabase, PostgresOptions, PostgresStore, StreamVersion,
};
use annals_scratch::Database;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::{event_for, insert, run, stream};
use crate::backends::postgres_database_on_our_own;

async fn open(database: &Database) -> PostgresStore {
    PostgresOptions::new(database.url_through_pooler()).pooled().open().await.unwrap()
}

/// The states of the server connections that the pooler has to the database.
async fn pooled_states(connection: &mut PgConnection) -> Vec<String> {
    let others = "SELECT coalesce(state, '') FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'annals'
                  ORDER BY pid";
    sqlx::query(others).fetch_all(connection).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_pooler_without_the_option_is_refused() {
    let database = postgres_database_on_our_own().await;
    let url = database.url_through_pooler();
    // It may swallow the parameters of connections that it does not know, or refuse them.
    for url in [url.clone(), format!("{url}&options=-cgeqo=off")] {
        let refused = PostgresStore::open(url).await.unwrap_err();
        assert!(matches!(refused, OpenError::Unsound { .. }), "{refused:?}");
        assert!(refused.to_string().contains("PostgresOptions::pooled"), "{refused}");
    }
    let refused = PostgresOptions::new(format!("{url}&options=-cgeqo=off")).pooled().open().await.unwrap_err();
    assert!(refused.to_string().contains("options"), "{refused}");
    assert!(refused.to_string().contains("ignore_startup_parameters"), "{refused}");
}

/// Why statements without a name are not enough. If this fails, sqlx sends text and values together, and
/// `PostgresOptions::pooled` can do without transactions.
#[tokio::test]
async fn statements_outside_of_transactions_get_the_values_of_others() {
    let database = postgres_database_on_our_own().await;
    let options: PgConnectOptions = database.url_through_pooler().parse().unwrap();
    let options = options.extra_float_digits(None);
    let clients = (0..8_i64).map(async |client| {
        let mut connection = options.connect().await.unwrap();
        let mut wrong = 0;
        for n in 0..50_i64 {
            let text = format!("SELECT $1::bigint + {client}000");
            let query = sqlx::query(AssertSqlSafe(text)).persistent(false).bind(n);
            let right = match query.fetch_all(&mut connection).await {
                Ok(rows) => rows[0].get::<i64, _>(0) == client * 1000 + n,
                Err(_) => false,
            };
            wrong += u32::from(!right);
        }
        wrong
    });
    assert!(join_all(clients).await.into_iter().sum::<u32>() > 0);
}

#[tokio::test]
async fn racing_appends_of_two_handles_lose_and_double_nothing() {
    let database = postgres_database_on_our_own().await;
    let handles = [open(&database).await, open(&database).await];
    let writers = (0..16_usize).map(|writer| {
        let store = handles[writer % 2].clone();
        tokio::spawn(async move {
            let mut won = 0;
            for round in 0..15_i64 {
                let expected = ExpectedVersion::Exact(StreamVersion::new(round).unwrap());
                match store.append(&stream("contested"), expected, vec![event_for(&store)]).await {
                    Ok(done) => {
                        assert_eq!(done.version().get(), round + 1);
                        won += 1;
                    }
                    Err(AppendError::WrongExpectedVersion { actual, .. }) => assert!(actual.get() > round),
                    Err(other) => panic!("{other:?}"),
                }
                let own = stream(&format!("own-{writer}"));
                let done = store.append(&own, ExpectedVersion::Any, vec![event_for(&store)]).await.unwrap();
                assert_eq!(done.version().get(), round + 1);
            }
            won
        })
    });
    let won: i64 = join_all(writers).await.into_iter().map(Result::unwrap).sum();
    let contested = handles[0].load_page(&stream("contested"), StreamVersion::NONE, 100).await.unwrap().events;
    assert_eq!(contested.len() as i64, won);
    let log: Vec<_> = handles[1].read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    assert_eq!(log.len() as i64, won + 16 * 15);
}

#[tokio::test]
async fn a_subscription_of_one_handle_gets_what_another_appends() {
    let database = postgres_database_on_our_own().await;
    let (reader, writer) = (open(&database).await, open(&database).await);
    let mut subscription = reader.subscribe(Position::START, Filter::all());
    for n in 0..5 {
        let done = writer.append(&stream(&n.to_string()), ExpectedVersion::NoStream, vec![event_for(&writer)]).await;
        let next = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await;
        assert_eq!(next.unwrap().unwrap().unwrap().position, done.unwrap().position);
    }
}

#[tokio::test]
async fn an_append_through_a_pooler_waits_for_writers_and_readers_wait_for_it() {
    let database = postgres_database_on_our_own().await;
    let store = open(&database).await;
    let mut direct = PgConnection::connect(database.url()).await.unwrap();
    run(&mut direct, "BEGIN").await.unwrap();
    insert(&mut direct, "held").await;
    let quick = store.append(&stream("quick"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    let page = store.read_page(After::START, &Filter::all(), 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (0, false));
    run(&mut direct, "COMMIT").await.unwrap();
    let page = store.read_page(After::START, &Filter::all(), 10).await.unwrap();
    assert_eq!((page.events.len(), page.events.last().unwrap().position), (2, quick.position));
}

#[tokio::test]
async fn a_server_connection_lost_in_an_append_leaves_it_unknown_and_affects_no_other() {
    let database = postgres_database_on_our_own().await;
    let store = Arc::new(open(&database).await);
    let mut direct = PgConnection::connect(database.url()).await.unwrap();
    let mut rival = PgConnection::connect(database.url()).await.unwrap();
    run(&mut rival, "BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    let event = event_for(&store);
    let appending = tokio::spawn({
        let (store, event) = (store.clone(), event.clone());
        async move { store.append(&stream("a"), ExpectedVersion::Any, vec![event]).await }
    });
    let pid = super::faults::blocked_backend(&mut direct).await;
    run(&mut direct, &format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
    let error = appending.await.unwrap().unwrap_err();
    assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{error}");
    run(&mut rival, "ROLLBACK").await.unwrap();
    let done = store.append(&stream("a"), ExpectedVersion::NoStream, vec![event]).await.unwrap();
    assert_eq!((done.version().get(), done.repeated), (1, false));
}

#[tokio::test]
async fn refused_and_dropped_appends_leave_no_transaction_open() {
    let database = postgres_database_on_our_own().await;
    let store =
        Arc::new(PostgresOptions::new(database.url_through_pooler()).pooled().connections(2).open().await.unwrap());
    let mut direct = PgConnection::connect(database.url()).await.unwrap();
    let mut rival = PgConnection::connect(database.url()).await.unwrap();
    // A statement that the server refuses: the pooled transaction must be ended too.
    run(&mut rival, "BEGIN").await.unwrap();
    insert(&mut rival, "a").await;
    for how in ["pg_cancel_backend", "dropped"] {
        let appending = tokio::spawn({
            let (store, event) = (store.clone(), event_for(&store));
            async move { store.append(&stream("a"), ExpectedVersion::Any, vec![event]).await }
        });
        let pid = super::faults::blocked_backend(&mut direct).await;
        if how == "dropped" {
            appending.abort();
            assert!(appending.await.unwrap_err().is_cancelled());
        } else {
            run(&mut direct, &format!("SELECT {how}({pid})")).await.unwrap();
            assert!(appending.await.unwrap().unwrap_err().is_transient());
        }
    }
    for id in ["b", "c", "d"] {
        store.append(&stream(id), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    }
    run(&mut rival, "ROLLBACK").await.unwrap();
    // The append whose caller was cancelled is stored anyway; until then its transaction is open.
    let begun = tokio::time::Instant::now();
    loop {
        let states = pooled_states(&mut direct).await;
        assert!(!states.is_empty());
        if states.iter().all(|state| state == "idle") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{states:?}");
    }
}

#[tokio::test]
async fn a_schema_is_created_through_a_pooler_by_several_at_once() {
    let database = Database::empty_on_our_own().await;
    let starters = (0..4).map(|_| PostgresOptions::new(database.url_through_pooler()).pooled().migrate().open());
    let stores: Vec<_> = join_all(starters).await.into_iter().map(Result::unwrap).collect();
    assert!(stores.iter().all(|store| store.incarnation() == stores[0].incarnation()));
}

/// The caller's own statements have names, which the next client of a server connection would meet.
#[tokio::test]
async fn what_cannot_go_through_a_pooler_is_refused() {
    let database = postgres_database_on_our_own().await;
    let store = open(&database).await;
    let refused = store.database().read().await.err().unwrap();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(!refused.is_transient() && why.contains("`pooled`"), "{why}");
    let refused = store.begin().await.err().unwrap();
    assert!(!refused.is_transient() && refused.to_string().contains("`pooled`"), "{refused}");
    let unsaid = PostgresOptions::new(database.url_through_pooler());
    let refused = PostgresDatabase::open_with(&unsaid).await.unwrap_err();
    assert!(refused.to_string().contains("pool"), "{refused}");
    // In a transaction, statements without a name may go.
    let announced = PostgresDatabase::open_with(&unsaid.pooled()).await.unwrap();
    let mut transaction = announced.begin().await.unwrap();
    let one = sqlx::query("SELECT $1::int").bind(1_i32).persistent(false).fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(one.get::<i32, _>(0), 1);
    transaction.commit().await.unwrap();
}
