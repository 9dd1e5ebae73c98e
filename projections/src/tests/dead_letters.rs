//! Streams that a runner sets aside, and what people do with them: nothing is lost, nothing comes twice, and the order stays.

use std::time::Duration;

use annals_eventstore::{Position, Recorded, StreamId};

use super::accounts::{Account, AccountEvent};
use super::fixture::{Counts, Fixture, pairs};
use super::streams::stream;
use super::troubled::Trouble;
use crate::error::StopCause;
use crate::{
    ControlError, DeadLetter, ProjectionError, Projections, Retried, StreamOptions, StreamProjection, StreamRow,
};

/// Any permutation, repetition or omission of the events of a stream gives another number.
fn next(cents: i64, digit: i64) -> i64 {
    (cents * 31 + digit + 1) % 1_000_003
}

/// What a stream comes to whose events have these digits.
fn folded(digits: impl IntoIterator<Item = i64>) -> i64 {
    digits.into_iter().fold(0, next)
}

/// One account per stream, whose cents tell the order of all its events. `fixed` says whether it can apply [`AccountEvent::Refused`].
pub(super) struct Ordered {
    fixed: bool,
}

impl StreamProjection for Ordered {
    type Event = AccountEvent;
    type Row = Account;
    const AGGREGATES: &'static [&'static str] = &["account"];
    const NAME: &'static str = "accounts";

    fn apply(&self, event: &Recorded<AccountEvent>, row: &mut StreamRow<'_, Account>) -> Result<(), ProjectionError> {
        let digit = match &event.event {
            AccountEvent::Paid(digit) => *digit,
            AccountEvent::Refused if self.fixed => 9,
            AccountEvent::Panicking => panic!("the fold has a fault"),
            _ => return Err(ProjectionError::new("the domain says no")),
        };
        let new = Account::new(row.key(), 0, event.recorded_at);
        let row = row.get_or_insert_with(|| new);
        row.cents = next(row.cents, digit);
        Ok(())
    }
}

pub(super) fn letters(fixed: bool) -> StreamOptions<Ordered> {
    Ordered { fixed }.slots(3).dead_letter()
}

async fn start(shop: &Fixture, fixed: bool) -> Projections {
    let views = shop.projections().with(letters(fixed)).with(Counts).lease(Duration::from_millis(300));
    views.start().await.unwrap()
}

fn paid(digits: impl IntoIterator<Item = i64>) -> Vec<AccountEvent> {
    digits.into_iter().map(AccountEvent::Paid).collect()
}

/// Events that no build can apply at first: the second is refused.
pub(super) async fn poison(shop: &Fixture, id: &str) -> Position {
    shop.append(id, [AccountEvent::Paid(1), AccountEvent::Refused, AccountEvent::Paid(2)]).await
}

async fn parked(views: &Projections) -> Vec<(String, i64, u64)> {
    let of = |letter: DeadLetter| {
        (letter.event.stream.aggregate_id().to_owned(), letter.event.version.get(), letter.waiting)
    };
    let mut all: Vec<_> = views.dead_letters::<Ordered>().await.unwrap().into_iter().map(of).collect();
    all.sort();
    all
}

async fn retry(views: &Projections, stream: &StreamId) -> Retried {
    views.retry::<Ordered>(stream).await.unwrap()
}

pub(super) async fn a_failing_event_costs_its_stream_alone_and_a_retry_applies_all_in_order(shop: Fixture) {
    let views = start(&shop, false).await;
    poison(&shop, "a").await;
    let last = shop.append("b", paid([5])).await;
    views.wait_for(last, shop.soon()).await.expect("others go on, and it is where it can be");
    assert_eq!(shop.rows::<Ordered>().await, pairs(&[("a", folded([1])), ("b", folded([5]))]));
    assert_eq!(parked(&views).await, [("a".to_owned(), 2, 1)]);
    let letter = views.dead_letters::<Ordered>().await.unwrap().remove(0);
    assert!(letter.reason.contains("the domain says no"), "{}", letter.reason);
    assert_eq!(views.status()[0].slots.iter().map(|slot| slot.parked).sum::<usize>(), 1);
    // A process that starts later knows it too.
    views.close().await;
    let views = start(&shop, false).await;
    shop.append_raw("a", "no.event.of.it", "{}").await;
    let last = shop.append("a", paid([3])).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(parked(&views).await, [("a".to_owned(), 2, 2)]);
    let Retried::StillParked(again) = retry(&views, &stream("a")).await else { panic!("nothing was fixed") };
    assert_eq!((again.event, again.waiting), (letter.event, 2));
    assert_eq!(parked(&views).await, [("a".to_owned(), 2, 2)]);
    views.close().await;

    let views = start(&shop, true).await;
    assert_eq!(retry(&views, &stream("a")).await, Retried::Reopened { events: 3 });
    assert_eq!(shop.rows::<Ordered>().await, pairs(&[("a", folded([1, 9, 2, 3])), ("b", folded([5]))]));
    assert!(parked(&views).await.is_empty());
    let last = shop.append("a", paid([4])).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Ordered>().await[0].1, folded([1, 9, 2, 3, 4]));
    let not_kept = views.dead_letters::<Counts>().await.unwrap_err();
    assert!(matches!(not_kept, ControlError::Invalid(_)), "{not_kept:?}");
    views.close().await;
}

pub(super) async fn a_retry_that_fails_again_keeps_what_it_could_apply(shop: Fixture) {
    let views = start(&shop, false).await;
    poison(&shop, "a").await;
    let last = shop.append("a", [AccountEvent::Panicking, AccountEvent::Paid(3), AccountEvent::Paid(4)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    views.close().await;
    let views = start(&shop, true).await;
    let Retried::StillParked(letter) = retry(&views, &stream("a")).await else { panic!("it panics") };
    assert_eq!((letter.event.version.get(), letter.waiting), (4, 2));
    assert!(letter.reason.contains("the fold has a fault"), "{}", letter.reason);
    assert_eq!(parked(&views).await, [("a".to_owned(), 4, 2)]);
    assert_eq!(shop.rows::<Ordered>().await, pairs(&[("a", folded([1, 9, 2]))]));
    views.close().await;
}

pub(super) async fn what_was_dropped_or_retried_never_comes_again(shop: Fixture) {
    let views = start(&shop, false).await;
    let never = stream("never");
    assert_eq!(retry(&views, &never).await, Retried::NothingParked);
    assert!(!views.drop_dead_letter::<Ordered>(&never, "me", "for fun").await.unwrap());
    for id in ["a", "b"] {
        poison(&shop, id).await;
    }
    let last = shop.append("c", paid([1])).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    let refused = views.drop_dead_letter::<Ordered>(&stream("a"), "me", "").await.unwrap_err();
    assert!(matches!(refused, ControlError::Invalid(_)), "{refused:?}");
    views.pause::<Ordered>("me").await.unwrap();
    let paused = views.drop_dead_letter::<Ordered>(&stream("a"), "me", "a test event").await.unwrap_err();
    assert!(matches!(paused, ControlError::Paused { .. }), "{paused:?}");
    assert_eq!(parked(&views).await.len(), 2);
    views.resume::<Ordered>().await.unwrap();
    assert!(views.drop_dead_letter::<Ordered>(&stream("a"), "me", "a test event").await.unwrap());
    assert!(!views.drop_dead_letter::<Ordered>(&stream("a"), "me", "a test event").await.unwrap());
    assert_eq!(shop.models.dropped(), ["default/account/a 2 me: a test event"]);
    assert_eq!(parked(&views).await, [("b".to_owned(), 2, 1)]);
    let last = shop.append("a", paid([7])).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Ordered>().await[0].1, folded([1, 7]), "what was dropped is in no row");
    views.close().await;

    let views = start(&shop, true).await;
    assert_eq!(retry(&views, &stream("a")).await, Retried::NothingParked);
    assert_eq!(retry(&views, &stream("b")).await, Retried::Reopened { events: 2 });
    assert_eq!(retry(&views, &stream("b")).await, Retried::NothingParked);
    views.close().await;
    let views = start(&shop, true).await;
    assert!(parked(&views).await.is_empty());
    let expected = pairs(&[("a", folded([1, 7])), ("b", folded([1, 9, 2])), ("c", folded([1]))]);
    assert_eq!(shop.rows::<Ordered>().await, expected);
    views.close().await;
}

/// A retry in one process, new events at the same time, and owners that come and go.
pub(super) async fn events_that_arrive_while_a_stream_is_retried_follow_behind_in_order(shop: Fixture) {
    for round in 0..shop.rounds().min(20) {
        let id = format!("a{round}");
        let owner = start(&shop, false).await;
        let last = poison(&shop, &id).await;
        owner.wait_for_one::<Ordered>(last, shop.soon()).await.unwrap();
        owner.close().await;
        let (owner, other) = (start(&shop, true).await, start(&shop.beside(), true).await);
        let of = stream(&id);
        let (retried, _, ()) = tokio::join!(
            other.retry::<Ordered>(&of),
            async {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(..4))).await;
                shop.append(&id, paid([3])).await;
                shop.append(&id, paid([4])).await
            },
            async {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(..6))).await;
                owner.close().await;
            },
        );
        assert!(matches!(retried.unwrap(), Retried::Reopened { .. }));
        let last = shop.append(&id, paid([5])).await;
        other.wait_for(last, shop.soon()).await.unwrap();
        let rows = shop.rows::<Ordered>().await;
        let row = rows.iter().find(|(row, _)| *row == id).expect("it has a row");
        assert_eq!(row.1, folded([1, 9, 2, 3, 4, 5]), "round {round}");
        assert!(parked(&other).await.is_empty());
        other.close().await;
    }
}

/// Which streams are parked must be known before one is folded. A fault that may pass is waited out; any other stops the slot.
pub(super) async fn parked_streams_that_cannot_be_read_stop_their_slot_and_say_so(shop: Fixture) {
    shop.models.trouble_parked([Some(Trouble::Passing), Some(Trouble::Passing)]);
    let views = start(&shop, false).await;
    let last = shop.append("a", paid([1])).await;
    views.wait_for(last, shop.soon()).await.expect("it passes");
    views.close().await;

    shop.models.trouble_parked([Some(Trouble::Refused("")); 3]);
    let views = start(&shop, false).await;
    let stopped = tokio::time::timeout(shop.soon(), views.stopped()).await.expect("it stops").unwrap_err();
    assert!(matches!(&*stopped.cause, StopCause::Database(_)), "{stopped:?}");
    assert!(views.health().await[0].verdict.is_failed());
    assert!(views.start_again::<Ordered>().await.unwrap());
    let last = shop.append("a", paid([2])).await;
    views.wait_for(last, shop.soon()).await.expect("it was fixed");
    assert_eq!(shop.rows::<Ordered>().await, pairs(&[("a", folded([1, 2]))]));
    views.close().await;
}

/// The events before the one that a stream is parked for are in its row again.
pub(super) async fn a_read_model_that_was_emptied_has_all_events_of_a_parked_stream_in_the_end(shop: Fixture) {
    let views = start(&shop, false).await;
    let last = shop.append("a", [AccountEvent::Paid(1), AccountEvent::Paid(2), AccountEvent::Refused]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    shop.empty::<Ordered>().await;
    let last = shop.append("b", paid([5])).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Ordered>().await, pairs(&[("a", folded([1, 2])), ("b", folded([5]))]));
    assert_eq!(parked(&views).await.len(), 1);
    views.close().await;
    let views = start(&shop, true).await;
    assert_eq!(retry(&views, &stream("a")).await, Retried::Reopened { events: 1 });
    assert_eq!(shop.rows::<Ordered>().await[0].1, folded([1, 2, 9]));
    views.close().await;
}

/// The slower one finds that out, before it has a slot and while it has one, and what was dropped or applied meanwhile stays so.
pub(super) async fn a_retry_that_another_was_faster_than_changes_nothing(shop: Fixture) {
    let views = start(&shop, false).await;
    poison(&shop, "a").await;
    let last = poison(&shop, "b").await;
    views.wait_for(last, shop.soon()).await.unwrap();
    views.close().await;
    let other = shop.beside();
    let (slow, fast) = (start(&shop, true).await, start(&other, true).await);
    for (id, of_held) in [("a", false), ("b", true)] {
        let (held, before) = (shop.models.hold_seizes(of_held).await, shop.models.seizes_begun(of_held));
        let of = stream(id);
        let (retried, dropped) = tokio::join!(slow.retry::<Ordered>(&of), async {
            while shop.models.seizes_begun(of_held) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let dropped = fast.drop_dead_letter::<Ordered>(&of, "me", "a test event").await;
            drop(held);
            dropped
        });
        assert!(dropped.unwrap());
        match of_held {
            false => assert_eq!(retried.unwrap(), Retried::NothingParked),
            true => assert!(matches!(retried, Err(ControlError::Taken { .. })), "{retried:?}"),
        }
        assert_eq!(shop.rows::<Ordered>().await[0].1, folded([1]), "{id}");
    }
    assert_eq!(shop.rows::<Ordered>().await[1].1, folded([1]));
    slow.close().await;
    fast.close().await;
}

/// Two people retry the same stream: one does it, the other is told, and the slot has its owner again at once.
pub(super) async fn of_two_retries_at_once_one_is_done(shop: Fixture) {
    let (first, second) = (start(&shop, false).await, start(&shop.beside(), false).await);
    for round in 0..shop.rounds().min(20) {
        let id = format!("a{round}");
        let last = poison(&shop, &id).await;
        second.wait_for_one::<Ordered>(last, shop.soon()).await.unwrap();
        let of = stream(&id);
        let answers = tokio::join!(first.retry::<Ordered>(&of), second.retry::<Ordered>(&of));
        let is_done = |answer: &Result<Retried, ControlError>| matches!(answer, Ok(Retried::StillParked(_)));
        let is_told = |answer: &Result<Retried, ControlError>| matches!(answer, Err(ControlError::Taken { .. }));
        let answers = [answers.0, answers.1];
        assert!(answers.iter().any(is_done), "{answers:?}");
        assert!(answers.iter().all(|answer| is_done(answer) || is_told(answer)), "{answers:?}");
        assert!(second.drop_dead_letter::<Ordered>(&of, "me", "a test event").await.unwrap());
    }
    first.close().await;
    second.close().await;
}

/// More than a page of events wait; the retry ends in the middle, as its future is dropped.
pub(super) async fn ten_thousand_waiting_events_are_retried_or_none(shop: Fixture) {
    let views = start(&shop, false).await;
    shop.append("a", [AccountEvent::Refused]).await;
    let digits: Vec<i64> = (0..10_000).map(|n| n % 7).collect();
    for some in digits.chunks(1_000) {
        shop.append("a", paid(some.iter().copied())).await;
    }
    let last = shop.append("b", paid([1])).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    views.close().await;
    let views = start(&shop, true).await;
    for millis in [0, 2, 20] {
        tokio::time::timeout(Duration::from_millis(millis), views.retry::<Ordered>(&stream("a"))).await.ok();
        let listed = parked(&views).await;
        assert!(listed.is_empty() || listed == [("a".to_owned(), 1, 10_000)], "{listed:?}");
    }
    if !parked(&views).await.is_empty() {
        assert_eq!(retry(&views, &stream("a")).await, Retried::Reopened { events: 10_001 });
    }
    let last = shop.append("a", paid([3])).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    let all = [9].into_iter().chain(digits).chain([3]);
    assert_eq!(shop.rows::<Ordered>().await[0].1, folded(all));
    views.close().await;
}
