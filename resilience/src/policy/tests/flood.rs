use std::sync::atomic::AtomicBool;

use tokio::task::JoinSet;

use super::*;
use crate::breaker::{Outcome, Refused};

/// A thousand calls a second to a dependency that accepts and never answers.
#[tokio::test(start_paused = true)]
async fn a_flood_to_a_hanging_dependency_reaches_it_with_the_slots_and_little_more() {
    let policy = Policy::medium("payment")
        .bulkhead(BulkheadSettings { slots: 20, queue: 40, wait: Some(ms(250)) })
        .build()
        .unwrap();
    let start = Instant::now();
    let (inside, most, reached) =
        (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut transitions = policy.breaker().transitions();
    let mut calls = JoinSet::new();
    for _ in 0..39_900 {
        let (policy, inside, most, reached) = (policy.clone(), inside.clone(), most.clone(), reached.clone());
        calls.spawn(async move {
            struct Leaves(Arc<AtomicU32>);
            impl Drop for Leaves {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            let error = policy
                .once(|_| async {
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    reached.fetch_add(1, Ordering::SeqCst);
                    let _leaves = Leaves(inside.clone());
                    std::future::pending::<Result<(), Status>>().await
                })
                .await
                .unwrap_err();
            (start.elapsed(), error)
        });
        sleep(ms(1)).await;
    }
    let reached = reached.load(Ordering::SeqCst);
    assert!((20..=29).contains(&reached), "{reached} calls reached the dependency");
    assert_eq!(most.load(Ordering::SeqCst), 20);
    let opened = transitions.next().await.unwrap().unwrap();
    assert_eq!(opened.cause, crate::breaker::Cause::FailureRate { failures: 10, calls: 10 }, "only time-outs count");

    let mut guards = std::collections::BTreeMap::new();
    for (at, error) in calls.join_all().await {
        let before = at < opened.at;
        let kind = match error.guard() {
            None => "timed out",
            Some(Guard::Bulkhead) => "bulkhead",
            Some(Guard::Breaker) => "breaker",
            Some(guard) => panic!("{guard:?}"),
        };
        assert!(kind != "bulkhead" || before, "the bulkhead refused at {at:?}, after the opening at {:?}", opened.at);
        assert!(kind != "breaker" || !before, "the breaker refused at {at:?}, before it opened at {:?}", opened.at);
        *guards.entry(kind).or_insert(0) += 1;
    }
    assert!((9_000..=10_000).contains(&guards["bulkhead"]), "{guards:?}");
    assert!(guards["breaker"] > 29_000, "{guards:?}");
    assert_eq!(policy.state().in_use, Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_opening_ends_all_who_wait_at_once() {
    let policy = Policy::medium("payment")
        .breaker(after_five_failures())
        .bulkhead(BulkheadSettings { slots: 5, queue: 50, wait: None })
        .deadline(secs(60))
        .build()
        .unwrap();
    let start = Instant::now();
    let second_round = Arc::new(AtomicBool::new(false));
    let mut calls = JoinSet::new();
    for number in 0..50 {
        let (policy, second_round) = (policy.clone(), second_round.clone());
        calls.spawn(async move {
            let answer = policy
                .once(|_| async move {
                    second_round.fetch_or(number >= 5, Ordering::SeqCst);
                    sleep(secs(1)).await;
                    Err::<(), _>(DOWN)
                })
                .await;
            (start.elapsed(), answer.unwrap_err().guard())
        });
    }
    let ended = calls.join_all().await;
    assert!(ended.iter().all(|(at, _)| *at == secs(1)), "{ended:?}");
    let by_breaker = ended.iter().filter(|(_, guard)| *guard == Some(Guard::Breaker)).count();
    // The slots of the first four failures went to four who waited, and whose results come late.
    assert!(by_breaker >= 41, "{by_breaker}");
    assert_eq!(policy.state().waiting, Some(0));
    assert_eq!(policy.breaker().state(), BreakerState::Open);
}

/// No slot becomes free here, so only the opening itself can end those who wait.
#[tokio::test(start_paused = true)]
async fn an_opening_ends_all_who_wait_although_every_slot_stays_taken() {
    for expected in [Refused::Open { retry_after: secs(30) }, Refused::HeldOpen] {
        let policy = Policy::medium("payment")
            .timeout(secs(60))
            .breaker(after_five_failures())
            .bulkhead(BulkheadSettings { slots: 1, queue: 10, wait: Some(secs(20)) })
            .build();
        let policy = policy.unwrap();
        let start = Instant::now();
        let mut waiting = JoinSet::new();
        let call = |policy: &Policy| {
            let policy = policy.clone();
            async move { (policy.once(|_| std::future::pending::<Result<(), Status>>()).await, start.elapsed()) }
        };
        let holder = tokio::spawn(call(&policy));
        sleep(ms(1)).await;
        for _ in 0..10 {
            waiting.spawn(call(&policy));
        }
        sleep(secs(2)).await;
        assert_eq!((policy.state().in_use, policy.state().waiting), (Some(1), Some(10)));
        match expected {
            Refused::HeldOpen => policy.breaker().set_mode(Mode::HeldOpen),
            _ => (0..5).for_each(|_| policy.breaker().admit().unwrap().record(Outcome::Failure)),
        }
        for (answer, at) in waiting.join_all().await {
            let error = answer.unwrap_err();
            assert_eq!((at, error.attempts), (ms(2_001), 0));
            assert_eq!(error.reason, Reason::Refused(crate::error::Refusal::BreakerOpen(expected)));
        }
        assert_eq!(
            (policy.state().in_use, policy.state().waiting),
            (Some(1), Some(0)),
            "the slot was held all the time"
        );
        holder.abort();
    }
}
