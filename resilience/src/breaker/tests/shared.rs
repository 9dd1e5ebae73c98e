//! The shell around the machine, under paused time.

use tokio::time::{advance, sleep};

use super::*;

fn breaker(settings: BreakerSettings) -> Breaker {
    Breaker::new("payment", settings).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watch_sees_the_end_of_the_open_period_although_nobody_calls() {
    let breaker = breaker(BreakerSettings { open: secs(5), ..settings() });
    let mut watch = breaker.watch();
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(snapshot) = watch.changed().await {
            seen.push(snapshot.state);
        }
        seen
    });
    for _ in 0..10 {
        breaker.admit().unwrap().record(Outcome::Failure);
    }
    sleep(ms(4_900)).await;
    let BreakerSnapshot { state, retry_after, .. } = breaker.snapshot();
    assert_eq!((state, retry_after), (BreakerState::Open, Some(ms(100))));
    for wait in [ms(200), ms(6_900), secs(3_588)] {
        sleep(wait).await;
        let BreakerSnapshot { state, probes_in_flight, .. } = breaker.snapshot();
        assert_eq!((state, probes_in_flight), (BreakerState::HalfOpen, 0));
    }
    sleep(secs(5)).await;
    breaker.admit().unwrap().record(Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    sleep(secs(1)).await;
    breaker.admit().unwrap().record(Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
    sleep(ms(1)).await;
    drop(breaker);
    let seen = seen.await.unwrap();
    assert_eq!(seen, [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed]);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "no task is left behind");
}

#[tokio::test(start_paused = true)]
async fn transitions_are_all_seen_in_order_and_half_open_is_dated_when_it_was_due() {
    let breaker = breaker(BreakerSettings { open: secs(5), ..settings() });
    let mut transitions = breaker.transitions();
    for _ in 0..10 {
        breaker.admit().unwrap().record(Outcome::Failure);
    }
    advance(secs(60)).await;
    for _ in 0..2 {
        breaker.admit().unwrap().record(Outcome::Success);
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let transition = transitions.next().await.unwrap().unwrap();
        seen.push((transition.number, transition.to, transition.at));
    }
    let expected =
        [(1, BreakerState::Open, secs(0)), (2, BreakerState::HalfOpen, secs(5)), (3, BreakerState::Closed, secs(60))];
    assert_eq!(seen, expected);
    drop(breaker);
    assert_eq!(transitions.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_permit_is_abandoned_and_gives_its_probe_back() {
    let breaker = breaker(BreakerSettings { probes: 1, closes_after: 1, ..settings() });
    for _ in 0..10 {
        breaker.admit().unwrap().record(Outcome::Failure);
    }
    advance(secs(30)).await;
    for dropped in 1..=5 {
        let probe = breaker.admit().unwrap();
        assert_eq!(breaker.admit().unwrap_err(), Refused::ProbesTaken);
        drop(probe);
        assert_eq!(breaker.snapshot().abandoned, dropped);
    }
    breaker.admit().unwrap().record(Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_end_at_the_opening() {
    let breaker = breaker(settings());
    let waiter = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.opened().await }
    });
    tokio::task::yield_now().await;
    for _ in 0..10 {
        breaker.admit().unwrap().record(Outcome::Failure);
    }
    assert_eq!(waiter.await.unwrap(), Refused::Open { retry_after: secs(30) });
}
