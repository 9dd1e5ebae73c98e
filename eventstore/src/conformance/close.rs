//! The end of a handle.

use std::time::Duration;

use futures::StreamExt;

use super::case::{Case, request};
use crate::error::{AppendError, ErrorFamily, ReadError};
use crate::filter::{Filter, StreamFilter};
use crate::position::{After, Checkpoint, Position};
use crate::read::EventStoreExt;
use crate::stream::{ExpectedVersion, StreamVersion, Tenant};

pub(super) async fn a_closed_handle_refuses_every_append(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    case.store.close().await;
    // Whether the append is valid does not matter.
    for count in [1, 0] {
        let refused = case.store.append(&case.stream("a"), ExpectedVersion::Any, case.events(count)).await.unwrap_err();
        assert!(matches!(refused, AppendError::Closed), "{refused:?}");
        assert_eq!(refused.family(), ErrorFamily::Invalid);
    }
    let refused = case.store.find_request(&Tenant::default(), &request("r", "body")).await.unwrap_err();
    assert!(matches!(refused, AppendError::Closed), "{refused:?}");
}

pub(super) async fn a_closed_handle_refuses_every_read(case: Case) {
    case.append("a", ExpectedVersion::Any, 1).await;
    let checkpoint = case.store.head().await.unwrap();
    case.store.close().await;
    let answers = [
        case.store.load_page(&case.stream("a"), StreamVersion::NONE, 1).await.err(),
        case.store.read_page(After::START, &Filter::all(), 1).await.err(),
        case.store.streams_page(&StreamFilter::all(), None, 1).await.err(),
        case.store.head().await.err(),
        case.store.check_checkpoint(&checkpoint).await.err(),
        case.store.check_checkpoint(&Checkpoint::start(case.store.incarnation())).await.err(),
    ];
    for answer in answers {
        assert!(matches!(answer, Some(ReadError::Closed)), "{answer:?}");
    }
}

pub(super) async fn closing_twice_is_closing_once(case: Case) {
    case.store.close().await;
    case.store.close().await;
    assert!(matches!(case.store.head().await, Err(ReadError::Closed)));
}

pub(super) async fn a_closed_handle_still_has_its_incarnation(case: Case) {
    let (incarnation, limits) = (case.store.incarnation(), case.store.limits().clone());
    case.store.close().await;
    assert_eq!((case.store.incarnation(), case.store.limits()), (incarnation, &limits));
}

pub(super) async fn a_waiting_subscription_ends_at_the_close(case: Case) {
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    // Long enough for it to have read all there is, so that it is indeed waiting when the handle closes.
    let early = tokio::time::timeout(Duration::from_millis(30), subscription.next()).await;
    assert!(early.is_err(), "{early:?}");
    let waiting = tokio::spawn(async move { (subscription.next().await, subscription.next().await) });
    case.store.close().await;
    let (first, then) = waiting.await.unwrap();
    assert!(matches!(first, Some(Err(ReadError::Closed))), "{first:?}");
    assert!(then.is_none(), "{then:?}");
}

pub(super) async fn closing_answers_every_earlier_append(case: Case) {
    let asked: Vec<_> = (0..50)
        .map(|n| {
            let case = case.clone();
            tokio::spawn(async move {
                case.store.append(&case.stream(&n.to_string()), ExpectedVersion::NoStream, case.events(1)).await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    case.store.close().await;
    let mut taken = Vec::new();
    for (n, one) in asked.into_iter().enumerate() {
        match one.await.unwrap() {
            Ok(_) => taken.push(n),
            Err(AppendError::Closed) => {}
            Err(other) => panic!("neither stored nor closed: {other:?}"),
        }
    }
    let Some(again) = case.second_handle().await else { return };
    let mut stored: Vec<usize> =
        again.log().await.iter().map(|event| event.stream.aggregate_id().parse().unwrap()).collect();
    stored.sort_unstable();
    assert_eq!(stored, taken);
}
