//! Appends to several streams: all of them or none.

use super::case::{Case, exact, ids, increases, is_conflict, new_ids, positions, versions};
use crate::append::Append;
use crate::stream::ExpectedVersion;

pub(super) async fn every_stream_of_the_append_grows(case: Case) {
    let (a, b) = (case.events(2), case.events(3));
    let append = Append::to(case.stream("a"), ExpectedVersion::NoStream, a.clone()).and(
        case.stream("b"),
        ExpectedVersion::NoStream,
        b.clone(),
    );
    case.store.append_many(append).await.unwrap();
    assert_eq!(ids(&case.load(&case.stream("a")).await), new_ids(&a));
    assert_eq!(ids(&case.load(&case.stream("b")).await), new_ids(&b));
}

pub(super) async fn the_answer_has_the_streams_in_the_order_of_the_append(case: Case) {
    case.append("m", ExpectedVersion::Any, 4).await;
    let append = Append::to(case.stream("z"), ExpectedVersion::Any, case.events(2))
        .and(case.stream("m"), exact(4), case.events(1))
        .and(case.stream("a"), ExpectedVersion::NoStream, case.events(3));
    let done = case.store.append_many(append).await.unwrap();
    let versions: Vec<_> = done.streams.iter().map(|s| (s.stream.aggregate_id(), s.version.get())).collect();
    assert_eq!(versions, [("z", 2), ("m", 5), ("a", 3)]);
    assert_eq!(done.version().get(), 2);
    for (entry, from) in done.streams.iter().zip([0, 4, 0]) {
        assert_eq!(entry.positions, positions(&case.load(&entry.stream).await)[from..]);
    }
    let greatest = done.streams.iter().flat_map(|s| s.positions.iter().copied()).max();
    assert_eq!(Some(done.position), greatest);
}

pub(super) async fn one_wrong_expected_version_refuses_all_streams(case: Case) {
    case.append("b", ExpectedVersion::Any, 2).await;
    for wrong_first in [true, false] {
        let right = (case.stream("a"), ExpectedVersion::NoStream, case.events(2));
        let wrong = (case.stream("b"), exact(1), case.events(2));
        let (first, second) = if wrong_first { (wrong, right) } else { (right, wrong) };
        let append = Append::to(first.0, first.1, first.2).and(second.0, second.1, second.2);
        is_conflict(&case.refused_without_trace(append).await, &case.stream("b"), exact(1), 2);
    }
}

pub(super) async fn of_two_wrong_expected_versions_the_first_is_reported(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    for (first, second, found) in [("a", "b", 1), ("b", "a", 0)] {
        let append = Append::to(case.stream("right"), ExpectedVersion::NoStream, case.events(1))
            .and(case.stream(first), exact(7), case.events(1))
            .and(case.stream(second), exact(7), case.events(1));
        is_conflict(&case.refused_without_trace(append).await, &case.stream(first), exact(7), found);
    }
}

pub(super) async fn one_stale_event_id_refuses_all_streams(case: Case) {
    let stored = case.event();
    case.store.append(&case.stream("b"), ExpectedVersion::Any, vec![stored.clone()]).await.unwrap();
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(1)).and(
        case.stream("b"),
        ExpectedVersion::Any,
        vec![stored],
    );
    let error = case.refused_without_trace(append).await;
    assert!(matches!(error, crate::AppendError::EventIdTaken { .. }), "{error:?}");
}

pub(super) async fn a_stream_twice_in_one_append_is_refused(case: Case) {
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(1))
        .and(case.stream("b"), ExpectedVersion::Any, case.events(1))
        .and(case.stream("a"), ExpectedVersion::Any, case.events(1));
    case.invalid_without_trace(append, "stream").await;
}

pub(super) async fn events_of_all_streams_share_append_id_and_time(case: Case) {
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(1)).and(
        case.stream("b"),
        ExpectedVersion::Any,
        case.events(2),
    );
    let done = case.store.append_many(append).await.unwrap();
    let log = case.log().await;
    assert_eq!(log.len(), 3);
    assert!(log[0].append_id.is_some());
    assert!(log.iter().all(|event| event.append_id == log[0].append_id && event.recorded_at == done.recorded_at));
}

pub(super) async fn positions_rise_with_versions_in_each_stream(case: Case) {
    for _ in 0..5 {
        let append = Append::to(case.stream("z"), ExpectedVersion::Any, case.events(3)).and(
            case.stream("a"),
            ExpectedVersion::Any,
            case.events(2),
        );
        case.store.append_many(append).await.unwrap();
    }
    for id in ["z", "a"] {
        let stored = case.load(&case.stream(id)).await;
        assert_eq!(versions(&stored), (1..=i64::try_from(stored.len()).unwrap()).collect::<Vec<_>>());
        increases(&positions(&stored));
    }
}

pub(super) async fn a_hundred_streams_are_one_append(case: Case) {
    let mut append = Append::to(case.stream("s0"), ExpectedVersion::NoStream, case.events(2));
    for n in 1..100 {
        append = append.and(case.stream(&format!("s{n}")), ExpectedVersion::NoStream, case.events(2));
    }
    let done = case.store.append_many(append).await.unwrap();
    assert_eq!(done.streams.len(), 100);
    assert!(done.streams.iter().all(|s| s.version.get() == 2 && s.positions.len() == 2));
    assert_eq!(case.log().await.len(), 200);
}

pub(super) async fn streams_of_two_aggregate_types_with_one_id_are_two_streams(case: Case) {
    let order = case.stream("1");
    let payment = crate::StreamId::new(crate::Tenant::default(), "payment", "1").unwrap();
    let append = Append::to(order.clone(), ExpectedVersion::NoStream, case.events(1)).and(
        payment.clone(),
        ExpectedVersion::NoStream,
        case.events(2),
    );
    case.store.append_many(append).await.unwrap();
    assert_eq!(case.load(&order).await.len(), 1);
    assert_eq!(case.load(&payment).await.len(), 2);
}
