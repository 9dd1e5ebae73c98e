//! Reading one stream.

use super::case::{Case, version, versions};
use crate::filter::{Filter, StreamFilter};
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

pub(super) async fn a_stream_that_is_not_there_is_empty(case: Case) {
    let page = case.store.load_page(&case.stream("a"), StreamVersion::NONE, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (0, true));
    case.append("b", ExpectedVersion::Any, 1).await;
    assert_eq!(case.load(&case.stream("a")).await, []);
}

pub(super) async fn a_load_has_the_stream_alone(case: Case) {
    for _ in 0..3 {
        case.append("a", ExpectedVersion::Any, 1).await;
        case.append("b", ExpectedVersion::Any, 2).await;
    }
    let stored = case.load(&case.stream("a")).await;
    assert_eq!(versions(&stored), [1, 2, 3]);
    assert!(stored.iter().all(|event| event.stream == case.stream("a")));
}

pub(super) async fn an_unused_aggregate_type_has_nothing(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    let before = case.everything().await;
    let unknown = StreamId::new(Tenant::default(), "never.used", "a").unwrap();
    let page = case.store.load_page(&unknown, StreamVersion::NONE, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (0, true));
    let filter = StreamFilter::all().aggregate_type("never.used").unwrap();
    assert_eq!(case.streams(filter).await, []);
    assert_eq!(case.read(Filter::all().aggregate_type("never.used").unwrap()).await, []);
    assert_eq!(case.everything().await, before);
}

pub(super) async fn a_page_begins_after_the_version(case: Case) {
    case.append("a", ExpectedVersion::Any, 5).await;
    for after in 0..=5 {
        let page = case.store.load_page(&case.stream("a"), version(after), 10).await.unwrap();
        assert_eq!(versions(&page.events), (after + 1..=5).collect::<Vec<_>>());
        assert!(page.end);
    }
}

pub(super) async fn a_version_beyond_the_stream_gives_nothing(case: Case) {
    case.append("a", ExpectedVersion::Any, 2).await;
    for after in [3, 100, i64::MAX] {
        let page = case.store.load_page(&case.stream("a"), version(after), 10).await.unwrap();
        assert_eq!((page.events.len(), page.end), (0, true), "after {after}");
    }
}

pub(super) async fn pages_of_any_size_make_the_whole_stream(case: Case) {
    case.append("a", ExpectedVersion::Any, 10).await;
    for limit in [1, 2, 3, 5, 9, 10, 11] {
        let (mut after, mut seen) = (StreamVersion::NONE, Vec::new());
        loop {
            let page = case.store.load_page(&case.stream("a"), after, limit).await.unwrap();
            assert!(page.events.len() <= limit);
            seen.extend(versions(&page.events));
            match page.events.last() {
                Some(last) => after = last.version,
                None => assert!(page.end, "an empty page that is not the last, limit {limit}"),
            }
            if page.end {
                break;
            }
        }
        assert_eq!(seen, (1..=10).collect::<Vec<_>>(), "limit {limit}");
    }
}

pub(super) async fn the_end_is_reported_correctly(case: Case) {
    case.append("a", ExpectedVersion::Any, 4).await;
    let page = case.store.load_page(&case.stream("a"), StreamVersion::NONE, 3).await.unwrap();
    assert_eq!((versions(&page.events), page.end), (vec![1, 2, 3], false));
    let page = case.store.load_page(&case.stream("a"), version(3), 3).await.unwrap();
    assert_eq!((versions(&page.events), page.end), (vec![4], true));
}

pub(super) async fn a_load_sees_every_answered_append(case: Case) {
    for n in 1..=20 {
        let done = case.append("a", ExpectedVersion::Any, 1).await;
        assert_eq!(done.version(), version(n));
        assert_eq!(case.load(&case.stream("a")).await.len(), usize::try_from(n).unwrap());
    }
}

pub(super) async fn a_load_and_the_log_give_equal_events(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    case.append("b", ExpectedVersion::Any, 2).await;
    case.append("a", ExpectedVersion::Any, 1).await;
    let log = case.log().await;
    for id in ["a", "b"] {
        let of_stream: Vec<_> = log.iter().filter(|event| event.stream == case.stream(id)).cloned().collect();
        assert_eq!(case.load(&case.stream(id)).await, of_stream);
    }
}

pub(super) async fn loading_twice_gives_the_same(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    assert_eq!(case.load(&case.stream("a")).await, case.load(&case.stream("a")).await);
}

pub(super) async fn a_limit_of_nothing_is_refused(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    match case.store.load_page(&case.stream("a"), StreamVersion::NONE, 0).await {
        Err(crate::ReadError::Invalid(invalid)) => super::case::names_the_field(&invalid, "limit"),
        other => panic!("expected an error about `limit`: {other:?}"),
    }
}

pub(super) async fn the_greatest_limit_reads_what_is_there(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let page = case.store.load_page(&case.stream("a"), StreamVersion::NONE, usize::MAX).await.unwrap();
    assert_eq!((versions(&page.events), page.end), (vec![1, 2, 3], true));
}
