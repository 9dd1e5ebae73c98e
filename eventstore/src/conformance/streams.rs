//! Listing streams.

use futures::future::join_all;

use super::case::{Case, tenant};
use crate::error::ReadError;
use crate::filter::StreamFilter;
use crate::store::StreamInfo;
use crate::stream::{ExpectedVersion, StreamId};

/// Appends one event to each stream of a few tenants, types and ids whose bytes sort in surprising ways. Gives them in
/// the order of a listing.
async fn begin_many(case: &Case) -> Vec<StreamId> {
    let mut streams = Vec::new();
    for owner in ["b", "B", "\u{e9}"] {
        for kind in ["order", "Order", "order item", "order-item"] {
            for id in ["10", "9", "a", "a b", "\u{1f600}", "\u{ffee}"] {
                streams.push(StreamId::new(tenant(owner), kind, id).unwrap());
            }
        }
    }
    join_all(streams.iter().map(|stream| case.append_named(stream, "n"))).await;
    streams.sort_by(|x, y| {
        let key = |s: &StreamId| {
            [s.tenant().as_str(), s.aggregate_type(), s.aggregate_id()].map(|part| part.as_bytes().to_vec())
        };
        key(x).cmp(&key(y))
    });
    streams
}

fn names(infos: &[StreamInfo]) -> Vec<StreamId> {
    infos.iter().map(|info| info.stream.clone()).collect()
}

pub(super) async fn an_empty_store_lists_nothing(case: Case) {
    assert_eq!(case.store.streams_page(&StreamFilter::all(), None, 10).await.unwrap(), []);
}

pub(super) async fn a_listing_has_every_stream_with_its_version(case: Case) {
    case.append("b", ExpectedVersion::Any, 2).await;
    case.append("a", ExpectedVersion::Any, 1).await;
    case.append("b", ExpectedVersion::Any, 3).await;
    let versions: Vec<_> = case
        .streams(StreamFilter::all())
        .await
        .iter()
        .map(|info| (info.stream.aggregate_id().to_owned(), info.version.get()))
        .collect();
    assert_eq!(versions, [("a".to_owned(), 1), ("b".to_owned(), 5)]);
}

pub(super) async fn a_listing_is_ordered_by_bytes(case: Case) {
    let expected = begin_many(&case).await;
    assert_eq!(names(&case.streams(StreamFilter::all()).await), expected);
}

pub(super) async fn a_listing_continues_after_any_stream(case: Case) {
    let expected = begin_many(&case).await;
    for (n, after) in expected.iter().enumerate().step_by(7) {
        let rest = case.store.streams_page(&StreamFilter::all(), Some(after), 1_000).await.unwrap();
        assert_eq!(names(&rest), expected[n + 1..], "after {after}");
    }
}

pub(super) async fn a_listing_continues_after_a_missing_stream(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    case.append("c", ExpectedVersion::Any, 1).await;
    let rest = case.store.streams_page(&StreamFilter::all(), Some(&case.stream("b")), 10).await.unwrap();
    assert_eq!(names(&rest), [case.stream("c")]);
    let none = case.store.streams_page(&StreamFilter::all(), Some(&case.stream("d")), 10).await.unwrap();
    assert_eq!(none, []);
}

pub(super) async fn listing_pages_of_any_size_make_the_whole_list(case: Case) {
    let expected = begin_many(&case).await;
    for limit in [1, 5, 24, 71, 72, 100] {
        let mut seen: Vec<StreamId> = Vec::new();
        loop {
            let page = case.store.streams_page(&StreamFilter::all(), seen.last(), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            seen.extend(names(&page));
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
}

pub(super) async fn a_listing_by_tenant_has_that_tenant_alone(case: Case) {
    let mut expected = begin_many(&case).await;
    expected.retain(|stream| stream.tenant().as_str() == "B");
    assert_eq!(names(&case.streams(StreamFilter::all().tenant(tenant("B"))).await), expected);
}

pub(super) async fn a_listing_by_aggregate_type_has_that_type_alone(case: Case) {
    let mut expected = begin_many(&case).await;
    expected.retain(|stream| stream.aggregate_type() == "Order");
    let filter = StreamFilter::all().aggregate_type("Order").unwrap();
    assert_eq!(names(&case.streams(filter).await), expected);
}

pub(super) async fn a_filtered_listing_continues_page_by_page(case: Case) {
    let mut expected = begin_many(&case).await;
    expected.retain(|stream| stream.tenant().as_str() == "b" && stream.aggregate_type() == "order item");
    let filter = StreamFilter::all().tenant(tenant("b")).aggregate_type("order item").unwrap();
    let mut seen: Vec<StreamId> = Vec::new();
    while seen.len() < expected.len() {
        let page = case.store.streams_page(&filter, seen.last(), 4).await.unwrap();
        assert!(!page.is_empty());
        seen.extend(names(&page));
    }
    assert_eq!(seen, expected);
    assert_eq!(case.store.streams_page(&filter, seen.last(), 4).await.unwrap(), []);
}

pub(super) async fn a_listing_limit_of_nothing_is_refused(case: Case) {
    match case.store.streams_page(&StreamFilter::all(), None, 0).await {
        Err(ReadError::Invalid(invalid)) => super::case::names_the_field(&invalid, "limit"),
        other => panic!("expected an error about `limit`: {other:?}"),
    }
}

pub(super) async fn the_greatest_listing_limit_reads_what_is_there(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    assert_eq!(case.store.streams_page(&StreamFilter::all(), None, usize::MAX).await.unwrap().len(), 1);
}
