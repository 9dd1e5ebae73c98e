//! What an append does, and what it answers.

use super::case::{Case, exact, ids, increases, new_ids, positions, versions};
use crate::append::Append;
use crate::event::{EventId, NewEvent};
use crate::payload::Payload;
use crate::stream::ExpectedVersion;

pub(super) async fn the_first_event_of_a_stream_has_version_one(case: Case) {
    let done = case.append("a", ExpectedVersion::NoStream, 1).await;
    assert_eq!(done.version().get(), 1);
    assert_eq!(versions(&case.load(&case.stream("a")).await), [1]);
}

pub(super) async fn the_answer_names_stream_version_and_positions(case: Case) {
    case.append("other", ExpectedVersion::Any, 3).await;
    case.append("a", ExpectedVersion::Any, 2).await;
    let done = case.append("a", ExpectedVersion::Any, 3).await;
    let stored = case.load(&case.stream("a")).await;
    assert_eq!(done.streams.len(), 1);
    assert_eq!(done.streams[0].stream, case.stream("a"));
    assert_eq!(done.streams[0].version.get(), 5);
    assert_eq!(done.streams[0].positions, positions(&stored)[2..]);
    assert_eq!(done.position, stored[4].position);
    assert!(!done.repeated);
}

pub(super) async fn events_are_stored_in_the_order_of_the_append(case: Case) {
    let events = case.events(20);
    let done = case.store.append(&case.stream("a"), ExpectedVersion::NoStream, events.clone()).await.unwrap();
    let stored = case.load(&case.stream("a")).await;
    assert_eq!(ids(&stored), new_ids(&events));
    assert_eq!(versions(&stored), (1..=20).collect::<Vec<_>>());
    increases(&done.streams[0].positions);
}

pub(super) async fn positions_increase_from_append_to_append_across_streams(case: Case) {
    let mut last = Vec::new();
    for n in 0..10 {
        last.push(case.append(&format!("s{}", n % 3), ExpectedVersion::Any, 1 + n % 2).await.position);
    }
    increases(&last);
    increases(&positions(&case.log().await));
}

pub(super) async fn the_first_position_is_beyond_the_start(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 1).await;
    assert!(done.position.get() > 0, "{}", done.position);
}

pub(super) async fn events_of_one_append_share_an_append_id_and_single_ones_have_none(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    case.append("a", ExpectedVersion::Any, 2).await;
    case.append("a", ExpectedVersion::Any, 2).await;
    let marks: Vec<_> = case.load(&case.stream("a")).await.iter().map(|event| event.append_id).collect();
    assert_eq!(marks[0], None);
    assert!(marks[1].is_some() && marks[1] == marks[2], "{marks:?}");
    assert!(marks[3].is_some() && marks[3] == marks[4] && marks[3] != marks[1], "{marks:?}");
}

pub(super) async fn an_append_of_no_events_is_refused(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    let none = Append::to(case.stream("a"), ExpectedVersion::Any, Vec::new());
    case.invalid_without_trace(none, "events").await;
}

pub(super) async fn an_append_with_one_empty_part_is_refused_whole(case: Case) {
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(2)).and(
        case.stream("b"),
        ExpectedVersion::Any,
        Vec::new(),
    );
    case.invalid_without_trace(append, "events").await;
}

pub(super) async fn an_event_id_twice_in_one_append_is_refused(case: Case) {
    let event = case.event();
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, vec![event.clone(), case.event(), event]);
    case.invalid_without_trace(append, "event_id").await;
}

pub(super) async fn an_event_id_twice_across_the_streams_of_one_append_is_refused(case: Case) {
    let event = case.event();
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, vec![event.clone()]).and(
        case.stream("b"),
        ExpectedVersion::Any,
        vec![event],
    );
    case.invalid_without_trace(append, "event_id").await;
}

pub(super) async fn ids_of_any_uuid_version_are_kept(case: Case) {
    let texts = [
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "00000000-0000-0000-0000-000000000001",
    ];
    let expected: Vec<_> = texts.iter().map(|text| EventId::new(text.parse().unwrap()).unwrap()).collect();
    let events: Vec<_> =
        expected.iter().map(|&id| NewEvent::raw(id, "n", 1, Payload::of(&0).unwrap()).unwrap()).collect();
    case.store.append(&case.stream("a"), ExpectedVersion::Any, events).await.unwrap();
    assert_eq!(ids(&case.load(&case.stream("a")).await), expected);
}

pub(super) async fn a_refused_append_does_not_stop_the_next_one(case: Case) {
    for round in 0..5 {
        let append = Append::to(case.stream("a"), exact(99), case.events(2));
        case.refused_without_trace(append).await;
        let done = case.append("a", exact(round), 1).await;
        assert_eq!(done.version().get(), round + 1);
    }
}

pub(super) async fn a_passed_deadline_withdraws_the_append(case: Case) {
    let past = tokio::time::Instant::now();
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(1)).with_deadline(past);
    let error = case.refused_without_trace(append).await;
    match error {
        crate::AppendError::DeadlineExceeded { stream } => assert_eq!(stream, case.stream("a")),
        other => panic!("expected a passed deadline: {other:?}"),
    }
}

pub(super) async fn a_deadline_to_come_changes_nothing(case: Case) {
    let future = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(1)).with_deadline(future);
    assert_eq!(case.store.append_many(append).await.unwrap().version().get(), 1);
}

pub(super) async fn a_thousand_events_are_one_append(case: Case) {
    let done = case.append("a", ExpectedVersion::NoStream, 1_000).await;
    assert_eq!(done.version().get(), 1_000);
    let stored = case.load(&case.stream("a")).await;
    assert_eq!(versions(&stored), (1..=1_000).collect::<Vec<_>>());
    assert_eq!(positions(&stored), done.streams[0].positions);
}
