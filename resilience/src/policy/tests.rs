//! Policies under paused time.

use std::cell::Cell;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::breaker::{BreakerSettings, BreakerState, Mode, WindowSettings};
use crate::bulkhead::BulkheadSettings;
use crate::chaos::ChaosSettings;
use crate::class::{Class, Classify};
use crate::deadline::Deadline;
use crate::error::{CallError, Guard, LastBecause, Reason, Refusal, TimeLimit};
use crate::rate_limit::RateLimit;
use crate::retry::{Budget, Jitter, Retry};

mod budget;
mod cancel;
mod flood;
#[cfg(feature = "tower")]
mod layer;
mod metrics;
mod outage;
mod settings;

/// An answer of a simulated dependency: an HTTP status and `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("status {0}")]
struct Status(u16, Option<Duration>);

impl Classify for Status {
    fn class(&self) -> Class {
        Class::of_status(self.0, self.1)
    }
}

const DOWN: Status = Status(503, None);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Waits of exactly 100 ms.
fn fixed() -> Retry {
    Retry { jitter: Jitter::None, base: ms(100), cap: ms(100), ..Retry::default() }
}

fn after_five_failures() -> BreakerSettings {
    BreakerSettings { failure_rate: None, consecutive_failures: Some(5), ..BreakerSettings::default() }
}

async fn always(policy: &Policy, status: Status, reached: &AtomicU32) -> CallError<Status> {
    policy
        .idempotent(|_| async {
            reached.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(status)
        })
        .await
        .unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_counts_for_the_breaker_and_its_refusal_is_not_retried() {
    let policy = Policy::medium("payment").retry(fixed()).breaker(after_five_failures()).build().unwrap();
    let reached = AtomicU32::new(0);
    let start = Instant::now();

    let a = always(&policy, DOWN, &reached).await;
    assert_eq!((a.attempts, start.elapsed()), (3, ms(200)));
    assert_eq!(a.reason, Reason::Failed { last_because: LastBecause::AttemptsUsed, retry_after: None });

    sleep(ms(800)).await;
    let left = policy.state().retries_left;
    let b = always(&policy, DOWN, &reached).await;
    assert_eq!((b.guard(), b.attempts, b.source), (Some(Guard::Breaker), 2, Some(DOWN)), "the last cause is inside");
    assert!(start.elapsed() <= ms(1_200));
    assert_eq!(policy.state().retries_left, left.map(|left| left - 1), "the refused attempt took nothing");

    sleep(ms(800)).await;
    let c = always(&policy, DOWN, &reached).await;
    assert_eq!((c.guard(), c.attempts, c.source), (Some(Guard::Breaker), 0, None));
    assert_eq!(reached.into_inner(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_dependency_asks_for_is_kept_or_ends_the_call() {
    let policy = Policy::medium("payment").retry(Retry { attempts: 4, ..Retry::default() }).build().unwrap();
    let start = Instant::now();
    let too_long = policy
        .idempotent(|_| async {
            sleep(ms(200)).await;
            Err::<(), _>(Status(429, Some(secs(60))))
        })
        .deadline(Deadline::within(secs(30)))
        .await
        .unwrap_err();
    assert_eq!((start.elapsed(), too_long.attempts, too_long.guard()), (ms(200), 1, None));
    assert_eq!((too_long.retry_after(), too_long.source), (Some(secs(60)), Some(Status(429, Some(secs(60))))));

    let start = Instant::now();
    let answer = policy
        .idempotent(|call| async move {
            if call.attempt() == 1 {
                sleep(ms(200)).await;
                return Err(Status(503, Some(secs(25))));
            }
            let begin = start.elapsed();
            let left = call.deadline().left().unwrap();
            sleep(secs(1)).await;
            Ok((begin, left))
        })
        .deadline(Deadline::within(secs(30)))
        .await;
    let (begin, left) = answer.unwrap();
    assert!(begin >= ms(25_200) && left <= ms(4_800), "{begin:?} {left:?}");
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_made_again_and_once_never_is() {
    let retry = Retry { budget: None, ..fixed() };
    let policy = Policy::medium("payment").retry(retry).breaker_mode(Mode::Disabled).build().unwrap();
    for (status, attempts) in [(400, 1), (401, 1), (404, 1), (500, 1), (429, 3), (502, 3), (503, 3), (504, 3)] {
        let error = always(&policy, Status(status, None), &AtomicU32::new(0)).await;
        assert_eq!(error.attempts, attempts, "{status}");
        assert_eq!(error.is_transient(), attempts > 1, "{status}");
    }
    let error = policy.once(|_| async { Err::<(), _>(DOWN) }).await.unwrap_err();
    assert_eq!(error.attempts, 1);
    assert_eq!(error.reason, Reason::Failed { last_because: LastBecause::OnlyOne, retry_after: None });
}

#[tokio::test(start_paused = true)]
async fn every_attempt_of_a_keyed_call_is_handed_the_same_key() {
    let policy = Policy::medium("payment").retry(fixed()).build().unwrap();
    let key = IdempotencyKey::new("order-7/charge").unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    let answer = policy
        .keyed(&key, |call, key| {
            seen.lock().unwrap().push(key.clone());
            async move { if call.attempt() < 3 { Err(DOWN) } else { Ok(call.attempt()) } }
        })
        .await;
    assert_eq!(answer.unwrap(), 3);
    assert_eq!(seen.into_inner().unwrap(), [key.clone(), key.clone(), key]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_the_policy_cuts_off_is_a_failure_and_one_that_the_caller_cuts_off_is_not() {
    let policy = Policy::fast("stock").timeout(secs(1)).build().unwrap();
    let never = |_| std::future::pending::<Result<(), Status>>();

    let own = policy.once(never).await.unwrap_err();
    assert_eq!(own.reason, Reason::TimedOut { limit: TimeLimit::Attempt(secs(1)) });
    assert!(own.may_have_happened());
    let snapshot = policy.breaker().snapshot();
    assert_eq!((snapshot.failures, snapshot.abandoned), (1, 0));

    let callers = policy.once(never).deadline(Deadline::within(ms(5))).await.unwrap_err();
    assert_eq!(callers.reason, Reason::TimedOut { limit: TimeLimit::Deadline });
    let snapshot = policy.breaker().snapshot();
    assert_eq!((snapshot.failures, snapshot.abandoned), (1, 1));

    // A caller who would have waited exactly as long as the policy has seen a time-out of the policy.
    let both = policy.once(never).deadline(Deadline::within(secs(1))).await.unwrap_err();
    assert_eq!(both.reason, Reason::TimedOut { limit: TimeLimit::Attempt(secs(1)) });
    assert_eq!(policy.breaker().snapshot().failures, 2);

    // A hundredth less is the time that the request took until here, and more is a hurry.
    let nearly = policy.once(never).deadline(Deadline::within(ms(990))).await.unwrap_err();
    assert_eq!(nearly.reason, Reason::TimedOut { limit: TimeLimit::Attempt(secs(1)) });
    let hurry = policy.once(never).deadline(Deadline::within(ms(989))).await.unwrap_err();
    assert_eq!(hurry.reason, Reason::TimedOut { limit: TimeLimit::Deadline });
    let snapshot = policy.breaker().snapshot();
    assert_eq!((snapshot.failures, snapshot.abandoned), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_made_again_and_the_error_remembers_that_it_may_have_happened() {
    let retry = Retry { budget: None, ..fixed() };
    let policy = Policy::fast("stock").timeout(secs(1)).retry(retry).build().unwrap();
    let error = policy
        .idempotent(|call| async move {
            match call.attempt() {
                1 => std::future::pending().await,
                2 => Err::<(), _>(DOWN),
                _ => Err(Status(404, None)),
            }
        })
        .await
        .unwrap_err();
    assert_eq!((error.attempts, error.cut_off, error.may_have_happened()), (3, 1, true));
    assert_eq!(error.source, Some(Status(404, None)));

    let error = policy
        .idempotent(
            |call| async move { if call.attempt() < 3 { Err::<(), _>(DOWN) } else { std::future::pending().await } },
        )
        .await
        .unwrap_err();
    assert_eq!(error.reason, Reason::TimedOut { limit: TimeLimit::Attempt(secs(1)) });
    assert_eq!(error.source, Some(DOWN));
}

#[tokio::test(start_paused = true)]
async fn attempts_know_what_is_left() {
    let policy = Policy::medium("payment").timeout(ms(100)).read_timeout(ms(80)).build().unwrap();
    let header = |call: Call| async move {
        Ok::<_, Status>((call.deadline().to_header(), call.connect_timeout(), call.read_timeout()))
    };
    let deadline = Deadline::within(secs(5));
    let first = policy.idempotent(header).deadline(deadline).await.unwrap();
    assert_eq!(first, (Ok(Some("100".to_owned())), ms(100), ms(80)));
    sleep(ms(4_950)).await;
    let second = policy.idempotent(header).deadline(deadline).await.unwrap();
    assert_eq!(second, (Ok(Some("50".to_owned())), ms(50), ms(50)));
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline() {
    let policy = Policy::medium("payment").build().unwrap();
    let reached = Cell::new(false);
    let over = policy
        .once(|_| {
            reached.set(true);
            async { Ok::<_, Status>(()) }
        })
        .deadline(Deadline::within(Duration::ZERO))
        .run()
        .await
        .unwrap_err();
    assert_eq!((over.guard(), over.attempts, reached.get()), (Some(Guard::Deadline), 0, false));
}

/// A slot that becomes free in the moment of the deadline is of no use any more.
#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline_although_a_slot_is_free_at_last() {
    let policy = Policy::fast("stock").bulkhead(1).build().unwrap();
    let slot = policy.engine.bulkhead.clone().unwrap().try_enter().unwrap();
    let call = policy.once(|_| async { Ok::<_, Status>(()) }).deadline(Deadline::within(ms(100))).run();
    let mut call = std::pin::pin!(call);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(call.as_mut().poll(&mut context).is_pending());
    tokio::time::advance(ms(100)).await;
    drop(slot);
    let error = call.await.unwrap_err();
    assert_eq!((error.reason, error.attempts), (Reason::Refused(Refusal::DeadlineOver), 0));
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_counts_calls_and_not_attempts() {
    let limit = RateLimit { burst: Some(2), ..RateLimit::per_second(2) };
    let policy = Policy::medium("payment").rate_limit(limit).retry(fixed()).build().unwrap();
    let reached = AtomicU32::new(0);
    for _ in 0..2 {
        always(&policy, DOWN, &reached).await;
    }
    assert_eq!(reached.load(Ordering::SeqCst), 6 - 1, "the budget's reserve of 3 ended the second call early");
    let limited = always(&policy, DOWN, &reached).await;
    assert_eq!((limited.guard(), limited.attempts), (Some(Guard::RateLimit), 0));
    assert!(limited.retry_after().is_some_and(|wait| wait <= ms(500)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_judged_a_failure_is_returned_after_the_last_attempt() {
    let policy = Policy::medium("payment").retry(fixed()).build().unwrap();
    let attempts = AtomicU32::new(0);
    let answer = policy
        .idempotent(|_| async {
            attempts.fetch_add(1, Ordering::SeqCst);
            Ok::<u16, Status>(503)
        })
        .results_judged_by(|result: &Result<u16, Status>| match result {
            Ok(status) => Class::of_status(*status, None),
            Err(error) => error.class(),
        })
        .await;
    assert_eq!((answer.unwrap(), attempts.into_inner()), (503, 3));
    assert_eq!(policy.breaker().snapshot().failures, 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_an_attempt_before_the_one_that_was_cut_off_is_not_that_of_the_call() {
    let policy = Policy::fast("stock").timeout(secs(1)).retry(Retry { attempts: 2, ..fixed() }).build().unwrap();
    let call = policy.idempotent(|call| async move {
        if call.attempt() == 1 { Ok::<_, Status>(503) } else { std::future::pending().await }
    });
    let judged = call.results_judged_by(|result| Class::of_status(result.unwrap(), None));
    let error = judged.await.unwrap_err();
    assert_eq!((error.reason, error.source), (Reason::TimedOut { limit: TimeLimit::Attempt(secs(1)) }, None));
}

#[tokio::test(start_paused = true)]
async fn each_call_waits_for_times_of_its_own_and_a_seed_repeats_them() {
    let retry = Retry { attempts: 2, jitter: Jitter::Full, budget: None, seed: Some(7), ..Retry::default() };
    let waits = async || {
        let policy = Policy::fast("stock").retry(retry.clone()).breaker_mode(Mode::Disabled).build().unwrap();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let begin = Instant::now();
            always(&policy, DOWN, &AtomicU32::new(0)).await;
            waits.push(begin.elapsed());
        }
        waits
    };
    let first = waits().await;
    assert_eq!(first, waits().await);
    assert!(first.iter().any(|wait| *wait != first[0]), "callers that failed together come back together: {first:?}");
}

#[test]
fn keys_are_short_visible_ascii() {
    for wrong in ["", "a b", "schlüssel", "tab\t", "new\nline", &"x".repeat(201)] {
        assert_eq!(IdempotencyKey::new(wrong), Err(KeyError), "{wrong:?}");
    }
    assert_eq!(IdempotencyKey::new("x".repeat(200)).unwrap().as_str().len(), 200);
}

#[test]
fn a_name_is_registered_once() {
    let policies = Policies::new();
    policies.add(Policy::fast("stock").build().unwrap()).unwrap();
    let again = policies.add(Policy::slow("stock").build().unwrap());
    assert_eq!(again, Err(DuplicatePolicy { name: "stock".to_owned() }));
    assert_eq!(policies.get("stock").unwrap().longest(), secs(5), "the first one stays");
}
