//! Reading the whole log, with and without a filter.

use super::case::{Case, ids, increases, positions, seed, tenant};
use crate::error::ReadError;
use crate::event::RecordedEvent;
use crate::filter::Filter;
use crate::metadata::{CorrelationId, Metadata};
use crate::position::{After, Position};
use crate::stream::{ExpectedVersion, StreamId};

/// Appends events of two tenants, three aggregate types, three names and two correlations.
async fn sample_log(case: &Case) -> Vec<RecordedEvent> {
    for n in 0..36 {
        let stream = StreamId::new(
            tenant(["ours", "theirs"][n % 2]),
            ["order", "payment", "parcel"][n / 2 % 3],
            ["x", "y"][n / 18],
        );
        let metadata = Metadata {
            correlation_id: [None, Some("c1"), Some("c2")][n / 3 % 3].map(|id| CorrelationId::new(id).unwrap()),
            ..Metadata::default()
        };
        let event = case.named(["placed", "paid", "sent"][n / 6 % 3]).with_metadata(metadata);
        case.store.append(&stream.unwrap(), ExpectedVersion::Any, vec![event]).await.unwrap();
    }
    case.log().await
}

async fn check_filter(case: &Case, log: &[RecordedEvent], filter: Filter, matches: impl Fn(&RecordedEvent) -> bool) {
    let expected: Vec<_> = log.iter().filter(|event| matches(event)).cloned().collect();
    assert!(!expected.is_empty() && expected.len() < log.len(), "there are too few events for {filter:?}");
    assert_eq!(ids(&case.read(filter.clone()).await), ids(&expected), "{filter:?}");
}

pub(super) async fn an_empty_log_gives_an_empty_page_at_the_end(case: Case) {
    let page = case.store.read_page(After::START, &Filter::all(), 10).await.unwrap();
    assert_eq!((page.events.len(), page.checkpoint, page.end), (0, None, true));
}

pub(super) async fn the_log_has_every_event_once_in_the_order_of_positions(case: Case) {
    let mut expected = Vec::new();
    for n in 0..10 {
        let events = case.events(1 + n % 3);
        expected.extend(super::case::new_ids(&events));
        case.store.append(&case.stream(&format!("{}", n % 4)), ExpectedVersion::Any, events).await.unwrap();
    }
    let log = case.log().await;
    assert_eq!(ids(&log), expected);
    increases(&positions(&log));
}

pub(super) async fn a_read_begins_after_the_position(case: Case) {
    case.append("a", ExpectedVersion::Any, 5).await;
    let all = positions(&case.log().await);
    for (n, &after) in all.iter().enumerate() {
        let page = case.store.read_page(after.into(), &Filter::all(), 10).await.unwrap();
        assert_eq!(positions(&page.events), all[n + 1..]);
    }
}

pub(super) async fn at_the_head_there_is_nothing_to_read(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 3).await;
    let page = case.store.read_page(done.position.into(), &Filter::all(), 10).await.unwrap();
    assert_eq!((page.events.len(), page.checkpoint, page.end), (0, None, true));
}

pub(super) async fn a_position_beyond_the_head_is_ahead_of_the_log(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 3).await;
    for beyond in [done.position.get() + 1, done.position.get() + 1_000, i64::MAX] {
        let asked = Position::new(beyond).unwrap();
        match case.store.read_page(asked.into(), &Filter::all(), 10).await {
            Err(ReadError::AheadOfLog { after, head }) => assert_eq!((after, head), (asked, done.position)),
            other => panic!("expected to be ahead of the log: {other:?}"),
        }
    }
}

pub(super) async fn an_empty_log_has_nothing_to_be_after(case: Case) {
    let refused = case.store.read_page(Position::new(1).unwrap().into(), &Filter::all(), 10).await;
    match refused {
        Err(ReadError::AheadOfLog { head, .. }) => assert_eq!(head, Position::START),
        other => panic!("expected to be ahead of the log: {other:?}"),
    }
}

pub(super) async fn ahead_of_the_log_is_reported_with_a_filter_too(case: Case) {
    let done = case.append("a", ExpectedVersion::Any, 1).await;
    let beyond = Position::new(done.position.get() + 1).unwrap();
    let filter = Filter::all().event_name("never.used").unwrap();
    let refused = case.store.read_page(beyond.into(), &filter, 10).await;
    assert!(matches!(refused, Err(ReadError::AheadOfLog { .. })), "{refused:?}");
}

pub(super) async fn a_negative_position_cannot_be_read_from(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    super::case::names_the_field(&Position::new(-1).unwrap_err(), "position");
    super::case::names_the_field(&Position::new(i64::MIN).unwrap_err(), "position");
    assert_eq!(case.log().await.len(), 1);
}

pub(super) async fn pages_of_any_size_make_the_whole_log(case: Case) {
    case.append("a", ExpectedVersion::Any, 7).await;
    case.append("b", ExpectedVersion::Any, 5).await;
    let all = ids(&case.log().await);
    for limit in [1, 2, 3, 5, 11, 12, 13] {
        assert_eq!(ids(&by_pages(&case, &Filter::all(), limit).await), all, "limit {limit}");
    }
}

/// Reads to the end by pages of `limit`, checking `checkpoint` and `end` of each page.
async fn by_pages(case: &Case, filter: &Filter, limit: usize) -> Vec<RecordedEvent> {
    let (mut at, mut seen) = (After::START, Vec::new());
    loop {
        let after = at.position;
        let page = case.store.read_page(at, filter, limit).await.unwrap();
        assert!(page.events.len() <= limit);
        assert!(page.events.iter().all(|event| event.position > after));
        if let Some(checkpoint) = page.checkpoint {
            assert!(checkpoint.position > after, "a page that does not advance at {after}");
            assert!(page.events.iter().all(|event| event.position <= checkpoint.position));
            case.store.check_checkpoint(&checkpoint).await.unwrap();
            at = checkpoint.into();
        } else {
            assert!(page.events.is_empty() && page.end, "a page without `checkpoint` before the end, limit {limit}");
        }
        seen.extend(page.events);
        if page.end {
            assert_eq!(at.position, case.store.head().await.unwrap().position);
            return seen;
        }
    }
}

pub(super) async fn filtered_pages_of_any_size_miss_nothing(case: Case) {
    let log = sample_log(&case).await;
    let filter = Filter::all().event_name("paid").unwrap();
    let expected: Vec<_> = log.iter().filter(|event| &*event.name == "paid").cloned().collect();
    for limit in [1, 2, 5, 12, 100] {
        assert_eq!(by_pages(&case, &filter, limit).await, expected, "limit {limit}");
    }
}

pub(super) async fn the_end_of_the_log_is_reported_correctly(case: Case) {
    case.append("a", ExpectedVersion::Any, 4).await;
    let page = case.store.read_page(After::START, &Filter::all(), 3).await.unwrap();
    assert_eq!((page.events.len(), page.end), (3, false));
    assert_eq!(page.checkpoint.unwrap().event_id, Some(page.events[2].event_id));
    let page = case.store.read_page(page.events[2].position.into(), &Filter::all(), 3).await.unwrap();
    assert_eq!((page.events.len(), page.end), (1, true));
}

pub(super) async fn a_filter_that_matches_nothing_covers_the_whole_log(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let done = case.append("b", ExpectedVersion::Any, 1).await;
    let filter = Filter::all().event_name("never.used").unwrap();
    let page = case.store.read_page(After::START, &filter, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (0, true));
    assert_eq!(page.checkpoint.unwrap().position, done.position);
    assert_eq!(page.checkpoint, Some(case.store.head().await.unwrap()));
}

pub(super) async fn a_filtered_page_covers_the_log_after_its_last_event(case: Case) {
    case.append_named(&case.stream("a"), "matching").await;
    let last = case.append_named(&case.stream("a"), "other").await;
    let filter = Filter::all().event_name("matching").unwrap();
    let page = case.store.read_page(After::START, &filter, 10).await.unwrap();
    assert_eq!((page.events.len(), page.checkpoint.unwrap().position, page.end), (1, last.position, true));
}

pub(super) async fn a_full_filtered_page_covers_nothing_that_it_leaves_out(case: Case) {
    for _ in 0..3 {
        case.append_named(&case.stream("a"), "other").await;
        case.append_named(&case.stream("a"), "matching").await;
    }
    let filter = Filter::all().event_name("matching").unwrap();
    let page = case.store.read_page(After::START, &filter, 2).await.unwrap();
    assert_eq!(page.events.len(), 2);
    let rest = case.store.read_page(page.checkpoint.unwrap().into(), &filter, 2).await.unwrap();
    assert_eq!((rest.events.len(), rest.end), (1, true));
}

pub(super) async fn a_filter_by_tenant_gives_that_tenant(case: Case) {
    let log = sample_log(&case).await;
    let ours = tenant("ours");
    check_filter(&case, &log, Filter::all().tenant(ours.clone()), |e| *e.stream.tenant() == ours).await;
}

pub(super) async fn a_filter_by_aggregate_type_gives_that_type(case: Case) {
    let log = sample_log(&case).await;
    let filter = Filter::all().aggregate_type("payment").unwrap();
    check_filter(&case, &log, filter, |e| e.stream.aggregate_type() == "payment").await;
}

pub(super) async fn several_aggregate_types_are_joined_by_or(case: Case) {
    let log = sample_log(&case).await;
    let filter = Filter::all().aggregate_type("payment").unwrap().aggregate_type("parcel").unwrap();
    check_filter(&case, &log, filter, |e| e.stream.aggregate_type() != "order").await;
}

pub(super) async fn a_filter_by_name_gives_that_name(case: Case) {
    let log = sample_log(&case).await;
    check_filter(&case, &log, Filter::all().event_name("paid").unwrap(), |e| &*e.name == "paid").await;
}

pub(super) async fn several_names_are_joined_by_or(case: Case) {
    let log = sample_log(&case).await;
    let filter = Filter::all().event_name("paid").unwrap().event_name("sent").unwrap().event_name("paid").unwrap();
    check_filter(&case, &log, filter, |e| &*e.name != "placed").await;
}

pub(super) async fn a_filter_by_correlation_gives_its_events(case: Case) {
    let log = sample_log(&case).await;
    let c1 = CorrelationId::new("c1").unwrap();
    let matches = |e: &RecordedEvent| e.metadata.correlation_id.as_ref() == Some(&c1);
    check_filter(&case, &log, Filter::all().correlation(c1.clone()), matches).await;
}

pub(super) async fn conditions_of_different_kinds_are_joined_by_and(case: Case) {
    let log = sample_log(&case).await;
    let ours = tenant("ours");
    let filter = Filter::all()
        .tenant(ours.clone())
        .aggregate_type("order")
        .unwrap()
        .aggregate_type("parcel")
        .unwrap()
        .event_name("placed")
        .unwrap();
    check_filter(&case, &log, filter, |e| {
        *e.stream.tenant() == ours && e.stream.aggregate_type() != "payment" && &*e.name == "placed"
    })
    .await;
}

pub(super) async fn every_combination_of_conditions_gives_the_matching_events(case: Case) {
    let log = sample_log(&case).await;
    let mut random = fastrand::Rng::with_seed(seed());
    for _ in 0..40 {
        let mut filter = Filter::all();
        if random.bool() {
            filter = filter.tenant(tenant(["ours", "theirs", "nobody"][random.usize(..3)]));
        }
        for _ in 0..random.usize(..3) {
            filter = filter.aggregate_type(["order", "payment", "parcel", "none"][random.usize(..4)]).unwrap();
        }
        for _ in 0..random.usize(..3) {
            filter = filter.event_name(["placed", "paid", "sent", "none"][random.usize(..4)]).unwrap();
        }
        if random.bool() {
            filter = filter.correlation(CorrelationId::new(["c1", "c2", "c3"][random.usize(..3)]).unwrap());
        }
        let expected: Vec<_> = log.iter().filter(|event| filter.matches(event)).cloned().collect();
        assert_eq!(by_pages(&case, &filter, random.usize(1..8)).await, expected, "{filter:?}");
    }
}

pub(super) async fn filters_compare_byte_for_byte(case: Case) {
    let names = ["a", "A", "a%", "a_", "ab", "a'", "\u{e9}", "e\u{301}", "a\"", "a\\"];
    for name in names {
        let stream = StreamId::new(tenant(name), name, name).unwrap();
        let metadata = Metadata { correlation_id: Some(CorrelationId::new(name).unwrap()), ..Metadata::default() };
        let event = case.named(name).with_metadata(metadata);
        case.store.append(&stream, ExpectedVersion::NoStream, vec![event]).await.unwrap();
    }
    for name in names {
        let filters = [
            Filter::all().tenant(tenant(name)),
            Filter::all().aggregate_type(name).unwrap(),
            Filter::all().event_name(name).unwrap(),
            Filter::all().correlation(CorrelationId::new(name).unwrap()),
        ];
        for filter in filters {
            let found = case.read(filter.clone()).await;
            assert_eq!(found.iter().map(|event| &*event.name).collect::<Vec<_>>(), [name], "{filter:?}");
        }
    }
}

pub(super) async fn a_log_limit_of_nothing_is_refused(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    match case.store.read_page(After::START, &Filter::all(), 0).await {
        Err(ReadError::Invalid(invalid)) => super::case::names_the_field(&invalid, "limit"),
        other => panic!("expected an error about `limit`: {other:?}"),
    }
}

pub(super) async fn the_greatest_log_limit_reads_what_is_there(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let page = case.store.read_page(After::START, &Filter::all(), usize::MAX).await.unwrap();
    assert_eq!((page.events.len(), page.end), (3, true));
}

pub(super) async fn reading_twice_gives_the_same(case: Case) {
    let log = sample_log(&case).await;
    assert_eq!(case.log().await, log);
}
