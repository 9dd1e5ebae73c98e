//! The log as of a position or a time.

use std::time::Duration;

use jiff::Timestamp;

use super::case::{Case, names_the_field};
use crate::append::Append;
use crate::as_of::AsOf;
use crate::clock::Clock;
use crate::error::ReadError;
use crate::event::RecordedEvent;
use crate::position::Position;
use crate::stream::ExpectedVersion;

/// Appends of one, of several events, and to several streams.
async fn appends(case: &Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    case.append("b", ExpectedVersion::Any, 3).await;
    let both = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(2)).and(
        case.stream("c"),
        ExpectedVersion::Any,
        case.events(2),
    );
    case.store.append_many(both).await.unwrap();
    case.append("a", ExpectedVersion::Any, 1).await;
}

/// Where the prefix ends that `includes` the events at its beginning, in whole appends.
fn end_of(log: &[RecordedEvent], includes: impl Fn(&RecordedEvent) -> bool) -> Position {
    let mut end = log.iter().position(|event| !includes(event)).unwrap_or(log.len());
    let is_divided = |end: usize| {
        let after = |event: &RecordedEvent| log[end..].iter().any(|later| later.append_id == event.append_id);
        log[..end].iter().position(|event| event.append_id.is_some() && after(event))
    };
    while let Some(first) = is_divided(end) {
        end = first;
    }
    end.checked_sub(1).map_or(Position::START, |last| log[last].position)
}

pub(super) async fn a_position_is_the_last_of_a_prefix_in_whole_appends(case: Case) {
    let start = case.store.log_as_of(AsOf::position(Position::START)).await.unwrap();
    assert_eq!((start.position, start.event_id), (Position::START, None));
    appends(&case).await;
    let (log, head) = (case.log().await, case.store.head().await.unwrap().position);
    for position in (0..=head.get()).map(Position::stored) {
        let answer = case.store.log_as_of(AsOf::position(position)).await.unwrap();
        assert_eq!(answer.position, end_of(&log, |event| event.position <= position), "as of {position}");
        case.store.check_checkpoint(&answer).await.unwrap();
        assert_eq!(case.store.log_as_of(answer.into()).await.unwrap(), answer, "as of its answer");
    }
}

pub(super) async fn a_position_beyond_the_log_is_refused_and_so_is_a_version(case: Case) {
    let head = case.append("a", ExpectedVersion::Any, 1).await.position;
    let check = async |as_of, field: &str, problem: &str| match case.store.log_as_of(as_of).await {
        Err(ReadError::Invalid(invalid)) => {
            names_the_field(&invalid, field);
            assert!(invalid.problem.contains(problem), "{invalid}");
        }
        other => panic!("{as_of}: {other:?}"),
    };
    for beyond in [head.get() + 1, i64::MAX] {
        check(AsOf::position(Position::stored(beyond)), "position", &format!("ends at {head}")).await;
    }
    check(AsOf::version(1), "as_of", "only a stream").await;
}

pub(super) async fn a_time_ends_before_the_first_event_after_it_in_whole_appends(case: Case) {
    let steps = [0, 7, -3_600, 3_600, 0, 1, -7, 20];
    for step in steps {
        if let Some(clock) = case.clock().await {
            clock.set(clock.now() + jiff::SignedDuration::from_secs(step));
        }
        appends(&case).await;
    }
    let log = case.log().await;
    let mut times: Vec<_> = log.iter().map(|event| event.recorded_at).collect();
    times.push(times[0] - Duration::from_secs(1));
    times.extend(times.clone().iter().map(|time| *time + Duration::from_micros(1)));
    let mut answers = Vec::new();
    for time in times {
        let expected = end_of(&log, |event| event.recorded_at <= time);
        match case.store.log_as_of(AsOf::time(time)).await {
            Ok(answer) => {
                assert_eq!(answer.position, expected, "as of {time}");
                answers.push((time, answer));
            }
            // It is not over, or the store cannot tell.
            Err(ReadError::Invalid(invalid)) => {
                names_the_field(&invalid, "time");
                assert!(log.iter().all(|event| event.recorded_at <= time), "as of {time}: {invalid}");
            }
            Err(other) => panic!("as of {time}: {other:?}"),
        }
    }
    if let Some(clock) = case.clock().await {
        clock.advance(Duration::from_secs(1));
    }
    appends(&case).await;
    for (time, answer) in answers {
        assert_eq!(case.store.log_as_of(AsOf::time(time)).await.unwrap(), answer, "as of {time} again");
        assert_eq!(case.store.log_as_of(answer.into()).await.unwrap(), answer, "as of the answer to {time}");
    }
}

pub(super) async fn a_time_that_is_not_over_is_refused(case: Case) {
    for _ in 0..2 {
        match case.store.log_as_of(AsOf::time(Timestamp::MAX)).await {
            Err(ReadError::Invalid(invalid)) => names_the_field(&invalid, "time"),
            other => panic!("{other:?}"),
        }
        case.append("a", ExpectedVersion::Any, 1).await;
    }
    // Events that are stored next may have the very time that the clock shows.
    let Some(clock) = case.clock().await else { return };
    let now = clock.now();
    assert!(case.store.log_as_of(AsOf::time(now)).await.is_err());
    let done = case.append("a", ExpectedVersion::Any, 1).await;
    assert_eq!(done.recorded_at, now);
}
