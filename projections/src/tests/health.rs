//! What a supervisor is told: failed is what needs somebody, and nothing else.

use std::time::Duration;

use annals_eventstore::{EventStore, Position};

use super::accounts::{AccountEvent, Accounts};
use super::dead_letters::{Ordered, letters, poison};
use super::fixture::{Counts, Fixture, until_at};
use super::streams::stream;
use super::troubled::Trouble;
use crate::{ProjectionHealth, ProjectionState, Projections, Retried, Verdict};

const LEASE: Duration = Duration::from_millis(300);

async fn start(shop: &Fixture) -> Projections {
    shop.projections().with(Accounts).lease(LEASE).start().await.unwrap()
}

async fn paid(shop: &Fixture) -> Position {
    shop.append("a", [AccountEvent::Paid(1)]).await
}

async fn health(views: &Projections) -> ProjectionHealth {
    views.health().await.remove(0)
}

async fn until(views: &Projections, holds: impl Fn(&Verdict) -> bool) -> Verdict {
    for _ in 0..1_000 {
        let verdict = health(views).await.verdict;
        if holds(&verdict) {
            return verdict;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came: {:?}", health(views).await);
}

/// The reason of a failure, which there is.
fn why(health: &ProjectionHealth) -> &str {
    match &health.verdict {
        Verdict::Failed { why } => why,
        other => panic!("it has not failed: {other:?}"),
    }
}

async fn minutes(of: u64) {
    tokio::time::sleep(Duration::from_secs(of * 60)).await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_events_do_not_occur_is_healthy_and_not_behind() {
    let shop = Fixture::new();
    let views = start(&shop).await;
    assert_eq!(until(&views, |verdict| *verdict == Verdict::Healthy).await, Verdict::Healthy);
    for _ in 0..3 {
        let last = shop.append_raw("b", "somebody.else", "{}").await;
        until_at(&views, last).await;
        minutes(20).await;
        let health = health(&views).await;
        assert_eq!((&health.verdict, health.behind, health.time_left), (&Verdict::Healthy, Some(0), None));
        assert_eq!(health.to_string(), format!("`accounts` version 1: healthy (at {last})"));
    }
    // An event that has just come after a long time without any does not look like a time without progress.
    let held = shop.models.hold_commits().await;
    paid(&shop).await;
    assert_eq!(health(&views).await.verdict, Verdict::Healthy);
    drop(held);
    views.close().await;
    assert!(why(&health(&views).await).contains("closed"));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_behind_and_moves_has_not_failed_and_one_that_does_not_move_has() {
    let shop = Fixture::new();
    paid(&shop).await;
    let mut held = shop.models.hold_commits().await;
    let views = start(&shop).await;
    let mut last = None;
    for round in 1..=4 {
        let now = health(&views).await;
        assert!(!now.verdict.is_failed(), "round {round}: {now}");
        assert_eq!(now.time_left.is_some(), round > 1, "{now}");
        tokio::time::sleep(Duration::from_secs(50)).await;
        let now = health(&views).await;
        assert!(!now.verdict.is_failed() && now.behind == Some(1), "round {round}: {now}");
        if round == 1 {
            assert_eq!(now.verdict, Verdict::CatchingUp);
        }
        drop(held);
        until_at(&views, shop.store.head().await.unwrap().position).await;
        held = shop.models.hold_commits().await;
        last = Some(paid(&shop).await);
    }
    assert!(!health(&views).await.verdict.is_failed());
    minutes(1).await;
    let failed = health(&views).await;
    assert!(why(&failed).starts_with("it comes no further since "), "{failed}");
    assert!(why(&failed).contains("locks held on its table"), "{failed}");
    drop(held);
    until_at(&views, last.unwrap()).await;
    assert_eq!(health(&views).await.verdict, Verdict::Healthy);
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_somebody_has_paused_has_not_failed_however_long() {
    let shop = Fixture::new();
    let views = start(&shop).await;
    views.pause::<Accounts>("the backup").await.unwrap();
    let last = paid(&shop).await;
    for _ in 0..3 {
        until(&views, |verdict| matches!(verdict, Verdict::Paused { by, .. } if **by == *"the backup")).await;
        minutes(10).await;
    }
    assert_eq!(health(&views).await.behind, Some(1));
    assert!(views.resume::<Accounts>().await.unwrap());
    // The time of the pause does not count as one without progress.
    until_not_paused(&views).await;
    assert!(!health(&views).await.verdict.is_failed());
    until_at(&views, last).await;
    assert_eq!(until(&views, |verdict| *verdict == Verdict::Healthy).await, Verdict::Healthy);
    views.close().await;
}

async fn until_not_paused(views: &Projections) {
    while matches!(views.status()[0].state, ProjectionState::Paused { .. }) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_has_stopped_has_failed_and_names_the_event_and_the_others_have_not() {
    let shop = Fixture::new();
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    let bad = shop.append("a", [AccountEvent::Refused]).await;
    let stopped = views.stopped().await.unwrap_err();
    let all = views.health().await;
    assert!(why(&all[0]).contains(&stopped.to_string()), "{}", all[0]);
    assert!(why(&all[0]).contains(&bad.to_string()), "{}", all[0]);
    assert!(!all[1].verdict.is_failed(), "{}", all[1]);
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn one_with_dead_letters_is_degraded_until_they_are_retried() {
    let shop = Fixture::new();
    let start = async |fixed| shop.projections().with(letters(fixed)).lease(LEASE).start().await.unwrap();
    let views = start(false).await;
    for id in ["a", "b"] {
        poison(&shop, id).await;
    }
    assert_eq!(
        until(&views, |verdict| *verdict == Verdict::Degraded { parked: 2 }).await.to_string(),
        "degraded: 2 streams are parked"
    );
    views.close().await;
    let views = start(true).await;
    assert_eq!(Verdict::Degraded { parked: 1 }.to_string(), "degraded: 1 stream is parked");
    for (id, left) in [("a", Verdict::Degraded { parked: 1 }), ("b", Verdict::Healthy)] {
        assert!(matches!(views.retry::<Ordered>(&stream(id)).await.unwrap(), Retried::Reopened { .. }));
        until(&views, |verdict| *verdict == left).await;
    }
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_no_process_runs_has_failed_after_three_leases_and_says_since_when() {
    let shop = Fixture::new();
    shop.models.claim_nothing(true);
    let views = shop.projections().with(letters(true)).lease(LEASE).start().await.unwrap();
    tokio::time::sleep(LEASE * 3 - Duration::from_millis(1)).await;
    assert_eq!(health(&views).await.verdict, Verdict::Healthy);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let failed = health(&views).await;
    assert!(why(&failed).contains("slot 2: no process runs it since "), "{failed}");
    shop.models.claim_nothing(false);
    until(&views, |verdict| *verdict == Verdict::Healthy).await;
    // What another process runs is in order.
    let second = start_second(&shop).await;
    assert!(matches!(&second.status()[0].state, ProjectionState::Standby { owner: Some(_) }));
    for _ in 0..3 {
        minutes(1).await;
        assert_eq!(health(&second).await.verdict, Verdict::Healthy);
    }
    second.close().await;
    views.close().await;
}

async fn start_second(shop: &Fixture) -> Projections {
    let other = shop.beside();
    other.models.claim_nothing(true);
    other.projections().with(letters(true)).lease(LEASE).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_may_pass_is_a_failure_after_a_minute() {
    let shop = Fixture::new();
    let views = start(&shop).await;
    shop.models.trouble_commits(vec![Some(Trouble::Passing); 100_000]);
    paid(&shop).await;
    until(&views, |verdict| matches!(verdict, Verdict::Retrying { fault } if fault.contains("the disk is missing")))
        .await;
    minutes(2).await;
    health(&views).await;
    let failed = until(&views, Verdict::is_failed).await;
    assert!(failed.to_string().contains("the disk is missing"), "{failed}");
    views.close().await;
}
