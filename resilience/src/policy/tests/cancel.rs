//! A call is dropped after it was polled 1, 2, 3 .. times: at every point at which it waits.

use std::future::{Future, IntoFuture};
use std::task::{Context, Waker};

use super::*;

/// Polls a call `polls` times, passing time in between, and drops it. `false` if it had ended by then.
async fn dropped_after(polls: u32, future: impl IntoFuture) -> bool {
    let mut future = Box::pin(future.into_future());
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return false;
        }
        tokio::time::advance(ms(30)).await;
    }
    true
}

fn policy() -> Policy {
    let budget = Some(Budget { ratio: 0.0, reserve: 2, ..Budget::default() });
    Policy::fast("stock")
        .timeout(ms(500))
        .retry(Retry { budget, ..fixed() })
        .breaker(BreakerSettings { probes: 1, closes_after: 1, open_growth: 1.0, ..after_five_failures() })
        .bulkhead(BulkheadSettings { slots: 1, queue: 1, wait: Some(ms(250)) })
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn whatever_is_dropped_at_whichever_point_no_slot_probe_or_retry_is_lost() {
    let slow_failure = |_| async {
        sleep(ms(70)).await;
        Err::<(), _>(DOWN)
    };
    let mut longest = 0;
    for polls in 1..100 {
        let policy = policy();
        // Half-open, with a single probe; its place must come back too.
        for _ in 0..5 {
            policy.once(|_| async { Err::<(), _>(DOWN) }).await.ok();
        }
        sleep(secs(30)).await;
        assert_eq!(policy.breaker().state(), BreakerState::HalfOpen);
        let dropped = dropped_after(polls, policy.idempotent(slow_failure)).await;
        let state = policy.state();
        assert_eq!((state.in_use, state.waiting, state.retries_left), (Some(0), Some(0), Some(2)), "{polls} polls");
        assert_eq!(state.breaker.probes_in_flight, 0, "{polls} polls");
        if !dropped {
            break;
        }
        longest = polls;
        policy.once(|_| async { Ok::<_, Status>(()) }).await.unwrap();
        assert_eq!(policy.breaker().state(), BreakerState::Closed, "the probe's place is free after {polls} polls");
    }
    assert!(longest >= 2, "the call was dropped while its attempt ran");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_for_its_retry_or_its_slot_gives_both_back() {
    let mut spent = std::collections::BTreeSet::new();
    for polls in 1..100 {
        let policy = policy();
        // The slot is taken between the attempts, so the call also waits for it.
        let occupied = policy.engine.bulkhead.clone().unwrap();
        let holder = async {
            let slot = occupied.enter(Deadline::NONE).await.unwrap();
            sleep(ms(200)).await;
            drop(slot);
        };
        let call = policy.idempotent(|call| async move {
            sleep(ms(40)).await;
            if call.attempt() < 3 { Err(DOWN) } else { Ok(()) }
        });
        let (dropped, ()) = tokio::join!(dropped_after(polls, call), async {
            sleep(ms(20)).await;
            holder.await;
        });
        let state = policy.state();
        assert_eq!((state.in_use, state.waiting), (Some(0), Some(0)), "{polls} polls");
        let made = u64::from(state.breaker.calls) + state.breaker.abandoned;
        let retries = 2 - state.retries_left.unwrap();
        assert_eq!(retries, made.saturating_sub(1), "retries counted and attempts made after {polls} polls");
        spent.insert(retries);
        if !dropped {
            break;
        }
    }
    assert_eq!(spent.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
}

/// Calls on several threads that succeed, fail, take too long, panic, or are left by their callers, while somebody holds the breaker open
/// now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_storm_on_many_threads_every_slot_and_probe_is_free() {
    let policy = Policy::fast("stock")
        .timeout(ms(20))
        .retry(Retry { base: ms(1), cap: ms(4), ..Retry::default() })
        .breaker(BreakerSettings { open: ms(5), open_growth: 1.0, probe_lease: secs(60), ..BreakerSettings::default() })
        .bulkhead(BulkheadSettings { slots: 4, queue: 8, wait: Some(ms(10)) })
        .build()
        .unwrap();
    let (inside, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for seed in 0..64 {
        let (policy, inside, most) = (policy.clone(), inside.clone(), most.clone());
        callers.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..40 {
                let (kind, wait, limit) = (rng.u32(0..20), rng.u64(0..4), rng.u64(0..12));
                if kind == 0 {
                    policy.breaker().set_mode(if rng.bool() { Mode::HeldOpen } else { Mode::Normal });
                }
                let (policy, inside, most) = (policy.clone(), inside.clone(), most.clone());
                let call = async move {
                    let attempt = |_| async {
                        struct Leaves<'a>(&'a AtomicU32);
                        impl Drop for Leaves<'_> {
                            fn drop(&mut self) {
                                self.0.fetch_sub(1, Ordering::SeqCst);
                            }
                        }
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let _leaves = Leaves(&inside);
                        sleep(ms(wait)).await;
                        match kind {
                            1 => panic!("on purpose"),
                            2 => std::future::pending().await,
                            3..6 => Err(DOWN),
                            _ => Ok(()),
                        }
                    };
                    policy.idempotent(attempt).await.ok();
                };
                // A task of its own, since it may panic; aborted, as by a server whose client has left.
                let task = tokio::spawn(call);
                sleep(ms(limit)).await;
                task.abort();
                task.await.ok();
            }
        });
    }
    callers.join_all().await;
    policy.breaker().set_mode(Mode::Normal);
    let state = policy.state();
    assert_eq!((state.in_use, state.waiting, state.breaker.probes_in_flight), (Some(0), Some(0), 0), "{state:?}");
    assert_eq!(inside.load(Ordering::SeqCst), 0);
    assert!(most.load(Ordering::SeqCst) <= 4, "{most:?} at once");
    policy.once(|_| async { Ok::<_, Status>(()) }).await.unwrap();
}
