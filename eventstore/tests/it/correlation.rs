//! A correlation of any length is read in pieces, whatever else the filter wants, on both databases.

use annals_eventstore::{
    CorrelationId, EventId, EventStore, ExpectedVersion, Filter, Metadata, NewEvent, Payload, Position, SqliteStore,
    StreamId, Tenant,
};

const EVENTS: usize = 25_000;

/// Events of one correlation, the last of which has another name.
async fn fill(store: &impl EventStore, correlation: &CorrelationId) {
    let mut metadata = Metadata::default();
    metadata.correlation_id = Some(correlation.clone());
    let new = |name: &str| {
        let id = EventId::new(store.ids().next_id()).unwrap();
        NewEvent::raw(id, name, 1, Payload::from_json("{}").unwrap()).unwrap().with_metadata(metadata.clone())
    };
    let stream = StreamId::new(Tenant::default(), "order", "a").unwrap();
    for part in 0..5 {
        let last = usize::from(part == 4);
        let mut events: Vec<_> = (0..EVENTS / 5 - last).map(|_| new("usual")).collect();
        events.extend((0..last).map(|_| new("rare")));
        store.append(&stream, ExpectedVersion::Any, events).await.unwrap();
    }
}

async fn check(store: &impl EventStore) {
    let correlation = CorrelationId::new("c").unwrap();
    fill(store, &correlation).await;
    for (name, found) in [("rare", 1), ("unknown", 0)] {
        let filter = Filter::all().correlation(correlation.clone()).event_name(name).unwrap();
        let (mut after, mut pages, mut events) = (Position::START.into(), 0, 0);
        loop {
            let page = store.read_page(after, &filter, 100).await.unwrap();
            (pages, events) = (pages + 1, events + page.events.len());
            if let Some(checkpoint) = page.checkpoint {
                after = checkpoint.into();
            }
            if page.end {
                break;
            }
        }
        assert!((3..=4).contains(&pages), "{name}: {pages}");
        assert_eq!(events, found, "{name}");
    }
    // Without another condition what is found fills the page.
    let filter = Filter::all().correlation(correlation);
    assert_eq!(store.read_page(Position::START.into(), &filter, 100).await.unwrap().events.len(), 100);
}

#[tokio::test]
async fn a_name_that_a_long_correlation_does_not_have_is_looked_for_in_pieces_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("events.db")).await.unwrap();
    check(&store).await;
    store.close().await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_name_that_a_long_correlation_does_not_have_is_looked_for_in_pieces_on_postgres() {
    let database = crate::backends::postgres_database().await;
    check(&annals_eventstore::PostgresStore::open(database.url()).await.unwrap()).await;
}
