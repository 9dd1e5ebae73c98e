//! How much the store accepts, and how much it returns at once.

use futures::{StreamExt, TryStreamExt};

use super::case::{Case, versions};
use crate::append::Append;
use crate::filter::Filter;
use crate::limits::{Limits, MAX_PAGE_EVENTS, PAGE_BYTES};
use crate::metadata::Metadata;
use crate::payload::Payload;
use crate::position::{After, Position};
use crate::read::EventStoreExt;
use crate::stream::{ExpectedVersion, StreamVersion};

/// A payload of exactly so many bytes.
fn sized(bytes: usize) -> Payload {
    Payload::of(&"x".repeat(bytes - 2)).unwrap()
}

pub(super) async fn the_defaults_are_those_of_every_store(case: Case) {
    assert_eq!(*case.store.limits(), Limits::default());
    let limits = case.store.limits();
    assert_eq!((limits.event_bytes, limits.metadata_bytes), (1_048_576, 16_384));
    assert_eq!((limits.append_bytes, limits.append_events), (16_777_216, 10_000));
}

pub(super) async fn an_event_may_be_as_large_as_the_limit_and_no_larger(case: Case) {
    let case = case.limited(|limits| limits.event_bytes = 1_000).await;
    let fits = Append::to(case.stream("a"), ExpectedVersion::Any, vec![case.holding("n", sized(1_000))]);
    case.store.append_many(fits).await.unwrap();
    let events = vec![case.event(), case.holding("n", sized(1_001))];
    case.invalid_without_trace(Append::to(case.stream("a"), ExpectedVersion::Any, events), "payload").await;
}

pub(super) async fn a_mebibyte_event_is_returned_equal(case: Case) {
    let payload = sized(1 << 20);
    let event = case.holding("n", payload.clone());
    case.store.append(&case.stream("a"), ExpectedVersion::Any, vec![event]).await.unwrap();
    assert_eq!(case.load(&case.stream("a")).await[0].payload, payload);
    let event = case.holding("n", sized((1 << 20) + 1));
    case.invalid_without_trace(Append::to(case.stream("a"), ExpectedVersion::Any, vec![event]), "payload").await;
}

/// Nine bytes can become 16,385 when a store writes a number out: an event that was accepted and cannot be read stops every
/// reader forever.
pub(super) async fn numbers_count_as_they_are_written_out_and_what_is_taken_can_be_read(case: Case) {
    let made = |number: &str, count: usize| Payload::from_json(&format!("[{}]", vec![number; count].join(",")));
    let many = |number: &str, count: usize| made(number, count).unwrap();
    for payload in [many("5e-324", 128_000), many("1.7976931348623157e308", 40_000)] {
        let event = case.holding("n", payload);
        case.invalid_without_trace(Append::to(case.stream("a"), ExpectedVersion::Any, vec![event]), "payload").await;
    }
    // What no limit could allow is not even made.
    let invalid = made("1e-16383", 100_000).unwrap_err();
    assert!(invalid.field.starts_with("payload[") && !invalid.fix.is_empty(), "{invalid:?}");
    // As much as the limit allows of what grows most: digits, and the spaces between.
    let worst = [
        many("1e-16383", 63),
        many("5e-324", 3_190),
        many("-2.2250738585072014e-308", 3_180),
        many("1.7976931348623157e308", 3_370),
        many("1", 349_524),
        many("[]", 262_143),
    ];
    let events: Vec<_> = worst.iter().map(|payload| case.holding("n", payload.clone())).collect();
    for event in events {
        case.store.append(&case.stream("a"), ExpectedVersion::Any, vec![event]).await.unwrap();
    }
    let read: Vec<_> = case.store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    let subscribed = case.store.subscribe(Position::START, Filter::all()).take(worst.len());
    for events in [case.load(&case.stream("a")).await, read, subscribed.try_collect().await.unwrap()] {
        assert!(events.iter().map(|event| &event.payload).eq(&worst));
    }
    // And so counts an append: at most so much, however short its text is.
    let events = (0..17).map(|_| case.holding("n", many("1e-16383", 63))).collect();
    case.invalid_without_trace(Append::to(case.stream("b"), ExpectedVersion::Any, events), "events").await;
}

pub(super) async fn metadata_may_be_as_large_as_the_limit_and_no_larger(case: Case) {
    let case = case.limited(|limits| limits.metadata_bytes = 500).await;
    let with_note = |bytes: usize| {
        let mut metadata = Metadata::default();
        metadata.extra.insert("note".to_owned(), "x".repeat(bytes));
        vec![case.event().with_metadata(metadata)]
    };
    case.store.append(&case.stream("a"), ExpectedVersion::Any, with_note(400)).await.unwrap();
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, with_note(500));
    case.invalid_without_trace(append, "metadata").await;
}

pub(super) async fn an_append_may_have_as_many_events_as_the_limit_and_no_more(case: Case) {
    let case = case.limited(|limits| limits.append_events = 10).await;
    case.append("a", ExpectedVersion::Any, 10).await;
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(11));
    case.invalid_without_trace(append, "events").await;
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(6)).and(
        case.stream("b"),
        ExpectedVersion::Any,
        case.events(5),
    );
    case.invalid_without_trace(append, "events").await;
}

pub(super) async fn ten_thousand_and_one_events_are_too_many(case: Case) {
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(10_001));
    case.invalid_without_trace(append, "events").await;
}

pub(super) async fn an_append_may_have_as_many_bytes_as_the_limit_and_no_more(case: Case) {
    let case = case.limited(|limits| limits.append_bytes = 1_000).await;
    let events = |last: usize| vec![case.holding("n", sized(400)), case.holding("n", sized(last))];
    // The metadata of each event counts too: two bytes for an empty object.
    case.store.append(&case.stream("a"), ExpectedVersion::Any, events(596)).await.unwrap();
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, events(597));
    case.invalid_without_trace(append, "events").await;
}

pub(super) async fn a_page_holds_about_sixteen_mebibytes_and_at_least_one_event(case: Case) {
    let payload = sized(1 << 20);
    for _ in 0..2 {
        let events = (0..9).map(|_| case.holding("n", payload.clone())).collect();
        case.store.append(&case.stream("a"), ExpectedVersion::Any, events).await.unwrap();
    }
    let page = case.store.load_page(&case.stream("a"), StreamVersion::NONE, 100).await.unwrap();
    let log = case.store.read_page(After::START, &Filter::all(), 100).await.unwrap();
    for (read, end) in [(page.events.len(), page.end), (log.events.len(), log.end)] {
        let bytes = read * (1 << 20);
        assert!(read > 0 && bytes <= PAGE_BYTES + (1 << 20), "{read} events of a mebibyte in one page");
        assert!(!end, "eighteen mebibytes in one page");
    }
    assert_eq!(versions(&page.events), (1..=i64::try_from(page.events.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!(log.checkpoint.unwrap().event_id, Some(log.events.last().unwrap().event_id));
    let rest = case.store.load_page(&case.stream("a"), page.events.last().unwrap().version, 100).await.unwrap();
    assert_eq!((page.events.len() + rest.events.len(), rest.end), (18, true));
}

pub(super) async fn a_page_holds_at_most_ten_thousand_events(case: Case) {
    for _ in 0..2 {
        case.append("a", ExpectedVersion::Any, MAX_PAGE_EVENTS / 2 + 1).await;
    }
    let log = case.store.read_page(After::START, &Filter::all(), usize::MAX).await.unwrap();
    let page = case.store.load_page(&case.stream("a"), StreamVersion::NONE, MAX_PAGE_EVENTS + 1).await.unwrap();
    for (read, end) in [(log.events, log.end), (page.events, page.end)] {
        // A store may return less at once, but then it must not report the end.
        assert!((1..=MAX_PAGE_EVENTS).contains(&read.len()) && !end, "{} events, end: {end}", read.len());
        assert_eq!(versions(&read), (1..=i64::try_from(read.len()).unwrap()).collect::<Vec<_>>());
    }
}
