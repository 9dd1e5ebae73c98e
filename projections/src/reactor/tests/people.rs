//! What people see of reactors, and do with them, in whichever process one runs.

use std::time::Duration;

use annals_eventstore::{StreamId, Tenant};

use super::mailer::{Act, Mailer, paid, position, start, until, until_at};
use crate::tests::accounts::{AccountEvent, Accounts};
use crate::tests::fixture::Fixture;
use crate::{ControlError, ProjectionHealth, Projections, Reactor, ReactorState, Verdict};

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "account", id).unwrap()
}

async fn health(views: &Projections) -> ProjectionHealth {
    views.health().await.pop().unwrap()
}

fn is_standby(views: &Projections) -> bool {
    matches!(&views.reactors()[0].state, ReactorState::Standby { owner: Some(_) })
}

async fn two(shop: &Fixture, mailer: &Mailer) -> [Projections; 2] {
    let start = async || shop.projections().react(mailer.clone().dead_letter()).start().await.unwrap();
    let first = start().await;
    until("it runs", || !matches!(first.reactors()[0].state, ReactorState::Standby { .. })).await;
    let second = start().await;
    until("the other stands by", || is_standby(&second)).await;
    [first, second]
}

/// Requests of an admin page come to any process.
#[tokio::test(start_paused = true)]
async fn parked_streams_are_listed_and_retried_in_a_process_that_does_not_run_the_reactor() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.nth == 1 && call.version == 2 { Act::Permanent } else { Act::Done });
    let [first, second] = two(&shop, &mailer).await;
    let last = shop.append("a", paid(3)).await;
    until_at(&first, last).await;
    let parked = second.parked::<Mailer>().await.unwrap();
    assert_eq!((parked.len(), parked[0].event.position), (1, position(2)));
    assert_eq!(parked, first.parked::<Mailer>().await.unwrap());
    assert_eq!((second.reactors()[0].parked, first.reactors()[0].parked), (0, 1), "of what runs here");
    assert!(!second.retry_parked::<Mailer>(&stream("b")).await.unwrap(), "that one is not parked");

    assert!(second.retry_parked::<Mailer>(&stream("a")).await.unwrap());
    until("it is retried", || first.reactors()[0].parked == 0).await;
    assert!(is_standby(&second), "the reactor has stayed where it was");
    assert_eq!(mailer.calls_of("a"), [1, 2, 2, 3]);
    assert_eq!(second.parked::<Mailer>().await.unwrap(), []);
    first.close().await;
    second.close().await;
}

/// What was asked for while no process ran the reactor is not forgotten, and is not done twice.
#[tokio::test(start_paused = true)]
async fn a_retry_that_was_asked_for_is_begun_by_the_next_process_once() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.version == 2 { Act::Permanent } else { Act::Done });
    let [first, second] = two(&shop, &mailer).await;
    let last = shop.append("a", paid(3)).await;
    until_at(&first, last).await;
    first.close().await;
    second.close().await;
    assert!(second.retry_parked::<Mailer>(&stream("a")).await.unwrap(), "the database is open still");
    let third = start(&shop, &mailer).await;
    until("it is retried", || mailer.calls_of("a").len() == 3).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(mailer.calls_of("a"), [1, 2, 2], "once");
    assert_eq!(third.parked::<Mailer>().await.unwrap().len(), 1);
    third.close().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_stopped_has_failed_and_says_why() {
    let shop = Fixture::new();
    let views = start(&shop, &Mailer::new(|_| Act::Permanent)).await;
    shop.append("a", paid(1)).await;
    let stopped = views.stopped().await.unwrap_err();
    let failed = health(&views).await;
    assert!(failed.verdict.is_failed() && failed.to_string().contains(&stopped.to_string()), "{failed}");
    assert!(failed.to_string().starts_with("reactor `mailer`: failed: "), "{failed}");
    views.close().await;
    assert!(health(&views).await.verdict.is_failed());
    let other = shop.projections().with(Accounts).start().await.unwrap();
    let unknown = other.parked::<Mailer>().await.unwrap_err();
    assert!(matches!(unknown, ControlError::UnknownReactor { name, .. } if name == Mailer::NAME), "{unknown}");
    other.close().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_get_past_an_event_has_failed_after_a_minute() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.stream == "bad" { Act::Permanent } else { Act::Transient });
    let views = shop.projections().react(mailer.dead_letter()).start().await.unwrap();
    let last = shop.append("bad", paid(1)).await;
    until_at(&views, last).await;
    assert_eq!(health(&views).await.verdict, Verdict::Degraded { parked: 1 });

    let down = shop.append("down", paid(1)).await;
    until("it is tried again", || views.reactors()[0].retrying == 1).await;
    assert!(!health(&views).await.verdict.is_failed());
    tokio::time::sleep(Duration::from_secs(61)).await;
    until("it waits for the next try", || views.reactors()[0].retrying == 1).await;
    let failed = health(&views).await;
    assert!(failed.verdict.is_failed() && failed.to_string().contains(&format!("at position {down} ")), "{failed}");
    views.close().await;
}

/// Alerts hear of each stop once, also of those behind the first.
#[tokio::test(start_paused = true)]
async fn every_stop_is_given_once_and_the_end_behind_them() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.stream == "m" { Act::Permanent } else { Act::Done });
    let views = shop.projections().with(Accounts).react(mailer).start().await.unwrap();
    let mut stops = views.stops();
    let mail = shop.append("m", paid(1)).await;
    let first = stops.next().await.unwrap();
    assert_eq!((&*first.projection, first.event.unwrap().position), ("mailer", mail));
    let nothing = tokio::time::timeout(Duration::from_secs(60), stops.next()).await;
    assert!(nothing.is_err(), "it was given");
    let refused = shop.append("a", [AccountEvent::Refused]).await;
    let second = stops.next().await.unwrap();
    assert_eq!((&*second.projection, second.event.unwrap().position), ("accounts", refused));
    assert_eq!(&*views.stops().next().await.unwrap().projection, "accounts", "one who comes later gets all");
    views.close().await;
    assert!(stops.next().await.is_none());
}
