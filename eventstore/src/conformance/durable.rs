//! Data that outlives a handle. A store that is declared as not durable must not be: see `Case::second_handle`.

use futures::{StreamExt, TryStreamExt};

use super::case::{Case, exact, is_conflict, request, version, versions};
use crate::append::{Append, Appended};
use crate::error::AppendError;
use crate::filter::Filter;
use crate::position::Position;
use crate::read::EventStoreExt;
use crate::stream::{ExpectedVersion, Tenant};

pub(super) async fn what_was_answered_is_there_after_reopening(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    case.append("b", ExpectedVersion::Any, 2).await;
    let before = case.everything().await;
    let Some(again) = case.reopened().await else { return };
    assert_eq!(again.everything().await, before);
}

pub(super) async fn versions_and_positions_go_on_after_reopening(case: Case) {
    let before = case.append("a", ExpectedVersion::Any, 3).await;
    let Some(again) = case.reopened().await else { return };
    let after = again.append("a", exact(3), 1).await;
    assert_eq!(after.version(), version(4));
    assert!(after.position > before.position);
    assert_eq!(versions(&again.load(&again.stream("a")).await), [1, 2, 3, 4]);
}

pub(super) async fn a_stale_version_is_refused_after_reopening(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let Some(again) = case.reopened().await else { return };
    let stale = Append::to(again.stream("a"), ExpectedVersion::NoStream, again.events(1));
    let error = again.refused_without_trace(stale).await;
    is_conflict(&error, &again.stream("a"), ExpectedVersion::NoStream, 3);
}

pub(super) async fn a_repeat_after_reopening_gives_the_first_answer(case: Case) {
    let append = Append::to(case.stream("a"), ExpectedVersion::NoStream, case.events(2)).and(
        case.stream("b"),
        ExpectedVersion::NoStream,
        case.events(1),
    );
    let first = case.store.append_many(append.clone()).await.unwrap();
    let Some(again) = case.reopened().await else { return };
    assert_eq!(again.store.append_many(append).await.unwrap(), Appended { repeated: true, ..first });
    assert_eq!(again.log().await.len(), 3);
}

pub(super) async fn a_request_is_remembered_after_reopening(case: Case) {
    let key = request("r", "body");
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(2)).with_request(key.clone());
    let first = case.store.append_many(append).await.unwrap();
    let Some(again) = case.reopened().await else { return };
    let found = again.store.find_request(&Tenant::default(), &key).await.unwrap();
    assert_eq!(found, Some(Appended { repeated: true, ..first }));
    let other = again.store.find_request(&Tenant::default(), &request("r", "another body")).await;
    assert!(matches!(other, Err(AppendError::RequestKeyReused { .. })), "{other:?}");
}

pub(super) async fn incarnation_and_checkpoints_hold_after_reopening(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let checkpoint = case.store.head().await.unwrap();
    let Some(again) = case.reopened().await else { return };
    assert_eq!(again.store.incarnation(), case.store.incarnation());
    again.store.check_checkpoint(&checkpoint).await.unwrap();
    let done = again.append("a", ExpectedVersion::Any, 1).await;
    let page = again.store.read_page(checkpoint.into(), &Filter::all(), 10).await.unwrap();
    assert_eq!(page.checkpoint.unwrap().position, done.position);
    assert_eq!(page.events.len(), 1);
}

pub(super) async fn two_handles_see_one_log(case: Case) {
    let Some(other) = case.second_handle().await else { return };
    for n in 0..4 {
        let (writer, reader) = if n % 2 == 0 { (&case, &other) } else { (&other, &case) };
        writer.append("a", exact(n), 1).await;
        assert_eq!(versions(&reader.load(&reader.stream("a")).await), (1..=n + 1).collect::<Vec<_>>());
    }
    assert_eq!(case.everything().await, other.everything().await);
}

pub(super) async fn a_conflict_is_found_across_handles(case: Case) {
    let Some(other) = case.second_handle().await else { return };
    case.append("a", ExpectedVersion::NoStream, 2).await;
    let stale = Append::to(case.stream("a"), ExpectedVersion::NoStream, other.events(1));
    is_conflict(&other.refused_without_trace(stale).await, &case.stream("a"), ExpectedVersion::NoStream, 2);
}

pub(super) async fn a_repeat_is_found_across_handles(case: Case) {
    let Some(other) = case.second_handle().await else { return };
    let key = request("r", "body");
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(2)).with_request(key.clone());
    let first = case.store.append_many(append.clone()).await.unwrap();
    let repeated = Appended { repeated: true, ..first };
    assert_eq!(other.store.append_many(append).await.unwrap(), repeated);
    let again = Append::to(case.stream("a"), ExpectedVersion::Any, other.events(1)).with_request(key);
    assert_eq!(other.store.append_many(again).await.unwrap(), repeated);
}

pub(super) async fn a_subscription_gets_what_another_handle_appends(case: Case) {
    let Some(other) = case.second_handle().await else { return };
    let mut subscription = case.store.subscribe(Position::START, Filter::all());
    for n in 1..=3 {
        let done = other.append("a", ExpectedVersion::Any, 1).await;
        let event = subscription.next().await.unwrap().unwrap();
        assert_eq!((event.position, event.version), (done.position, version(n)));
    }
}

pub(super) async fn closing_one_handle_leaves_the_other_open(case: Case) {
    let Some(other) = case.second_handle().await else { return };
    case.append("a", ExpectedVersion::Any, 1).await;
    case.store.close().await;
    other.append("a", exact(1), 1).await;
    assert_eq!(other.log().await.len(), 2);
}

pub(super) async fn handles_that_race_for_a_stream_make_one_history(case: Case) {
    let Some(other) = case.second_handle().await else { return };
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let handle = if n % 2 == 0 { case.clone() } else { other.clone() };
            tokio::spawn(async move {
                for _ in 0..5 {
                    handle.append("a", ExpectedVersion::Any, 1).await;
                }
            })
        })
        .collect();
    let seen: Vec<_> = case.store.subscribe(Position::START, Filter::all()).take(40).try_collect().await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(versions(&seen), (1..=40).collect::<Vec<_>>());
    assert_eq!(seen, other.log().await);
}
