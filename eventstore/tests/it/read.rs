//! The streams of events over the pages of a store: seams, cancellation, errors, and what they hold in memory.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use annals_eventstore::testing::{Fault, FaultyStore};
use annals_eventstore::{
    EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, Limits, MemoryStore, Metadata, NewEvent, PAGE_BYTES,
    Pages, Payload, Position, ReadAhead, ReadError, RecordedEvent, StreamFilter, StreamId, StreamVersion, Tenant,
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::{Instant, timeout};

type Store = FaultyStore<MemoryStore>;

fn store() -> Store {
    FaultyStore::new(MemoryStore::new())
}

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

/// Appends `count` events called `name`, in appends of up to 1,000, past the faulty front.
async fn fill(store: &Store, id: &str, name: &str, count: usize) {
    let store = store.inner();
    let mut left = count;
    while left > 0 {
        let events = (0..left.min(1_000))
            .map(|n| {
                let id = EventId::new(store.ids().next_id()).unwrap();
                NewEvent::raw(id, name, 1, Payload::of(&n).unwrap()).unwrap()
            })
            .collect::<Vec<_>>();
        left -= events.len();
        store.append(&stream(id), ExpectedVersion::Any, events).await.unwrap();
    }
}

fn expected(positions: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    positions.collect()
}

#[tokio::test]
async fn reads_of_any_length_give_every_event_once_in_order() {
    for count in [0, 1, 63, 64, 65, 256, 257, 319, 320, 1_343, 1_344, 1_345, 5_000] {
        let store = store();
        fill(&store, "a", "n", count).await;
        let log: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
        let one: Vec<_> = store.load(&stream("a")).try_collect().await.unwrap();
        let all = expected(1..=i64::try_from(count).unwrap());
        assert_eq!(log.iter().map(|e| e.position.get()).collect::<Vec<_>>(), all, "log of {count}");
        assert_eq!(one.iter().map(|e| e.version.get()).collect::<Vec<_>>(), all, "stream of {count}");
    }
}

#[tokio::test]
async fn a_load_after_a_version_begins_with_the_next_one() {
    let store = store();
    fill(&store, "a", "n", 600).await;
    let rest: Vec<_> = store.load_after(&stream("a"), StreamVersion::new(300).unwrap()).try_collect().await.unwrap();
    assert_eq!(rest.iter().map(|e| e.version.get()).collect::<Vec<_>>(), expected(301..=600));
    let none: Vec<_> = store.load_after(&stream("a"), StreamVersion::new(601).unwrap()).try_collect().await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_listing_of_any_length_gives_every_stream_once_in_order() {
    for count in [0, 1, 64, 65, 320, 400] {
        let store = store();
        for n in 0..count {
            fill(&store, &format!("{n:04}"), "n", 1).await;
        }
        let found: Vec<_> = store.streams(StreamFilter::all()).try_collect().await.unwrap();
        let ids: Vec<_> = found.iter().map(|info| info.stream.aggregate_id().to_owned()).collect();
        assert_eq!(ids, (0..count).map(|n| format!("{n:04}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_read_ends_with_its_first_error_and_gives_what_came_before() {
    let store = store();
    for n in 0..100 {
        fill(&store, &format!("{n:04}"), "n", 1).await;
    }
    store.fail_call(2, Fault::Before);
    let mut events = store.read_all(Position::START, Filter::all());
    for n in 1..=64 {
        assert_eq!(events.next().await.unwrap().unwrap().position.get(), n);
    }
    assert!(matches!(events.next().await, Some(Err(ReadError::Unavailable { .. }))));
    assert!(events.next().await.is_none());

    store.fail_call(store.calls() + 2, Fault::Before);
    let mut streams = store.streams(StreamFilter::all());
    for n in 0..64 {
        assert_eq!(streams.next().await.unwrap().unwrap().stream.aggregate_id(), format!("{n:04}"));
    }
    assert!(matches!(streams.next().await, Some(Err(ReadError::Unavailable { .. }))));
    assert!(streams.next().await.is_none());
}

#[tokio::test]
async fn one_page_is_read_ahead_of_the_consumer_and_no_more() {
    let store = store();
    fill(&store, "a", "n", 5_000).await;
    let reads = [(store.read_all(Position::START, Filter::all()), 64), (store.load(&stream("a")), 256)];
    for (mut events, first_page) in reads {
        let before = store.calls();
        let settled = async || {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            store.calls() - before
        };
        assert_eq!(settled().await, 0, "nothing is read before the first poll");
        events.next().await.unwrap().unwrap();
        assert_eq!(settled().await, 2, "one page for the consumer and one ahead");
        for _ in 0..first_page {
            events.next().await.unwrap().unwrap();
        }
        assert_eq!(settled().await, 3);
    }
}

#[tokio::test]
async fn a_dropped_read_stops_reading() {
    let store = store();
    fill(&store, "a", "n", 5_000).await;
    let mut events = store.read_all(Position::START, Filter::all());
    events.next().await.unwrap().unwrap();
    drop(events);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(store.calls() <= 2, "{} calls", store.calls());
}

#[tokio::test(start_paused = true)]
async fn transient_errors_only_delay_a_subscription() {
    let store = store();
    fill(&store, "a", "n", 200).await;
    for call in [1, 3, 4, 5] {
        store.fail_call(call, if call % 2 == 0 { Fault::Before } else { Fault::After });
    }
    let begun = Instant::now();
    let events: Vec<_> = store.subscribe(Position::START, Filter::all()).take(200).try_collect().await.unwrap();
    assert_eq!(events.iter().map(|e| e.position.get()).collect::<Vec<_>>(), expected(1..=200));
    let waited = begun.elapsed();
    let (least, most) = (Duration::from_millis(25 + 25 + 50 + 100), Duration::from_millis(50 + 50 + 100 + 200));
    assert!(least <= waited && waited <= most + Duration::from_millis(10), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_retried_every_few_seconds_and_survived() {
    let store = store();
    store.fail_next(100, Fault::Before);
    let mut events = store.subscribe(Position::START, Filter::all());
    let begun = Instant::now();
    assert!(timeout(Duration::from_secs(100), events.next()).await.is_err());
    let calls = store.calls();
    assert!((20..60).contains(&calls), "{calls} calls in 100 s");
    fill(&store, "a", "n", 1).await;
    assert_eq!(events.next().await.unwrap().unwrap().position.get(), 1);
    assert!(begun.elapsed() < Duration::from_secs(505), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_subscription_ends_with_a_permanent_error() {
    let store = store();
    let mut events = store.subscribe(Position::new(5).unwrap(), Filter::all());
    assert!(matches!(events.next().await, Some(Err(ReadError::AheadOfLog { .. }))));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_waiting_subscription_ends_when_the_store_is_closed() {
    let store = store();
    let mut events = store.subscribe(Position::START, Filter::all());
    assert!(events.next().now_or_never().is_none());
    store.close().await;
    assert!(matches!(events.next().await, Some(Err(ReadError::Closed))));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn pages_report_how_far_the_log_was_read_though_nothing_matched() {
    let store = store();
    fill(&store, "a", "other", 10).await;
    let mut pages = store.pages(Position::START, Filter::all().event_name("matching").unwrap());
    let page = pages.next().await.unwrap();
    assert_eq!((page.events.len(), page.checkpoint.unwrap().position.get(), page.end), (0, 10, true));
    fill(&store, "a", "other", 1).await;
    fill(&store, "a", "matching", 1).await;
    let page = pages.next().await.unwrap();
    assert_eq!((page.events.len(), page.checkpoint.unwrap().position.get(), page.end), (1, 12, true));
    assert_eq!(pages.position().get(), 12);
}

#[tokio::test]
async fn the_first_page_is_returned_at_once_and_later_ones_when_there_are_events() {
    let store = store();
    let mut pages = store.pages(Position::START, Filter::all());
    let page = pages.next().await.unwrap();
    assert_eq!((page.events.len(), page.checkpoint, page.end), (0, None, true));
    assert!(pages.next().now_or_never().is_none());
    fill(&store, "a", "n", 1).await;
    assert_eq!(pages.next().await.unwrap().events.len(), 1);
    assert!(pages.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_page_that_failed_is_read_again_by_the_next_call() {
    let store = store();
    fill(&store, "a", "n", 1).await;
    let mut pages = store.pages(Position::new(2).unwrap(), Filter::all());
    assert!(matches!(pages.next().await, Err(ReadError::AheadOfLog { .. })));
    fill(&store, "a", "n", 2).await;
    assert_eq!(pages.next().await.unwrap().events[0].position.get(), 3);
}

#[tokio::test]
async fn dropping_next_between_polls_loses_no_page() {
    let store = store();
    fill(&store, "a", "n", 3_000).await;
    let mut pages = store.pages(Position::START, Filter::all());
    let mut seen = Vec::new();
    let mut dropped = 0;
    while seen.len() < 3_500 {
        // One poll, then the future is dropped whether it is ready or not.
        let polled = poll_fn(|cx| Poll::Ready(std::pin::pin!(pages.next()).poll_unpin(cx))).await;
        match polled {
            Poll::Ready(page) => seen.extend(page.unwrap().events.iter().map(|e| e.position.get())),
            Poll::Pending => {
                dropped += 1;
                assert!(dropped < 1_000_000, "nothing comes any more");
                if seen.len() == 3_000 {
                    fill(&store, "a", "n", 500).await;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    assert_eq!(seen, expected(1..=3_500));
    assert!(dropped > 0, "the test never dropped a waiting future");
}

#[tokio::test]
async fn dropping_the_future_of_an_item_loses_no_event() {
    let store = store();
    fill(&store, "a", "n", 500).await;
    let mut events = store.subscribe(Position::START, Filter::all());
    let mut seen = Vec::new();
    let mut dropped = 0;
    while seen.len() < 600 {
        match events.next().now_or_never() {
            Some(event) => seen.push(event.unwrap().unwrap().position.get()),
            None => {
                dropped += 1;
                assert!(dropped < 1_000_000, "nothing comes any more");
                if seen.len() >= 500 {
                    fill(&store, "a", "n", 10).await;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    assert_eq!(seen, expected(1..=600));
    assert!(dropped > 0, "the test never dropped a waiting future");
}

fn large(store: &impl EventStore, payload: usize, note: usize) -> NewEvent {
    let id = EventId::new(store.ids().next_id()).unwrap();
    let mut metadata = Metadata::default();
    metadata.extra.insert("note".to_owned(), "m".repeat(note));
    NewEvent::raw(id, "large", 1, Payload::of(&"p".repeat(payload)).unwrap()).unwrap().with_metadata(metadata)
}

fn bytes(events: &[RecordedEvent]) -> usize {
    let note = |event: &RecordedEvent| event.metadata.extra.values().map(String::len).sum::<usize>();
    events.iter().map(|event| event.payload.as_str().len() + note(event)).sum()
}

/// A page of small payloads must not be large by its metadata.
#[tokio::test]
async fn metadata_count_among_the_bytes_of_a_page() {
    let store = MemoryStore::new();
    for _ in 0..4 {
        let events = (0..500).map(|_| large(&store, 10, 15_000)).collect();
        store.append(&stream("a"), ExpectedVersion::Any, events).await.unwrap();
    }
    let page = store.read_page(Position::START.into(), &Filter::all(), 10_000).await.unwrap();
    assert!(!page.end && page.events.len() > 1_000 && bytes(&page.events) <= PAGE_BYTES, "{}", page.events.len());
    let page = store.load_page(&stream("a"), StreamVersion::NONE, 10_000).await.unwrap();
    assert!(!page.end && bytes(&page.events) <= PAGE_BYTES, "{}", page.events.len());
}

/// Each reader holds two pages; with many readers of one handle they are shorter, and those of another handle are not.
#[tokio::test]
async fn the_pages_of_many_readers_of_a_handle_have_a_bound_together() {
    let one_page = async |store: &MemoryStore| {
        let mut reader = store.pages(Position::START, Filter::all());
        let mut longest = 0;
        for _ in 0..3 {
            longest = longest.max(reader.next().await.unwrap().events.len());
        }
        longest
    };
    let another = MemoryStore::new();
    another
        .append(&stream("a"), ExpectedVersion::Any, (0..4_000).map(|_| large(&another, 100, 0)).collect())
        .await
        .unwrap();
    let store = MemoryStore::builder()
        .limits(Limits { read_ahead: ReadAhead::of_bytes(64 << 20), ..Limits::default() })
        .build();
    for _ in 0..4 {
        let events = (0..500).map(|_| large(&store, 8_000, 0)).collect();
        store.append(&stream("a"), ExpectedVersion::Any, events).await.unwrap();
    }
    let mut readers: Vec<_> = (0..200).map(|_| store.pages(Position::START, Filter::all())).collect();
    let mut held = 0;
    for reader in &mut readers {
        let page = async |reader: &mut Pages| bytes(&reader.next().await.unwrap().events);
        page(reader).await;
        let largest = page(reader).await.max(page(reader).await);
        // The present one, and the next, which is as long.
        held += 2 * largest;
    }
    assert!(held <= 64 << 20, "{held}");
    let of_another = one_page(&another).await;
    assert!(of_another >= 1_000, "{of_another}");
    drop(readers);
    // A single reader has long ones again.
    let again = one_page(&store).await;
    assert!(again >= 1_000, "{again}");
}
