//! Tests of the memory store alone; the contract is in `conformance`.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    After, Append, AppendError, EventId, EventStore, ExpectedVersion, Filter, Fingerprint, ManualClock, MemoryStore,
    NewEvent, Payload, Position, ReadError, RequestKey, SeededIds, StreamId, Tenant,
};
use jiff::Timestamp;

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

fn event(store: &MemoryStore) -> NewEvent {
    let id = EventId::new(store.ids().next_id()).unwrap();
    NewEvent::raw(id, "order.placed", 1, Payload::of(&serde_json::json!({ "n": 1 })).unwrap()).unwrap()
}

#[tokio::test]
async fn clones_are_handles_of_one_store_and_close_together() {
    let store = MemoryStore::new();
    let other = store.clone();
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(&store)]).await.unwrap();
    assert_eq!(other.head().await.unwrap().position, Position::new(1).unwrap());
    other.close().await;
    let refused = store.append(&stream("a"), ExpectedVersion::Any, vec![event(&store)]).await;
    assert!(matches!(refused, Err(AppendError::Closed)), "{refused:?}");
    assert!(matches!(store.head().await, Err(ReadError::Closed)));
}

#[tokio::test]
async fn what_is_recorded_has_the_injected_clocks_time_in_whole_microseconds() {
    let clock = Arc::new(ManualClock::at("2026-01-02T03:04:05.123456789Z".parse::<Timestamp>().unwrap()));
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let done = store.append(&stream("a"), ExpectedVersion::Any, vec![event(&store)]).await.unwrap();
    assert_eq!(done.recorded_at.to_string(), "2026-01-02T03:04:05.123456Z");
    clock.advance(Duration::from_secs(1));
    store.append(&stream("a"), ExpectedVersion::Any, vec![event(&store)]).await.unwrap();
    let page = store.read_page(After::START, &Filter::all(), 10).await.unwrap();
    let times: Vec<_> = page.events.iter().map(|e| e.recorded_at.to_string()).collect();
    assert_eq!(times, ["2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:06.123456Z"]);
}

#[test]
fn an_injected_id_source_decides_every_id() {
    let twin = || MemoryStore::builder().ids(SeededIds::new(7)).build();
    assert_eq!(twin().incarnation(), twin().incarnation());
    assert_eq!(twin().ids().next_id(), twin().ids().next_id());
    assert_ne!(MemoryStore::new().incarnation(), MemoryStore::new().incarnation());
}

/// A device whose clock starts in 1970 until it is set must not execute the requests of that time again.
#[tokio::test]
async fn a_clock_that_was_slow_and_is_set_right_takes_no_request_key_away() {
    let right = "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap();
    let clock = Arc::new(ManualClock::at(right));
    let store = MemoryStore::builder().clock(clock.clone()).build();
    store.append(&stream("a"), ExpectedVersion::Any, vec![event(&store)]).await.unwrap();
    let key = RequestKey::new("r", Fingerprint::of_bytes(b"")).unwrap().with_lifetime(Duration::from_secs(60));
    let keyed = || Append::to(stream("a"), ExpectedVersion::Any, vec![event(&store)]).with_request(key.clone());
    clock.set(Timestamp::UNIX_EPOCH);
    let first = store.append_many(keyed()).await.unwrap();
    assert_eq!((first.recorded_at, first.repeated), (Timestamp::UNIX_EPOCH, false));
    assert!(store.append_many(keyed()).await.unwrap().repeated);
    clock.set(right);
    clock.advance(Duration::from_secs(59));
    assert!(store.append_many(keyed()).await.unwrap().repeated);
    clock.advance(Duration::from_secs(1));
    assert!(!store.append_many(keyed()).await.unwrap().repeated);
}
