//! The same events again: one append, the first answer.

use serde_json::json;

use super::case::{Case, exact, request, version};
use crate::append::{Append, Appended};
use crate::error::{AppendError, ErrorFamily, Repeat};
use crate::event::NewEvent;
use crate::metadata::{Actor, Metadata};
use crate::payload::Payload;
use crate::stream::ExpectedVersion;

/// Appends the same again: the first answer is returned, marked, and nothing changes.
async fn repeats(case: &Case, append: Append, first: &Appended) {
    let before = case.everything().await;
    let again = case.store.append_many(append).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again, Appended { repeated: true, ..first.clone() });
    assert_eq!(case.everything().await, before);
}

/// Appends a mixture of old and new: refused in this way, about one of these events.
async fn taken(case: &Case, append: Append, expected: Repeat) {
    match case.refused_without_trace(append).await {
        AppendError::EventIdTaken { how, .. } => assert_eq!(how, expected),
        other => panic!("expected a taken event id: {other:?}"),
    }
}

fn to_a(case: &Case, expected: ExpectedVersion, events: Vec<NewEvent>) -> Append {
    Append::to(case.stream("a"), expected, events)
}

pub(super) async fn same_event_ids_twice_are_one_append(case: Case) {
    for count in [1, 2, 10] {
        let append = to_a(&case, ExpectedVersion::Any, case.events(count));
        let first = case.store.append_many(append.clone()).await.unwrap();
        repeats(&case, append.clone(), &first).await;
        repeats(&case, append, &first).await;
    }
}

pub(super) async fn a_duplicate_is_the_same_at_any_expected_version(case: Case) {
    let events = case.events(2);
    let first = case.store.append_many(to_a(&case, ExpectedVersion::NoStream, events.clone())).await.unwrap();
    let end = |version, event_id| ExpectedVersion::LastEvent { version, event_id };
    for expected in [
        ExpectedVersion::NoStream,
        ExpectedVersion::Any,
        exact(0),
        exact(2),
        exact(77),
        end(version(2), events[1].event_id),
        end(version(1), case.event().event_id),
    ] {
        repeats(&case, to_a(&case, expected, events.clone()), &first).await;
    }
}

pub(super) async fn a_repeat_gives_the_first_answer_though_the_stream_went_on(case: Case) {
    let events = case.events(2);
    let first = case.store.append_many(to_a(&case, ExpectedVersion::NoStream, events.clone())).await.unwrap();
    case.append("a", exact(2), 5).await;
    repeats(&case, to_a(&case, ExpectedVersion::NoStream, events), &first).await;
    assert_eq!(first.version(), version(2));
}

pub(super) async fn a_repeat_of_several_streams_gives_the_first_answer(case: Case) {
    let append = to_a(&case, ExpectedVersion::NoStream, case.events(2)).and(
        case.stream("b"),
        ExpectedVersion::NoStream,
        case.events(1),
    );
    let first = case.store.append_many(append.clone()).await.unwrap();
    case.append("b", ExpectedVersion::Any, 1).await;
    repeats(&case, append, &first).await;
}

pub(super) async fn a_repeat_after_time_has_passed_has_the_first_time(case: Case) {
    let append = to_a(&case, ExpectedVersion::Any, case.events(1));
    let first = case.store.append_many(append.clone()).await.unwrap();
    if let Some(clock) = case.clock().await {
        clock.advance(std::time::Duration::from_secs(3_600));
    }
    repeats(&case, append, &first).await;
}

pub(super) async fn metadata_does_not_count_when_appends_are_compared(case: Case) {
    let event = case.event();
    let first = case.store.append_many(to_a(&case, ExpectedVersion::Any, vec![event.clone()])).await.unwrap();
    let metadata = Metadata { actor: Some(Actor::new("someone else").unwrap()), ..Metadata::default() };
    repeats(&case, to_a(&case, ExpectedVersion::Any, vec![event.with_metadata(metadata)]), &first).await;
    assert_eq!(case.load(&case.stream("a")).await[0].metadata, Metadata::default());
}

pub(super) async fn payloads_are_compared_as_json_values(case: Case) {
    let written = case.holding("n", Payload::from_json(r#"{"a":1,"b":[true,null]}"#).unwrap());
    let mut reordered = written.clone();
    reordered.payload = Payload::from_json(r#"{ "b": [true, null], "a": 1 }"#).unwrap();
    let first = case.store.append_many(to_a(&case, ExpectedVersion::Any, vec![written])).await.unwrap();
    repeats(&case, to_a(&case, ExpectedVersion::Any, vec![reordered]), &first).await;
}

pub(super) async fn an_id_with_other_content_is_refused(case: Case) {
    let event = case.named("order.placed");
    case.store.append_many(to_a(&case, ExpectedVersion::Any, vec![event.clone()])).await.unwrap();
    let mut other_name = event.clone();
    other_name.name = "order.paid".into();
    let mut other_schema = event.clone();
    other_schema.schema_version = 2;
    let mut other_payload = event.clone();
    other_payload.payload = Payload::of(&json!({ "n": "other" })).unwrap();
    for other in [other_name, other_schema, other_payload] {
        taken(&case, to_a(&case, ExpectedVersion::Any, vec![other]), Repeat::OtherContent).await;
    }
}

pub(super) async fn an_id_in_another_stream_is_refused(case: Case) {
    let event = case.event();
    case.store.append_many(to_a(&case, ExpectedVersion::Any, vec![event.clone()])).await.unwrap();
    let elsewhere = Append::to(case.stream("b"), ExpectedVersion::Any, vec![event]);
    match case.refused_without_trace(elsewhere).await {
        AppendError::EventIdTaken { stream, how: Repeat::OtherStream, .. } => assert_eq!(stream, case.stream("b")),
        other => panic!("expected a taken event id: {other:?}"),
    }
}

pub(super) async fn an_id_of_another_tenant_is_refused(case: Case) {
    let event = case.event();
    case.store.append_many(to_a(&case, ExpectedVersion::Any, vec![event.clone()])).await.unwrap();
    let theirs = crate::StreamId::new(super::case::tenant("theirs"), "order", "a").unwrap();
    taken(&case, Append::to(theirs, ExpectedVersion::Any, vec![event]), Repeat::OtherStream).await;
}

pub(super) async fn old_ids_with_a_new_one_are_refused(case: Case) {
    let old = case.events(2);
    case.store.append_many(to_a(&case, ExpectedVersion::Any, old.clone())).await.unwrap();
    for place in 0..3 {
        let mut mixed = old.clone();
        mixed.insert(place, case.event());
        taken(&case, to_a(&case, ExpectedVersion::Any, mixed), Repeat::OnlySome).await;
    }
}

pub(super) async fn a_part_of_an_append_is_not_that_append(case: Case) {
    let events = case.events(3);
    case.store.append_many(to_a(&case, ExpectedVersion::Any, events.clone())).await.unwrap();
    for part in [&events[..1], &events[1..2], &events[2..], &events[..2], &events[1..]] {
        taken(&case, to_a(&case, ExpectedVersion::Any, part.to_vec()), Repeat::OtherAppend).await;
    }
}

pub(super) async fn two_appends_as_one_are_not_those_appends(case: Case) {
    let events = case.events(2);
    for event in &events {
        case.store.append_many(to_a(&case, ExpectedVersion::Any, vec![event.clone()])).await.unwrap();
    }
    taken(&case, to_a(&case, ExpectedVersion::Any, events), Repeat::OtherAppend).await;
}

pub(super) async fn the_same_ids_in_another_order_are_refused(case: Case) {
    let mut events = case.events(3);
    case.store.append_many(to_a(&case, ExpectedVersion::Any, events.clone())).await.unwrap();
    events.swap(0, 2);
    taken(&case, to_a(&case, ExpectedVersion::Any, events), Repeat::OtherAppend).await;
}

pub(super) async fn one_stream_of_an_append_to_two_is_not_that_append(case: Case) {
    let (a, b) = (case.events(2), case.events(2));
    let both = to_a(&case, ExpectedVersion::Any, a.clone()).and(case.stream("b"), ExpectedVersion::Any, b.clone());
    case.store.append_many(both).await.unwrap();
    taken(&case, to_a(&case, ExpectedVersion::Any, a), Repeat::OtherAppend).await;
    taken(&case, Append::to(case.stream("b"), ExpectedVersion::Any, b), Repeat::OtherAppend).await;
}

pub(super) async fn ids_that_were_refused_are_free(case: Case) {
    let events = case.events(2);
    case.append("a", ExpectedVersion::Any, 1).await;
    case.refused_without_trace(to_a(&case, ExpectedVersion::NoStream, events.clone())).await;
    let done = case.store.append_many(to_a(&case, exact(1), events)).await.unwrap();
    assert_eq!((done.version(), done.repeated), (version(3), false));
}

pub(super) async fn a_taken_id_is_named_and_not_retryable(case: Case) {
    let event = case.event();
    case.store.append_many(to_a(&case, ExpectedVersion::Any, vec![event.clone()])).await.unwrap();
    let mixed = to_a(&case, ExpectedVersion::Any, vec![case.event(), event.clone()]);
    let error = case.refused_without_trace(mixed).await;
    assert_eq!(error.family(), ErrorFamily::Invalid);
    assert!(error.to_string().contains(&event.event_id.to_string()), "{error}");
}

pub(super) async fn a_repeat_finds_ids_among_thousands(case: Case) {
    let append = to_a(&case, ExpectedVersion::Any, case.events(2));
    let first = case.store.append_many(append.clone()).await.unwrap();
    case.append("b", ExpectedVersion::Any, 1_000).await;
    case.append("a", ExpectedVersion::Any, 1_000).await;
    let again = case.store.append_many(append).await.unwrap();
    assert_eq!(again, Appended { repeated: true, ..first });
}

pub(super) async fn a_repeat_under_the_same_request_key_is_one_append(case: Case) {
    let append = to_a(&case, ExpectedVersion::Any, case.events(2)).with_request(request("r", "body"));
    let first = case.store.append_many(append.clone()).await.unwrap();
    repeats(&case, append, &first).await;
}
