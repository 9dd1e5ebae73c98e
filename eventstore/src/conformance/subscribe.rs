//! Reads that continue into the future.

use futures::{FutureExt, StreamExt, TryStreamExt};

use super::case::{Case, ids, new_ids};
use crate::append::Append;
use crate::error::ReadError;
use crate::event::{EventId, RecordedEvent};
use crate::filter::Filter;
use crate::position::Position;
use crate::read::{EventStoreExt, Subscription};
use crate::stream::ExpectedVersion;

async fn take(subscription: &mut Subscription, count: usize) -> Vec<RecordedEvent> {
    subscription.take(count).try_collect().await.unwrap()
}

async fn append_ids(case: &Case, id: &str, count: usize) -> Vec<EventId> {
    let events = case.events(count);
    let ids = new_ids(&events);
    case.store.append(&case.stream(id), ExpectedVersion::Any, events).await.unwrap();
    ids
}

pub(super) async fn catch_up_to_live_misses_nothing_and_repeats_nothing(case: Case) {
    let mut expected = append_ids(&case, "a", 10).await;
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    let mut seen = ids(&take(&mut subscription, 5).await);
    expected.extend(append_ids(&case, "b", 3).await);
    seen.extend(ids(&take(&mut subscription, 8).await));
    for n in 0..5 {
        expected.extend(append_ids(&case, "a", 1 + n % 2).await);
    }
    seen.extend(ids(&take(&mut subscription, 7).await));
    assert_eq!(seen, expected);
    assert!(subscription.next().now_or_never().is_none(), "an event that was not appended");
}

pub(super) async fn a_subscription_to_an_empty_log_waits_for_the_first_event(case: Case) {
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    assert!(subscription.next().now_or_never().is_none());
    let expected = append_ids(&case, "a", 1).await;
    assert_eq!(ids(&take(&mut subscription, 1).await), expected);
}

pub(super) async fn a_subscription_from_the_head_gets_only_what_comes(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 5).await;
    let mut subscription = case.store.subscribe(done.position, Filter::all());
    let expected = append_ids(&case, "a", 2).await;
    assert_eq!(ids(&take(&mut subscription, 2).await), expected);
}

pub(super) async fn a_subscription_begins_after_its_position(case: Case) {
    case.append("a", ExpectedVersion::Any, 5).await;
    let log = case.log().await;
    let mut subscription = case.store.subscribe(log[2].position, Filter::all());
    assert_eq!(ids(&take(&mut subscription, 2).await), ids(&log[3..]));
}

pub(super) async fn a_waiting_subscription_is_woken_by_an_append(case: Case) {
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    let waiting = tokio::spawn(async move { take(&mut subscription, 20).await });
    let mut expected = Vec::new();
    for _ in 0..20 {
        expected.extend(append_ids(&case, "a", 1).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(ids(&waiting.await.unwrap()), expected);
}

pub(super) async fn a_filtered_subscription_gets_the_matching_events_only(case: Case) {
    let mut subscription = case.store.subscribe(Position::START, Filter::all().event_name("matching").unwrap());
    for _ in 0..5 {
        case.append_named(&case.stream("a"), "other").await;
        let done = case.append_named(&case.stream("a"), "matching").await;
        let got = take(&mut subscription, 1).await;
        assert_eq!((&*got[0].name, got[0].position), ("matching", done.position));
    }
    case.append_named(&case.stream("a"), "other").await;
    assert!(subscription.next().now_or_never().is_none());
}

pub(super) async fn every_subscriber_gets_every_event(case: Case) {
    let mut all: Vec<_> = (0..5).map(|_| case.store.subscribe(Position::START, Filter::all())).collect();
    let mut expected = append_ids(&case, "a", 3).await;
    for subscription in &mut all {
        assert_eq!(ids(&take(subscription, 1).await), expected[..1]);
    }
    expected.extend(append_ids(&case, "b", 3).await);
    for subscription in &mut all {
        assert_eq!(ids(&take(subscription, 5).await), expected[1..]);
    }
}

pub(super) async fn all_events_of_an_append_to_several_streams_arrive(case: Case) {
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    let append = Append::to(case.stream("z"), ExpectedVersion::Any, case.events(2)).and(
        case.stream("a"),
        ExpectedVersion::Any,
        case.events(2),
    );
    case.store.append_many(append).await.unwrap();
    let got = take(&mut subscription, 4).await;
    assert_eq!(got, case.log().await);
}

pub(super) async fn a_refused_append_gives_no_reader_an_event(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    take(&mut subscription, 1).await;
    let refused = Append::to(case.stream("a"), ExpectedVersion::NoStream, case.events(1));
    case.refused_without_trace(refused).await;
    assert!(subscription.next().now_or_never().is_none());
    let expected = append_ids(&case, "a", 1).await;
    assert_eq!(ids(&take(&mut subscription, 1).await), expected);
}

pub(super) async fn a_dropped_subscription_disturbs_no_other(case: Case) {
    let mut first = case.store.subscribe(Position::START, Filter::all());
    let mut second = case.store.subscribe(Position::START, Filter::all());
    assert!(first.next().now_or_never().is_none());
    drop(first);
    let expected = append_ids(&case, "a", 2).await;
    assert_eq!(ids(&take(&mut second, 2).await), expected);
}

pub(super) async fn dropping_the_wait_for_an_event_loses_none(case: Case) {
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    let (mut expected, mut seen) = (Vec::new(), Vec::new());
    for round in 0..20 {
        expected.extend(append_ids(&case, "a", 1 + round % 3).await);
        for _ in 0..3 {
            if let Some(event) = subscription.next().now_or_never() {
                seen.push(event.unwrap().unwrap().event_id);
            }
        }
    }
    let left = expected.len() - seen.len();
    seen.extend(ids(&take(&mut subscription, left).await));
    assert_eq!(seen, expected);
}

pub(super) async fn a_subscription_ahead_of_the_log_ends_with_that_error(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 1).await;
    let beyond = Position::new(done.position.get() + 10).unwrap();
    let mut subscription = case.store.subscribe(beyond, Filter::all());
    let first = subscription.next().await;
    assert!(matches!(first, Some(Err(ReadError::AheadOfLog { .. }))), "{first:?}");
    assert!(subscription.next().await.is_none());
}

pub(super) async fn live_pages_cover_events_that_the_filter_leaves_out(case: Case) {
    let mut pages = case.store.pages(Position::START, Filter::all().event_name("matching").unwrap());
    let first = pages.next().await.unwrap();
    assert_eq!((first.events.len(), first.checkpoint, first.end), (0, None, true));
    for _ in 0..3 {
        let done = case.append_named(&case.stream("a"), "other").await;
        let page = pages.next().await.unwrap();
        assert_eq!((page.events.len(), page.checkpoint.unwrap().position), (0, done.position));
    }
}

pub(super) async fn the_watch_wakes_for_every_append_that_follows_a_look(case: Case) {
    let mut head = case.store.watch();
    for _ in 0..10 {
        head.borrow_and_update();
        let done = case.append("a", ExpectedVersion::Any, 1).await;
        head.changed().await.unwrap();
        assert!(case.store.head().await.unwrap().position >= done.position);
    }
}
