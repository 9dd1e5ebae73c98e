//! Time is recorded, and nothing follows from it.

use std::time::Duration;

use jiff::Timestamp;

use super::case::{Case, increases, positions, request, versions};
use crate::append::Append;
use crate::stream::{ExpectedVersion, Tenant};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) async fn the_recorded_time_is_the_stores_clock(case: Case) {
    let Some(clock) = case.clock().await else { return };
    for time in ["2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123457Z", "2030-12-31T23:59:59Z"] {
        clock.set(at(time));
        let done = case.append("a", ExpectedVersion::Any, 1).await;
        assert_eq!(done.recorded_at, at(time));
        assert_eq!(case.load(&case.stream("a")).await.last().unwrap().recorded_at, at(time));
    }
}

pub(super) async fn the_answer_has_the_time_of_its_events(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 3).await;
    let stored = case.load(&case.stream("a")).await;
    assert!(stored.iter().all(|event| event.recorded_at == done.recorded_at));
}

pub(super) async fn times_are_whole_microseconds_and_cut_never_rounded(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 1).await;
    assert_eq!(done.recorded_at.as_nanosecond() % 1_000, 0, "{}", done.recorded_at);
    let Some(clock) = case.clock().await else { return };
    clock.set(at("2026-01-02T03:04:05.123456999Z"));
    let done = case.append("a", ExpectedVersion::Any, 1).await;
    assert_eq!(done.recorded_at, at("2026-01-02T03:04:05.123456Z"));
    assert_eq!(case.load(&case.stream("a")).await[1].recorded_at, done.recorded_at);
}

pub(super) async fn a_clock_that_goes_back_changes_no_order(case: Case) {
    let Some(clock) = case.clock().await else { return };
    clock.set(at("2026-06-01T00:00:00Z"));
    let mut answered = Vec::new();
    for n in 0..10 {
        let done = case.append(["a", "b"][n % 2], ExpectedVersion::Any, 2).await;
        answered.extend(done.streams[0].positions.clone());
        clock.set(clock_back(done.recorded_at));
    }
    let log = case.log().await;
    assert_eq!(positions(&log), answered);
    increases(&answered);
    assert!(log.first().unwrap().recorded_at > log.last().unwrap().recorded_at);
    for id in ["a", "b"] {
        assert_eq!(versions(&case.load(&case.stream(id)).await), (1..=10).collect::<Vec<_>>());
    }
}

fn clock_back(from: Timestamp) -> Timestamp {
    from - Duration::from_secs(3_600)
}

pub(super) async fn a_stopped_clock_blocks_nothing(case: Case) {
    for n in 1..=10 {
        assert_eq!(case.append("a", ExpectedVersion::Any, 1).await.version().get(), n);
    }
    increases(&positions(&case.log().await));
}

pub(super) async fn times_far_away_are_returned_equal(case: Case) {
    let Some(clock) = case.clock().await else { return };
    let times =
        ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z", "9999-12-30T21:59:59.999999Z"];
    for time in times {
        clock.set(at(time));
        case.append("a", ExpectedVersion::Any, 1).await;
    }
    let stored: Vec<_> = case.load(&case.stream("a")).await.iter().map(|event| event.recorded_at).collect();
    assert_eq!(stored, times.map(at));
}

pub(super) async fn a_clock_that_goes_back_forgets_no_request(case: Case) {
    let Some(clock) = case.clock().await else { return };
    clock.set(at("2026-06-01T00:00:00Z"));
    let key = request("r", "body").with_lifetime(Duration::from_secs(10));
    case.store.append_many(Append::request_only(Tenant::default(), key.clone())).await.unwrap();
    clock.set(at("2026-05-01T00:00:00Z"));
    assert!(case.store.find_request(&Tenant::default(), &key).await.unwrap().is_some());
}
