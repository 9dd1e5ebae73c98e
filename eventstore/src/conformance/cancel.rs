//! Futures that are dropped half way.

use std::future::Future;
use std::task::Poll;

use futures::future::poll_fn;

use super::case::{Case, new_ids, versions};
use crate::append::Append;
use crate::filter::Filter;
use crate::position::After;
use crate::stream::{ExpectedVersion, StreamVersion};

/// Polls a future a few times, then drops it.
async fn drop_after(polls: usize, future: impl Future) {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if polled.is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

pub(super) async fn a_dropped_append_is_whole_or_absent_and_a_duplicate_shows_which(case: Case) {
    for polls in 0..12 {
        let stream = case.stream(&format!("s{polls}"));
        let append = Append::to(stream.clone(), ExpectedVersion::NoStream, case.events(3));
        drop_after(polls, case.store.append_many(append.clone())).await;
        let done = case.store.append_many(append.clone()).await.unwrap();
        assert_eq!(done.version().get(), 3);
        assert_eq!(versions(&case.load(&stream).await), [1, 2, 3]);
        assert!(case.store.append_many(append).await.unwrap().repeated);
    }
    assert_eq!(case.log().await.len(), 36);
}

pub(super) async fn a_dropped_append_disturbs_no_other(case: Case) {
    for round in 0..10 {
        let kept = case.events(2);
        let dropped = Append::to(case.stream("dropped"), ExpectedVersion::Any, case.events(2));
        drop_after(round % 3, case.store.append_many(dropped)).await;
        let done = case.store.append(&case.stream("kept"), ExpectedVersion::Any, kept.clone()).await.unwrap();
        assert_eq!(done.version().get(), 2 * (i64::try_from(round).unwrap() + 1));
        let stored = case.load(&case.stream("kept")).await;
        assert_eq!(super::case::ids(&stored[2 * round..]), new_ids(&kept));
    }
    assert_eq!(case.load(&case.stream("dropped")).await.len() % 2, 0, "half an append");
}

pub(super) async fn dropped_reads_disturb_nothing(case: Case) {
    case.append("a", ExpectedVersion::Any, 50).await;
    for polls in 0..8 {
        drop_after(polls, case.store.load_page(&case.stream("a"), StreamVersion::NONE, 100)).await;
        drop_after(polls, case.store.read_page(After::START, &Filter::all(), 100)).await;
        drop_after(polls, case.store.head()).await;
    }
    assert_eq!(case.load(&case.stream("a")).await.len(), 50);
    case.append("a", ExpectedVersion::Any, 1).await;
}
