//! Several processes, simulated by runners over the same read models: who runs what, who takes over, and who may not write.

use std::time::Duration;

use annals_eventstore::{IdSource, Position, TimeOrderedIds};

use super::accounts::{AccountEvent, Accounts};
use super::fixture::{Counts, Fixed, Fixture, model, pairs};
use super::streams::PerAccount;
use super::troubled::Trouble;
use crate::database::contract::unit;
use crate::database::{Runner, UnitId};
use crate::error::{StartError, StopCause};
use crate::{ControlError, ProjectionState, ProjectionStatus, Projections, StreamProjection, WaitError};

const LEASE: Duration = Duration::from_millis(300);

async fn start(shop: &Fixture, name: &str) -> Projections {
    shop.projections().with(Accounts).with(Counts).lease(LEASE).runner_name(name).start().await.unwrap()
}

/// PostgreSQL cannot store it, and so all projections stopped at their first lease.
#[tokio::test]
async fn a_name_of_a_runner_that_cannot_be_stored_or_printed_is_refused() {
    let shop = Fixture::new();
    for name in ["", "a\0b", "\u{1b}[31mred", &"x".repeat(201)] {
        let refused = shop.projections().with(Accounts).runner_name(name).start().await.err();
        let is_named = matches!(&refused, Some(StartError::Invalid(invalid)) if invalid.field == "runner_name");
        assert!(is_named, "{name:?}: {refused:?}");
    }
}

fn paid(cents: i64) -> [AccountEvent; 1] {
    [AccountEvent::Paid(cents)]
}

fn owner(status: &ProjectionStatus) -> Option<&str> {
    match &status.state {
        ProjectionState::Standby { owner } => owner.as_deref(),
        _ => None,
    }
}

fn runs(views: &Projections) -> Vec<bool> {
    views.status().iter().map(|s| matches!(s.state, ProjectionState::Live | ProjectionState::CatchingUp)).collect()
}

/// Waits for what a few surveys bring about.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came: {what}");
}

pub(super) async fn processes_share_the_projections_and_take_over_from_each_other(shop: Fixture) {
    let other = shop.beside();
    let first = start(&shop, "first").await;
    assert_eq!(runs(&first), [true, true]);
    let second = start(&other, "second").await;
    until("each has one", || runs(&first) != [true, true] && runs(&first) != runs(&second)).await;
    until("each names the other", || {
        let named = |views: &Projections| views.status().iter().find_map(|s| owner(s).map(str::to_owned));
        named(&first).as_deref() == Some("second") && named(&second).as_deref() == Some("first")
    })
    .await;
    // Both see everything, also what the other one applies.
    let last = shop.append("a", paid(1)).await;
    first.wait_for(last, shop.soon()).await.unwrap();
    second.wait_for(last, shop.soon()).await.unwrap();
    // Nobody waits for a lease to end that was given up.
    second.close().await;
    let last = shop.append("a", paid(2)).await;
    first.wait_for(last, shop.soon()).await.unwrap();
    until("the first has both", || runs(&first) == [true, true]).await;
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 3)]));
    assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 2)]));
    first.close().await;
}

/// The owner hangs in its commit for longer than its lease; another goes on; then the first wakes up.
pub(super) async fn an_owner_that_hangs_past_its_lease_writes_nothing_more(shop: Fixture) {
    let views = start(&shop, "first").await;
    let position = shop.append("a", paid(1)).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    let held = shop.models.hang().await;
    let begun = shop.models.begun();
    shop.append("a", [AccountEvent::Paid(2), AccountEvent::Moved { to: "b".to_owned(), cents: 3 }]).await;
    until("the first wants to commit", || shop.models.begun() > begun).await;

    let other = shop.beside();
    let second = start(&other, "second").await;
    let last = shop.append("a", paid(4)).await;
    second.wait_for(last, shop.soon()).await.unwrap();
    let rows = [other.rows::<Accounts>().await, other.rows::<Counts>().await];
    drop(held);
    let last = shop.append("c", paid(1)).await;
    for views in [&views, &second] {
        views.wait_for(last, shop.soon()).await.unwrap();
    }
    let [accounts, counts] = rows;
    assert_eq!(shop.rows::<Accounts>().await, [accounts, pairs(&[("c", 1)])].concat(), "nothing twice");
    assert_eq!(shop.rows::<Counts>().await, [counts, pairs(&[("c", 1)])].concat());
    views.close().await;
    second.close().await;
}

/// Slots that are claimed one after the other would each read the log by themselves.
pub(super) async fn slots_that_come_back_together_are_claimed_together_and_share_pages_and_commits(shop: Fixture) {
    let views = shop.projections().with(PerAccount::default().slots(8)).lease(LEASE).start().await.unwrap();
    let is = |wanted: fn(&ProjectionState) -> bool| {
        views.status()[0].slots.iter().filter(|slot| wanted(&slot.state)).count() == 8
    };
    until("all run", || is(|state| state.is_running())).await;
    views.pause::<PerAccount>("the backup").await.unwrap();
    until("all are paused", || is(|state| matches!(state, ProjectionState::Paused { .. }))).await;
    let mut last = Position::START;
    for account in 0..40 {
        last = shop.append(&format!("a{account}"), paid(1)).await;
    }
    let (claims, committed) = (shop.models.claims().len(), shop.models.committed());
    views.resume::<PerAccount>().await.unwrap();
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!((&shop.models.claims()[claims..], shop.models.committed() - committed), (&[8][..], 1));
    assert_eq!(shop.rows::<PerAccount>().await.len(), 40);
    views.close().await;
}

pub(super) async fn a_pause_ends_all_work_at_once_in_every_process(shop: Fixture) {
    let other = shop.beside();
    let first = start(&shop, "first").await;
    let second = start(&other, "second").await;
    let before = shop.append("a", paid(1)).await;
    first.wait_for(before, shop.soon()).await.unwrap();

    // The process that runs it is in the middle of a commit.
    let (held, held_too) = (shop.models.hold_commits().await, other.models.hold_commits().await);
    shop.append("a", paid(2)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    second.pause::<Accounts>("the backup").await.unwrap();
    drop((held, held_too));
    let last = shop.append("a", paid(4)).await;
    first.wait_for_one::<Counts>(last, shop.soon()).await.expect("others go on");
    first.wait_for_one_token::<Counts>(&first.token(last), shop.soon()).await.expect("and so do requests for them");
    assert!(matches!(first.wait_for_token(&first.token(last), LEASE).await, Err(WaitError::TimedOut { .. })));
    until("it says so", || {
        [&first, &second].iter().all(|views| matches!(&views.status()[0].state, ProjectionState::Paused { .. }))
    })
    .await;
    let third = start(&shop.beside(), "third").await;
    tokio::time::sleep(LEASE * 3).await;
    let paused = first.wait_for_one::<Accounts>(last, LEASE).await.unwrap_err();
    assert!(matches!(&paused, WaitError::TimedOut { .. }), "{paused:?}");
    assert!(paused.to_string().contains("paused by `the backup` since "), "{paused}");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 1)]));
    assert_eq!(shop.position::<Accounts>().await, before.get());

    assert!(third.resume::<Accounts>().await.unwrap());
    assert!(!third.resume::<Accounts>().await.unwrap());
    for views in [&first, &second, &third] {
        views.wait_for(last, shop.soon()).await.unwrap();
    }
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 7)]));
    let refused = first.pause::<Accounts>("a\nb").await.unwrap_err();
    assert!(matches!(refused, ControlError::Invalid(_)), "{refused:?}");
    let unknown = first.pause::<super::fixture::Doubled>("me").await;
    assert!(unknown.is_ok(), "it has the name of one that runs");
    for views in [first, second, third] {
        views.close().await;
    }
}

/// A projection that has stopped in one process goes on in another, whose build can apply the event; and in the first one when it
/// is started again.
pub(super) async fn what_has_stopped_in_one_process_is_left_to_others_and_started_again_on_request(shop: Fixture) {
    let first = start(&shop, "first").await;
    let good = shop.append("a", paid(1)).await;
    first.wait_for(good, shop.soon()).await.unwrap();
    let bad = shop.append("a", [AccountEvent::Refused]).await;
    let stopped = first.stopped().await.unwrap_err();
    assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad));
    assert!(!first.start_again::<Counts>().await.unwrap(), "it has not stopped");

    let fixed = shop.beside();
    let second = fixed.projections().with(Fixed).lease(LEASE).runner_name("second").start().await.unwrap();
    let last = shop.append("a", paid(2)).await;
    second.wait_for(last, shop.soon()).await.expect("it gets past the event");
    assert!(first.start_again::<Accounts>().await.unwrap());
    first.wait_for(last, shop.soon()).await.expect("the event is behind it");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 3)]));
    second.close().await;
    let last = shop.append("a", paid(4)).await;
    first.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 7)]));
    first.close().await;
    assert!(matches!(first.start_again::<Accounts>().await, Ok(false)));
}

/// What processes leave behind that end in the middle of applying an event, so many times.
pub(super) async fn die_applying(shop: &Fixture, unit: UnitId, position: Position, times: u32) {
    let models = shop.handle();
    for n in 1..=times {
        let runs = vec![(unit.projection, unit.version)];
        let runner = Runner { id: TimeOrderedIds.next_id(), name: format!("dies {n}"), runs, stopped: Vec::new() };
        let claimed = loop {
            match models.claim(&runner, &[unit], Duration::from_millis(10)).await.unwrap().pop() {
                Some(claimed) => break claimed,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!(claimed.suspect, n > 1, "an owner that ends its lease leaves no suspicion");
        assert_eq!(models.begin_try(unit, claimed.epoch, position).await.unwrap(), Some(n));
        assert_eq!(models.begin_try(unit, claimed.epoch - 1, position).await.unwrap(), None);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// An event that ends every process which applies it stops its projection at last, whichever process comes next, and alone.
pub(super) async fn an_event_that_ends_processes_stops_its_projection_at_last(shop: Fixture) {
    let views = start(&shop, "first").await;
    let good = shop.append("a", paid(1)).await;
    views.wait_for(good, shop.soon()).await.unwrap();
    views.close().await;
    let bad = shop.append("a", paid(2)).await;
    let last = shop.append("b", paid(4)).await;
    let own = unit(&model::<Accounts>());
    die_applying(&shop, own, bad, 4).await;

    // The fifth process ends politely while it could have been the event; the next is the last that tries.
    let views = start(&shop, "second").await;
    views.wait_for(last, shop.soon()).await.expect("it was not the event this time");
    assert_eq!(
        shop.rows::<Accounts>().await,
        pairs(&[("a", 3), ("b", 4)]),
        "each event counts once, though one by one"
    );
    views.close().await;

    let bad = shop.append("a", paid(8)).await;
    let last = shop.append("b", paid(16)).await;
    die_applying(&shop, own, bad, 5).await;
    for name in ["third", "fourth"] {
        let views = start(&shop, name).await;
        let stopped = views.stopped().await.unwrap_err();
        assert!(matches!(&*stopped.cause, StopCause::ProcessEnded(5)), "{stopped:?}");
        assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad));
        views.wait_for_one::<Counts>(last, shop.soon()).await.expect("others go on");
        if name == "fourth" {
            assert!(views.start_again::<Accounts>().await.unwrap());
            views.wait_for(last, shop.soon()).await.expect("it was fixed");
        }
        views.close().await;
    }
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 11), ("b", 20)]));
}

/// If the process ends now, only one event can have ended it, also where several projections and slots are applied side by side.
pub(super) async fn after_a_process_has_ended_one_event_at_a_time_is_tried_in_all_projections(shop: Fixture) {
    let views = start(&shop, "first").await;
    let good = shop.append("a", paid(1)).await;
    views.wait_for(good, shop.soon()).await.unwrap();
    views.close().await;
    let units = [unit(&model::<Accounts>()), unit(&model::<Counts>())];
    let models = shop.handle();
    let runs = units.iter().map(|unit| (unit.projection, unit.version)).collect();
    let killed = Runner { id: TimeOrderedIds.next_id(), name: "killed".to_owned(), runs, stopped: Vec::new() };
    assert_eq!(models.claim(&killed, &units, Duration::from_millis(1)).await.unwrap().len(), 2);
    tokio::time::sleep(Duration::from_millis(10)).await;

    let last = shop.append("a", paid(2)).await;
    let (held, before) = (shop.models.hold_commits().await, shop.models.begun());
    let views = start(&shop, "second").await;
    until("an event was applied", || shop.models.begun() > before).await;
    let mut tries = Vec::new();
    for (unit, place) in units.iter().zip(models.places(&units).await.unwrap()) {
        tries.push(models.begin_try(*unit, place.expect("it is there").epoch, last).await.unwrap());
    }
    tries.sort_unstable();
    assert_eq!(tries, [Some(1), Some(2)], "one of them was begun");
    drop(held);
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 3)]));
    views.close().await;
}

/// Where leases cannot be looked at, nothing is claimed. A fault that may pass is waited out; any other stops what does not run.
pub(super) async fn a_database_that_refuses_leases_stops_what_does_not_run_and_says_so(shop: Fixture) {
    shop.models.trouble_surveys([Some(Trouble::Passing)]);
    let views = start(&shop, "first").await;
    assert!(matches!(views.status()[0].state, ProjectionState::Retrying { .. }), "{:?}", views.status());
    let last = shop.append("a", paid(1)).await;
    while !runs(&views).iter().all(|runs| *runs) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    views.wait_for(last, shop.soon()).await.expect("it passes");
    views.close().await;

    shop.models.trouble_surveys([Some(Trouble::Refused(""))]);
    let views = start(&shop, "second").await;
    let stopped = views.stopped().await.unwrap_err();
    assert!(matches!(&*stopped.cause, StopCause::Database(_)), "{stopped:?}");
    assert!(views.start_again::<Accounts>().await.unwrap());
    let last = shop.append("a", paid(2)).await;
    views.wait_for_one::<Accounts>(last, shop.soon()).await.expect("it was fixed");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 3)]));
    views.close().await;
}
