//! Reads of tenants take turns for the connections: another one waits for those that run, and not for those that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_eventstore::{
    EventId, EventStore, ExpectedVersion, Filter, NewEvent, Payload, Position, SqliteOptions, StreamId, StreamVersion,
    Tenant,
};

fn of(tenant: &str) -> StreamId {
    StreamId::new(Tenant::new(tenant).unwrap(), "order", "o-1").unwrap()
}

/// `store` has one connection for reading. 200 reads of a tenant made a load of another wait until all of them were answered.
async fn tenants_take_turns(store: impl EventStore + Clone + 'static) {
    for (n, tenant) in ["loud", "quiet"].iter().enumerate() {
        let id = EventId::new(uuid::Uuid::from_u128(n as u128 + 1)).unwrap();
        let event = NewEvent::raw(id, "counted", 1, Payload::from_json("{}").unwrap()).unwrap();
        store.append(&of(tenant), ExpectedVersion::NoStream, vec![event]).await.unwrap();
    }
    for by_filter in [false, true] {
        one_of_many(&store, by_filter).await;
    }
}

/// A read of one tenant behind a hundred of another.
async fn one_of_many(store: &(impl EventStore + Clone + 'static), by_filter: bool) {
    const MANY: usize = 100;
    let answered = Arc::new(AtomicUsize::new(0));
    let loud = |n: usize| {
        let (store, answered) = (store.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            if n.is_multiple_of(2) {
                store.load_page(&of("loud"), StreamVersion::NONE, 10).await.unwrap();
            } else {
                let filter = Filter::all().tenant(Tenant::new("loud").unwrap());
                store.read_page(Position::START.into(), &filter, 10).await.unwrap();
            }
            answered.fetch_add(1, Ordering::AcqRel);
        })
    };
    let reads: Vec<_> = (0..MANY).map(loud).collect();
    // All of them are in the queue, but for those that were answered by now.
    tokio::task::yield_now().await;
    let begun = answered.load(Ordering::Acquire);
    let events = if by_filter {
        let filter = Filter::all().tenant(Tenant::new("quiet").unwrap());
        store.read_page(Position::START.into(), &filter, 10).await.unwrap().events
    } else {
        store.load_page(&of("quiet"), StreamVersion::NONE, 10).await.unwrap().events
    };
    let before = answered.load(Ordering::Acquire) - begun;
    assert_eq!(events.len(), 1);
    for read in reads {
        read.await.unwrap();
    }
    assert_eq!(answered.load(Ordering::Acquire), MANY);
    assert!(before <= 3, "{before} reads of the other tenant were answered before");
}

#[tokio::test]
async fn tenants_take_turns_for_the_connections_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteOptions::new(folder.path().join("events.db")).readers(1).open().await.unwrap();
    tenants_take_turns(store).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn tenants_take_turns_for_the_connections_of_postgresql() {
    let there = annals_scratch::Database::empty().await;
    let options = annals_eventstore::PostgresOptions::new(there.url()).migrate().connections(1);
    tenants_take_turns(options.open().await.unwrap()).await;
}
