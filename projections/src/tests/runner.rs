//! The runner: what it promises while everything works, and while something does not.

use std::time::Duration;

use annals_eventstore::testing::{Fault, FaultyStore};
use annals_eventstore::{Position, Tenant};
use tokio::time::Instant;

use super::accounts::{AccountEvent, Accounts};
use super::fixture::{Counts, Fixed, Fixture, OfTenant, at, not_running, pairs, said, until_at};
use super::troubled::Trouble;
use crate::{Projection, ProjectionState, StopCause, WaitError};

fn paid(times: usize) -> Vec<AccountEvent> {
    vec![AccountEvent::Paid(1); times]
}

pub(super) async fn a_wait_for_a_position_reads_its_own_writes(shop: Fixture) {
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    for n in 1..=20 {
        let position = shop.append("a", paid(1)).await;
        views.wait_for(position, shop.soon()).await.unwrap();
        assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", n)]));
        assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", n)]));
    }
}

#[tokio::test(start_paused = true)]
async fn new_events_wake_the_runner_at_once() {
    let shop = Fixture::new();
    let views = shop.start().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    let position = shop.append("a", paid(1)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    // Time is paused: it moves only when nobody can go on without a timer.
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// The last page was read ahead before the append; the announcement came while the page before it was committed.
#[tokio::test(start_paused = true)]
async fn an_append_behind_a_page_that_was_read_ahead_is_applied_at_once() {
    let shop = Fixture::new();
    shop.append("a", paid(10_000)).await;
    shop.append("a", paid(1)).await;
    let held = shop.models.hold_commits().await;
    let views = shop.start().await;
    // The first page is at its commit by then, and the last one is read.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let last = shop.append("b", paid(1)).await;
    let began = Instant::now();
    drop(held);
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "time is paused: nobody waited for a timer");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 10_001), ("b", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_says_how_far_each_has_got() {
    let shop = Fixture::new();
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    let position = shop.append("a", paid(2)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    let error = views.wait_for(Position::new(9).unwrap(), shop.soon()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "after 3s not every projection has reached position 9: `accounts` is at 2, `counts` is at 2; wait again, or answer \
         from what is there"
    );
}

pub(super) async fn an_event_that_cannot_be_applied_stops_its_projection_alone_and_a_fix_continues_from_there(
    shop: Fixture,
) {
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    shop.append("a", paid(2)).await;
    shop.append("b", [AccountEvent::Refused]).await;
    let last = shop.append("a", paid(3)).await;
    let stopped = views.stopped().await.unwrap_err();
    assert_eq!(
        said(&stopped),
        "projection `accounts` (version 1) stopped before event `refused` at position 3 (`default/account/b`, version 1): \
         it could not apply the event; fix the fold and start again, then it continues with this event: the domain says no"
    );
    views.wait_for_one::<Counts>(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 5), ("b", 1)]));
    let error = views.wait_for(last, shop.soon()).await.unwrap_err();
    assert!(matches!(&error, WaitError::Stopped(stopped) if &*stopped.projection == "accounts"), "{error}");
    views.wait_for(Position::new(2).unwrap(), shop.soon()).await.expect("everything before the event is applied");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 2)]), "nothing of the event, all before it");
    assert_eq!(shop.position::<Accounts>().await, 2);
    views.close().await;

    // Without a fix it stops at the same event again.
    let views = shop.start().await;
    let again = views.stopped().await.unwrap_err();
    assert_eq!(again.event, stopped.event);
    views.close().await;

    let views = shop.projections().with(Fixed).with(Counts).start().await.unwrap();
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 5)]));
    assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 5), ("b", 1)]), "and nothing is applied twice");
}

pub(super) async fn a_panic_stops_its_projection_alone(shop: Fixture) {
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    let position = shop.append("a", [AccountEvent::Panicking]).await;
    let stopped = views.stopped().await.unwrap_err();
    assert!(matches!(&*stopped.cause, StopCause::Panicked(text) if text == "the fold has a fault"), "{stopped:?}");
    views.wait_for_one::<Counts>(position, shop.soon()).await.unwrap();
    assert_eq!(not_running(&views), ["accounts".to_owned()].into());
}

pub(super) async fn an_unreadable_event_of_a_wanted_name_stops_and_others_are_not_even_looked_at(shop: Fixture) {
    let views = shop.start().await;
    shop.append_raw("a", "somebody.elses", "\"nonsense\"").await;
    let readable = shop.append("a", paid(1)).await;
    views.wait_for(readable, shop.soon()).await.unwrap();
    shop.append_raw("a", "paid", "\"nonsense\"").await;
    let stopped = views.stopped().await.unwrap_err();
    assert!(matches!(&*stopped.cause, StopCause::Read(_)), "{stopped:?}");
    let said = said(&stopped);
    assert!(said.contains("before event `paid` at position 3"), "{said}");
    assert_eq!(shop.position::<Accounts>().await, 2);
}

pub(super) async fn a_projection_of_one_tenant_sees_no_other(shop: Fixture) {
    let north = Tenant::new("north").unwrap();
    let views = shop.projections().with(OfTenant(north.clone())).with(Counts).start().await.unwrap();
    shop.append("a", paid(1)).await;
    shop.append_of(north.clone(), "a", paid(2)).await;
    let last = shop.append("a", [AccountEvent::Refused]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<OfTenant>().await, pairs(&[("a", 2)]));
    assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 4)]));
    // Not even one that nobody could read.
    let last = shop.append_raw("a", "paid", "\"nonsense\"").await;
    views.wait_for_one::<OfTenant>(last, shop.soon()).await.unwrap();
    assert_eq!(not_running(&views), ["counts".to_owned()].into());
}

pub(super) async fn passing_faults_of_the_database_are_waited_out_and_nothing_is_applied_twice(shop: Fixture) {
    let views = shop.start().await;
    let position = shop.append("a", paid(1)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    let trouble = [Some(Trouble::Passing), Some(Trouble::Unanswered), Some(Trouble::Passing)];
    shop.models.trouble_commits(trouble);
    shop.models.trouble_loads(trouble);
    let position = shop.append("a", paid(3)).await;
    views.wait_for(position, Duration::from_secs(20)).await.unwrap();
    until_at(&views, position).await;
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 4)]));
    let status = &views.status()[0];
    assert!(matches!(status.state, ProjectionState::Live), "{status:?}");
    assert_eq!(status.applied, 4);
}

#[tokio::test(start_paused = true)]
async fn who_waits_learns_what_holds_a_projection_up() {
    let shop = Fixture::new();
    let views = shop.start().await;
    shop.models.trouble_commits(vec![Some(Trouble::Passing); 100]);
    let position = shop.append("a", paid(1)).await;
    let error = views.wait_for(position, shop.soon()).await.unwrap_err().to_string();
    assert!(error.contains("`accounts` is at 0 (retrying: the disk is missing)"), "{error}");
}

pub(super) async fn what_the_database_refuses_stops_its_projection_alone(shop: Fixture) {
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    shop.models.trouble_commits([Some(Trouble::Refused("accounts"))]);
    let position = shop.append("a", paid(1)).await;
    views.wait_for_one::<Counts>(position, shop.soon()).await.unwrap();
    let stopped = views.stopped().await.unwrap_err();
    assert_eq!(
        said(&stopped),
        "projection `accounts` (version 1) stopped at position 0: the database of the read models refused; \
         fix what it says and start again: the disk is missing"
    );
    assert!(shop.rows::<Accounts>().await.is_empty());
}

/// Fails every call of the event store once, one run after the other.
#[tokio::test(start_paused = true)]
async fn a_failing_call_of_the_store_is_made_good_whichever_it_is() {
    for fault in [Fault::Before, Fault::After] {
        for call in 1.. {
            let shop = Fixture::new();
            shop.append("a", paid(2)).await;
            let store = FaultyStore::new(shop.store.clone());
            store.fail_call(call, fault);
            let views = shop.over(store.clone()).with(Accounts).with(Counts).start().await.unwrap();
            views.wait_for(Position::new(2).unwrap(), shop.soon()).await.unwrap();
            let last = shop.append("b", paid(3)).await;
            views.wait_for(last, shop.soon()).await.unwrap();
            assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 2), ("b", 3)]), "call {call} failed");
            views.close().await;
            if store.calls() < call {
                assert!(call > 2, "the runner must have read");
                break;
            }
        }
    }
}

/// After a fault the log may be another one. Rows built from two logs would be worthless.
#[tokio::test(start_paused = true)]
async fn a_log_that_was_replaced_while_it_was_out_of_reach_stops_the_projections() {
    let shop = Fixture::new();
    let other = Fixture::new();
    shop.append("a", paid(3)).await;
    other.append("z", paid(5)).await;
    let store = super::swapped::Swapped::new(shop.store.clone(), other.store.clone());
    let views = shop.over(store.clone()).with(Accounts).start().await.unwrap();
    views.wait_for(Position::new(3).unwrap(), shop.soon()).await.unwrap();
    store.swap();
    let stopped = views.stopped().await.unwrap_err();
    assert!(said(&stopped).contains("is not an event of this store"), "{}", said(&stopped));
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 3)]));
}

/// Two projections share a reader, which continues from where the last one is. That this event is still there says nothing
/// of the one behind which the other is.
#[tokio::test(start_paused = true)]
async fn a_projection_whose_event_a_failover_has_lost_stops_though_another_one_can_continue() {
    let [shop, other] = Fixture::new().with_two_histories();
    let last = shop.append("a", paid(3)).await;
    other.append("z", paid(5)).await;
    let views = shop.projections().with(Counts).start().await.unwrap();
    views.wait_for(last, shop.soon()).await.unwrap();
    views.close().await;

    let store = super::swapped::Swapped::new(shop.store.clone(), other.store.clone());
    let views = shop.over(store.clone()).with(Accounts).with(Counts).start().await.unwrap();
    // They have not read yet.
    store.swap_unnoticed();
    let stopped = tokio::time::timeout(shop.soon(), views.stopped()).await.expect("it is noticed").unwrap_err();
    assert_eq!(&*stopped.projection, Counts::NAME);
    assert!(said(&stopped).contains("is not an event of this store"), "{}", said(&stopped));
    assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 3)]));
    while shop.position::<Accounts>().await < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("z", 5)]));
    views.close().await;
}

pub(super) async fn two_runners_of_one_projection_apply_every_event_once(shop: Fixture) {
    let first = shop.start().await;
    let second = shop.start().await;
    let mut last = Position::START;
    for n in 0..200 {
        last = shop.append(&format!("a{}", n % 7), paid(1 + n % 3)).await;
        if n % 5 == 0 {
            tokio::task::yield_now().await;
        }
    }
    first.wait_for(last, shop.soon()).await.unwrap();
    second.wait_for(last, shop.soon()).await.unwrap();
    until_at(&first, last).await;
    until_at(&second, last).await;
    let cents: i64 = shop.rows::<Accounts>().await.iter().map(|(_, cents)| cents).sum();
    assert_eq!(cents, last.get());
    let applied: u64 = [&first, &second].iter().map(|views| views.status()[0].applied).sum();
    assert_eq!(applied, last.get() as u64);
}

pub(super) async fn a_checkpoint_that_somebody_removed_stops_the_projection(shop: Fixture) {
    let views = shop.start().await;
    let position = shop.append("a", paid(1)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    shop.set_checkpoint::<Accounts>(None).await;
    shop.append("a", paid(1)).await;
    let stopped = views.stopped().await.unwrap_err();
    assert!(matches!(&*stopped.cause, StopCause::CheckpointRemoved), "{stopped:?}");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 1)]), "no row without its checkpoint");
}

pub(super) async fn a_checkpoint_that_another_process_moved_is_followed(shop: Fixture) {
    let views = shop.start().await;
    let first = shop.append("a", paid(1)).await;
    views.wait_for(first, shop.soon()).await.unwrap();
    views.close().await;
    let position = shop.append("a", paid(3)).await;
    let head = annals_eventstore::EventStore::head(&shop.store).await.unwrap();
    // Between the start and the first commit another process does the work.
    let held = shop.models.hold_commits().await;
    let views = shop.start().await;
    shop.set_checkpoint::<Accounts>(Some(at(head, 4))).await;
    drop(held);
    views.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 1)]), "its rows are not ours to write");
    assert_eq!(views.status()[0].applied, 0);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_concerns_it_a_projection_gets_on_without_a_commit_per_look() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let mut last = Position::START;
    for _ in 0..50 {
        last = shop.append_raw("x", "somebody.elses", "1").await;
        views.wait_for(last, shop.soon()).await.unwrap();
    }
    assert_eq!(shop.models.tried(), 0);
    assert_eq!(shop.position::<Accounts>().await, 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shop.position::<Accounts>().await, last.get(), "the stored checkpoint follows within a second or two");
    assert_eq!(shop.models.tried(), 1);
    let last = shop.append_raw("x", "somebody.elses", "1").await;
    views.wait_for(last, shop.soon()).await.unwrap();
    views.close().await;
    assert_eq!(shop.position::<Accounts>().await, last.get(), "or when it is closed");
}

#[tokio::test(start_paused = true)]
async fn a_long_log_of_others_events_is_not_read_again_after_a_crash() {
    let shop = Fixture::new();
    for _ in 0..11 {
        let opened = (0..10_000).map(|_| AccountEvent::Opened);
        shop.append_of(Tenant::new("south").unwrap(), "x", opened).await;
    }
    let views = shop.projections().with(OfTenant(Tenant::default())).start().await.unwrap();
    views.wait_for(Position::new(110_000).unwrap(), shop.soon()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Long before the time after which a checkpoint is stored anyway.
    assert!(shop.position::<OfTenant>().await > 100_000);
}

#[tokio::test(start_paused = true)]
async fn an_idle_runner_commits_nothing() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let position = shop.append("a", paid(1)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    let committed = shop.models.committed();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(shop.models.committed(), committed);
}

pub(super) async fn events_of_a_long_log_are_written_once_a_row_and_page(shop: Fixture) {
    for _ in 0..5 {
        shop.append("a", paid(5_000)).await;
    }
    let views = shop.start().await;
    views.wait_for(Position::new(25_000).unwrap(), shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 25_000)]));
    assert!(shop.models.committed() <= 4, "{} commits", shop.models.committed());
}

#[tokio::test(start_paused = true)]
async fn closing_ends_everything_and_says_so() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let clone = views.clone();
    let waits = tokio::spawn(async move { clone.wait_for(Position::new(5).unwrap(), Duration::from_secs(60)).await });
    let position = shop.append("a", paid(1)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    views.close().await;
    views.close().await;
    let error = waits.await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the projections were closed before position 5: `accounts` is at 1; start them again"
    );
    assert!(matches!(views.status()[0].state, ProjectionState::Closed));
    views.stopped().await.expect("being closed is no error");
    shop.append("a", paid(1)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 1)]), "nobody applies it");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_tasks() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let position = shop.append("a", paid(1)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    drop(views);
    tokio::time::sleep(Duration::from_secs(1)).await;
    shop.append("a", paid(1)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 1)]));
}

#[tokio::test(start_paused = true)]
async fn closing_while_the_database_is_out_of_reach_does_not_hang() {
    let shop = Fixture::new();
    let views = shop.start().await;
    shop.models.trouble_commits(vec![Some(Trouble::Passing); 1_000]);
    shop.append("a", paid(1)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    views.close().await;
    assert_eq!(shop.position::<Accounts>().await, 0);
    assert!(shop.rows::<Accounts>().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_projection_that_was_not_started_names_those_that_were() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let error = views.wait_for_one::<Counts>(Position::START, shop.soon()).await.unwrap_err();
    assert_eq!(error.to_string(), "no projection is called `counts`; started are `accounts`; add it by `with`");
}
