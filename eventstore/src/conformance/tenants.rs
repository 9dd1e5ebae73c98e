//! Tenants never see, change or starve each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::case::{Case, exact, is_conflict, tenant, versions};
use crate::append::Append;
use crate::error::AppendError;
use crate::filter::{Filter, StreamFilter};
use crate::stream::{ExpectedVersion, StreamId};

fn of(owner: &str, id: &str) -> StreamId {
    StreamId::new(tenant(owner), "order", id).unwrap()
}

pub(super) async fn one_name_under_two_tenants_is_two_streams(case: Case) {
    case.append_named(&of("a", "1"), "n").await;
    case.append_named(&of("b", "1"), "n").await;
    case.append_named(&of("b", "1"), "n").await;
    assert_eq!(versions(&case.load(&of("a", "1")).await), [1]);
    assert_eq!(versions(&case.load(&of("b", "1")).await), [1, 2]);
}

pub(super) async fn the_versions_of_a_tenant_are_its_own(case: Case) {
    case.store.append(&of("a", "1"), ExpectedVersion::NoStream, case.events(3)).await.unwrap();
    case.store.append(&of("b", "1"), ExpectedVersion::NoStream, case.events(1)).await.unwrap();
    let wrong = Append::to(of("b", "1"), exact(3), case.events(1));
    is_conflict(&case.refused_without_trace(wrong).await, &of("b", "1"), exact(3), 1);
}

pub(super) async fn an_append_to_streams_of_two_tenants_is_refused(case: Case) {
    let append = Append::to(of("a", "1"), ExpectedVersion::Any, case.events(1)).and(
        of("b", "1"),
        ExpectedVersion::Any,
        case.events(1),
    );
    case.invalid_without_trace(append, "tenant").await;
}

pub(super) async fn a_read_of_one_tenant_has_nothing_of_another(case: Case) {
    for n in 0..12 {
        case.append_named(&of(["a", "b", "ab"][n % 3], "1"), "n").await;
    }
    let found = case.read(Filter::all().tenant(tenant("a"))).await;
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|event| event.stream == of("a", "1")));
}

pub(super) async fn a_listing_of_one_tenant_has_nothing_of_another(case: Case) {
    for owner in ["a", "b", "ab"] {
        case.append_named(&of(owner, "1"), "n").await;
    }
    let found = case.streams(StreamFilter::all().tenant(tenant("a"))).await;
    assert_eq!(found.iter().map(|info| info.stream.clone()).collect::<Vec<_>>(), [of("a", "1")]);
}

/// The stream to continue after is given by the caller, so it may be of another tenant.
pub(super) async fn a_listing_after_a_stream_of_another_tenant_has_only_its_own(case: Case) {
    for owner in ["a", "b", "c"] {
        for id in ["1", "2"] {
            case.append_named(&of(owner, id), "n").await;
        }
    }
    let of_b = StreamFilter::all().tenant(tenant("b"));
    for (after, found) in [("a", vec![of("b", "1"), of("b", "2")]), ("b", vec![of("b", "2")]), ("c", vec![])] {
        for limit in [1, 10] {
            let page = case.store.streams_page(&of_b, Some(&of(after, "1")), limit).await.unwrap();
            let page: Vec<_> = page.into_iter().map(|info| info.stream).collect();
            assert_eq!(page, found[..limit.min(found.len())], "after one of `{after}`");
        }
    }
}

pub(super) async fn parts_of_names_do_not_run_into_each_other(case: Case) {
    let names = [("a", "b/c", "d"), ("a/b", "c", "d"), ("a", "b", "c/d"), ("a/b/c", "d", "d"), ("a", "b", "c")];
    let streams: Vec<_> = names.iter().map(|(t, kind, id)| StreamId::new(tenant(t), kind, id).unwrap()).collect();
    for stream in &streams {
        case.store.append(stream, ExpectedVersion::NoStream, case.events(1)).await.unwrap();
    }
    for stream in &streams {
        let stored = case.load(stream).await;
        assert_eq!(stored.len(), 1, "{stream}");
        assert_eq!(stored[0].stream, *stream);
    }
}

pub(super) async fn a_conflict_of_one_tenant_leaves_another_alone(case: Case) {
    let (wrong, right) = tokio::join!(
        case.store.append_many(Append::to(of("a", "1"), exact(5), case.events(1))),
        case.store.append_many(Append::to(of("b", "1"), exact(0), case.events(1))),
    );
    is_conflict(&wrong.unwrap_err(), &of("a", "1"), exact(5), 0);
    assert_eq!(right.unwrap().version().get(), 1);
}

/// A busy tenant keeps more appends waiting than its queue holds. Another one appends meanwhile, succeeds each time, and is
/// never refused as overloaded.
pub(super) async fn a_tenant_with_a_full_queue_slows_no_other_to_a_halt(case: Case) {
    let case = case.limited(|limits| limits.queued_appends = 8).await;
    let busy = Arc::new(AtomicBool::new(true));
    let crowd: Vec<_> = (0..32)
        .map(|n| {
            let (case, busy) = (case.clone(), busy.clone());
            tokio::spawn(async move {
                let mut taken = 0;
                while busy.load(Ordering::Relaxed) {
                    match case.store.append(&of("crowd", &n.to_string()), ExpectedVersion::Any, case.events(1)).await {
                        Ok(_) => taken += 1,
                        Err(AppendError::Overloaded { tenant: whose, limit, .. }) => {
                            assert_eq!((whose, limit), (tenant("crowd"), 8));
                        }
                        Err(other) => panic!("neither taken nor too much: {other:?}"),
                    }
                    tokio::task::yield_now().await;
                }
                taken
            })
        })
        .collect();
    for n in 1..=5 {
        let done = case.store.append(&of("calm", "1"), exact(n - 1), case.events(1)).await.unwrap();
        assert_eq!(done.version().get(), n);
    }
    busy.store(false, Ordering::Relaxed);
    let mut taken = 0;
    for one in crowd {
        taken += one.await.unwrap();
    }
    assert_eq!(case.read(Filter::all().tenant(tenant("crowd"))).await.len(), taken);
    assert_eq!(case.load(&of("calm", "1")).await.len(), 5);
}
