//! A log that is rewound under its readers and grows again, as by a restore: none of them continues in it.

use std::time::Duration;

use annals_eventstore::{
    EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, Payload, Position, ReadError, SqliteOptions,
    StreamId, Tenant,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use sqlx::AssertSqlSafe;
use tokio::time::timeout;

/// Removes all events after the second one.
const PUT_BACK_SQLITE: &str = "
    DROP TRIGGER events_are_never_deleted;
    DELETE FROM events WHERE position > 2;
    UPDATE sqlite_sequence SET seq = 2 WHERE name = 'events'
";

async fn append<S: EventStore>(store: &S, stream: &str, count: usize) {
    let events = (0..count).map(|_| {
        let id = EventId::new(store.ids().next_id()).unwrap();
        NewEvent::raw(id, "placed", 1, Payload::from_json("{}").unwrap()).unwrap()
    });
    let stream = StreamId::new(Tenant::default(), "order", stream).unwrap();
    store.append(&stream, ExpectedVersion::Any, events.collect()).await.unwrap();
}

/// Reads in every way up to the fifth event, then rewinds the log to the second; no reader may get the new events.
async fn check_rewound<S: EventStoreExt>(store: S, rewind: BoxFuture<'_, ()>) {
    let filters = || [Filter::all(), Filter::all().event_name("placed").unwrap()];
    append(&store, "before", 2).await;
    append(&store, "lost", 3).await;
    let mut subscriptions = filters().map(|filter| store.subscribe(Position::START, filter));
    let mut pages = filters().map(|filter| store.pages(Position::START, filter));
    for (subscription, pages) in subscriptions.iter_mut().zip(&mut pages) {
        for _ in 0..5 {
            subscription.next().await.unwrap().unwrap();
        }
        while pages.position().get() < 5 {
            pages.next().await.unwrap();
        }
        // It waits for more, as far as it is polled.
        assert!(subscription.next().now_or_never().is_none());
    }
    rewind.await;
    append(&store, "after", 10).await;
    for (subscription, pages) in subscriptions.iter_mut().zip(&mut pages) {
        let next = timeout(Duration::from_secs(10), subscription.next()).await.expect("it is woken");
        assert!(matches!(next, Some(Err(ReadError::StoreRewound { .. }))), "{next:?}");
        let next = timeout(Duration::from_secs(10), pages.next()).await.expect("it is woken");
        assert!(matches!(next, Err(ReadError::StoreRewound { .. })), "{next:?}");
    }
}

#[tokio::test]
async fn no_reader_continues_in_an_sqlite_log_that_was_rewound() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteOptions::new(folder.path().join("events.db")).open().await.unwrap();
    let rewind = async {
        let mut transaction = store.database().begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(PUT_BACK_SQLITE)).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    };
    check_rewound(store.clone(), rewind.boxed()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn no_reader_continues_in_a_postgresql_log_that_was_rewound() {
    use sqlx::{Connection, PgConnection};

    let rewind = "
        ALTER TABLE annals.events DISABLE TRIGGER USER;
        DELETE FROM annals.events WHERE position > 2;
        ALTER TABLE annals.events ENABLE TRIGGER USER;
        SELECT setval('annals.events_position', 2)
    ";
    let database = crate::backends::postgres_database().await;
    let store = annals_eventstore::PostgresOptions::new(database.url()).open().await.unwrap();
    let rewind = async {
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        sqlx::raw_sql(rewind).execute(&mut connection).await.unwrap();
    };
    check_rewound(store.clone(), rewind.boxed()).await;
}
