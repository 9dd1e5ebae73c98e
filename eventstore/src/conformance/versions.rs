//! What a writer expects of a stream, and what the store does if it is not so.

use super::case::{Case, exact, is_conflict, request, version, versions};
use crate::append::Append;
use crate::error::ErrorFamily;
use crate::event::EventId;
use crate::stream::{ExpectedVersion, StreamVersion};

pub(super) async fn no_stream_holds_only_once(case: Case) {
    case.append("a", ExpectedVersion::NoStream, 1).await;
    let again = Append::to(case.stream("a"), ExpectedVersion::NoStream, case.events(1));
    let error = case.refused_without_trace(again).await;
    is_conflict(&error, &case.stream("a"), ExpectedVersion::NoStream, 1);
}

pub(super) async fn exact_zero_means_no_stream(case: Case) {
    case.append("a", exact(0), 1).await;
    let again = Append::to(case.stream("a"), exact(0), case.events(1));
    is_conflict(&case.refused_without_trace(again).await, &case.stream("a"), exact(0), 1);
}

pub(super) async fn the_exact_version_is_taken(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    assert_eq!(case.append("a", exact(3), 2).await.version(), version(5));
}

pub(super) async fn stale_version_is_refused_and_leaves_no_trace(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let stale = Append::to(case.stream("a"), exact(2), case.events(2));
    is_conflict(&case.refused_without_trace(stale).await, &case.stream("a"), exact(2), 3);
}

pub(super) async fn a_version_ahead_of_the_stream_is_refused(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let ahead = Append::to(case.stream("a"), exact(4), case.events(1));
    is_conflict(&case.refused_without_trace(ahead).await, &case.stream("a"), exact(4), 3);
}

pub(super) async fn a_version_of_a_stream_that_is_not_there_is_refused(case: Case) {
    let ahead = Append::to(case.stream("a"), exact(1), case.events(1));
    is_conflict(&case.refused_without_trace(ahead).await, &case.stream("a"), exact(1), 0);
}

pub(super) async fn the_greatest_version_is_refused_and_never_wraps(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    for far in [i64::MAX, i64::MAX - 1, i64::from(i32::MAX) + 1, 1 << 53] {
        let append = Append::to(case.stream("a"), exact(far), case.events(1));
        is_conflict(&case.refused_without_trace(append).await, &case.stream("a"), exact(far), 1);
    }
}

pub(super) async fn a_negative_version_cannot_be_expected(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    for wrong in [-1, i64::MIN] {
        super::case::names_the_field(&StreamVersion::new(wrong).unwrap_err(), "version");
    }
    assert_eq!(case.log().await.len(), 1);
}

fn last(version: i64, event_id: EventId) -> ExpectedVersion {
    ExpectedVersion::LastEvent { version: StreamVersion::new(version).unwrap(), event_id }
}

pub(super) async fn the_last_event_is_taken(case: Case) {
    case.append("a", ExpectedVersion::NoStream, 1).await;
    for length in [1_i64, 3, 4] {
        let read = case.load(&case.stream("a")).await;
        let end = ExpectedVersion::from(read.last().unwrap());
        assert_eq!(end, last(length, read.last().unwrap().event_id));
        case.append("a", end, if length == 1 { 2 } else { 1 }).await;
    }
    assert_eq!(versions(&case.load(&case.stream("a")).await), [1, 2, 3, 4, 5]);
}

/// After a failover or a restore a stream may be as long as its reader knows it, with other events. What was decided on
/// the lost ones must not be stored.
pub(super) async fn another_last_event_is_refused_at_any_version(case: Case) {
    case.append("a", ExpectedVersion::NoStream, 2).await;
    case.append("b", ExpectedVersion::NoStream, 2).await;
    let (a, b) = (case.load(&case.stream("a")).await, case.load(&case.stream("b")).await);
    let nobody = case.event().event_id;
    let wrong = [
        (2, nobody),
        // The right id at another version, an earlier event of the stream, and the last one of another stream.
        (1, a[1].event_id),
        (3, a[1].event_id),
        (2, a[0].event_id),
        (2, b[1].event_id),
        (1, a[0].event_id),
        (0, a[1].event_id),
    ];
    for (version, id) in wrong {
        for count in [1, 40] {
            let append = || Append::to(case.stream("a"), last(version, id), case.events(count));
            let expected = last(version, id);
            is_conflict(&case.refused_without_trace(append()).await, &case.stream("a"), expected, 2);
            let keyed = append().with_request(request("r", "body"));
            is_conflict(&case.refused_without_trace(keyed).await, &case.stream("a"), expected, 2);
            let several = Append::to(case.stream("b"), last(2, b[1].event_id), case.events(1)).and(
                case.stream("a"),
                expected,
                case.events(count),
            );
            is_conflict(&case.refused_without_trace(several).await, &case.stream("a"), expected, 2);
        }
    }
    let absent = Append::to(case.stream("c"), last(0, nobody), case.events(1));
    is_conflict(&case.refused_without_trace(absent).await, &case.stream("c"), last(0, nobody), 0);
    assert_eq!(case.append("a", last(2, a[1].event_id), 1).await.version(), version(3));
}

/// Appends that gather are decided each against the one before, so the last event may be one that is not stored yet.
pub(super) async fn the_last_event_may_come_with_the_same_batch(case: Case) {
    case.append("a", ExpectedVersion::NoStream, 1).await;
    let end = case.load(&case.stream("a")).await[0].event_id;
    let events = case.events(40);
    let ids: Vec<_> = [end].into_iter().chain(events.iter().map(|event| event.event_id)).collect();
    let appends = events.into_iter().enumerate().map(|(n, event)| {
        let expected = last(i64::try_from(n).unwrap() + 1, ids[n]);
        case.store.append_many(Append::to(case.stream("a"), expected, vec![event]))
    });
    let answers = futures::future::join_all(appends).await;
    // A store may decide them in any order; what it takes is a beginning of the chain.
    let taken = answers.iter().take_while(|answer| answer.is_ok()).count();
    assert!(taken > 0 && answers[taken..].iter().all(Result::is_err), "{answers:?}");
    let stored: Vec<_> = case.load(&case.stream("a")).await.iter().map(|event| event.event_id).collect();
    assert_eq!(stored, ids[..=taken]);
}

pub(super) async fn any_appends_at_the_end_at_every_version(case: Case) {
    for so_far in 0..5 {
        assert_eq!(case.append("a", ExpectedVersion::Any, 1).await.version(), version(so_far + 1));
    }
}

/// A writer that only adds to what another has begun must not begin it, whatever way the append takes.
pub(super) async fn a_stream_that_must_exist_is_taken_at_any_version_and_never_begun(case: Case) {
    let exists = ExpectedVersion::StreamExists;
    case.append("b", ExpectedVersion::NoStream, 1).await;
    for count in [1, 40] {
        let absent = || Append::to(case.stream("a"), exists, case.events(count));
        is_conflict(&case.refused_without_trace(absent()).await, &case.stream("a"), exists, 0);
        let keyed = absent().with_request(request("r", "body"));
        is_conflict(&case.refused_without_trace(keyed).await, &case.stream("a"), exists, 0);
        let several =
            Append::to(case.stream("b"), exists, case.events(1)).and(case.stream("a"), exists, case.events(count));
        is_conflict(&case.refused_without_trace(several).await, &case.stream("a"), exists, 0);
    }
    let mut length = 1;
    for count in [1, 1, 40, 2] {
        length += i64::try_from(count).unwrap();
        assert_eq!(case.append("b", exists, count).await.version(), version(length));
    }
    let keyed = Append::to(case.stream("b"), exists, case.events(1)).with_request(request("r", "body"));
    assert_eq!(case.store.append_many(keyed).await.unwrap().version(), version(length + 1));
    // The same events again are the same append, also where the first began nothing.
    let again = Append::to(case.stream("b"), exists, case.events(1));
    assert!(!case.store.append_many(again.clone()).await.unwrap().repeated);
    assert!(case.store.append_many(again).await.unwrap().repeated);
    // Appends that gather: of those to a stream that is not there all are refused, unless one before them has begun it.
    let streams = ["b", "c", "b", "c"];
    let appends = streams.map(|id| case.store.append_many(Append::to(case.stream(id), exists, case.events(1))));
    let answers = futures::future::join_all(appends).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false], "{answers:?}");
    is_conflict(answers[1].as_ref().unwrap_err(), &case.stream("c"), exists, 0);
}

pub(super) async fn versions_have_no_gaps_at_any_expected_version(case: Case) {
    let mut length = 0;
    for (n, expected) in [(1, exact(0)), (2, ExpectedVersion::Any), (3, exact(3)), (1, exact(6))] {
        case.append("a", expected, n).await;
        length += i64::try_from(n).unwrap();
        let refused = Append::to(case.stream("a"), exact(length + 1), case.events(3));
        case.refused_without_trace(refused).await;
    }
    assert_eq!(versions(&case.load(&case.stream("a")).await), [1, 2, 3, 4, 5, 6, 7]);
}

pub(super) async fn streams_do_not_share_versions(case: Case) {
    case.append("a", ExpectedVersion::NoStream, 5).await;
    case.append("b", ExpectedVersion::NoStream, 1).await;
    case.append("a", exact(5), 1).await;
    assert_eq!(case.append("b", exact(1), 1).await.version(), version(2));
}

pub(super) async fn a_conflict_is_of_its_own_family_and_worth_no_blind_retry(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    let stale = Append::to(case.stream("a"), ExpectedVersion::NoStream, case.events(1));
    let error = case.refused_without_trace(stale).await;
    assert_eq!(error.family(), ErrorFamily::Conflict);
    assert!(!error.is_transient());
}

pub(super) async fn the_found_version_of_a_conflict_is_the_right_one_to_expect_next(case: Case) {
    case.append("a", ExpectedVersion::Any, 7).await;
    let stale = Append::to(case.stream("a"), exact(2), case.events(1));
    match case.refused_without_trace(stale).await {
        crate::AppendError::WrongExpectedVersion { actual, .. } => {
            assert_eq!(case.append("a", actual.into(), 1).await.version(), version(8));
        }
        other => panic!("expected a conflict: {other:?}"),
    }
}
