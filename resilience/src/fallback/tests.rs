use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::*;
use crate::breaker::Mode;
use crate::class::{Class, Classify};
use crate::{CallError, Deadline, Guard, Policy};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("status {0}")]
struct Status(u16);

impl Classify for Status {
    fn class(&self) -> Class {
        Class::of_status(self.0, None)
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn stale_answers_stand_in_for_errors_until_they_are_too_old() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::new("prices", CacheSettings::default()).unwrap();
    let entry = cache.entry("sock");
    let start = Instant::now();
    let ask = async |at: u64, result: Result<Option<&'static str>, u16>| {
        sleep_until(start + secs(at)).await;
        let call = policy.idempotent(|_| async {
            match result {
                Err(0) => std::future::pending().await,
                result => result.map_err(Status),
            }
        });
        let answer = call.deadline(Deadline::within(secs(1))).or_cached(&entry).or_value(None).await;
        answer.map(|answer| (answer.value, answer.age.map(|age| age.as_secs()), answer.stale))
    };
    let v1 = Some("v1");
    assert_eq!(ask(0, Ok(v1)).await.unwrap(), (v1, Some(0), false));
    assert_eq!(ask(100, Err(503)).await.unwrap(), (v1, Some(100), true));
    assert_eq!(ask(120, Err(503)).await.unwrap(), (v1, Some(120), true));
    policy.breaker().set_mode(Mode::HeldOpen);
    assert_eq!(ask(140, Ok(v1)).await.unwrap(), (v1, Some(140), true));
    policy.breaker().set_mode(Mode::Normal);
    let error = ask(150, Err(404)).await.unwrap_err();
    assert_eq!((error.source, error.call_at_fault()), (Some(Status(404)), true));
    assert_eq!(ask(298, Err(0)).await.unwrap(), (v1, Some(299), true), "timed out at 299 s");
    assert_eq!(ask(300, Err(0)).await.unwrap(), (None, None, true), "timed out at 301 s");
    let v2 = Some("v2");
    assert_eq!(ask(310, Ok(v2)).await.unwrap(), (v2, Some(0), false), "the last resort was not stored");
    assert_eq!(ask(320, Err(503)).await.unwrap(), (v2, Some(10), false), "fresh, so there was no call");
    assert_eq!(ask(371, Err(503)).await.unwrap(), (v2, Some(61), true));
    assert_eq!(policy.breaker().snapshot().failures, 1, "since the mode was changed: no fallback is a success");
}

#[tokio::test(start_paused = true)]
async fn what_was_loaded_before_an_invalidation_is_not_stored_after_it() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::<_, u32>::new("prices", CacheSettings::default()).unwrap();
    let price = AtomicU32::new(10);
    let read = async || {
        let entry = cache.entry("sock");
        let call = policy.idempotent(|_| async {
            let read = price.load(Ordering::SeqCst);
            sleep(Duration::from_millis(500)).await;
            Ok::<_, Status>(read)
        });
        *call.or_cached(&entry).await.unwrap()
    };
    let change = async {
        sleep(Duration::from_millis(100)).await;
        price.store(12, Ordering::SeqCst);
        cache.invalidate(&"sock");
    };
    let (first, ()) = tokio::join!(read(), change);
    assert_eq!(first, 10, "the first caller may see what it read");
    assert_eq!(read().await, 12);
}

#[tokio::test(start_paused = true)]
async fn each_reader_gets_its_own_last_resort_and_one_call_is_made_for_all() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::new("prices", CacheSettings::default()).unwrap();
    let calls = AtomicU32::new(0);
    let (ok, calls) = (std::sync::atomic::AtomicBool::new(false), &calls);
    let read = async |last_resort: u32| {
        let entry = cache.entry("sock");
        let call = policy.idempotent(|_| async {
            calls.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(500)).await;
            if ok.load(Ordering::SeqCst) { Ok(5) } else { Err(Status(503)) }
        });
        *call.or_cached(&entry).or_value(last_resort).await.unwrap()
    };
    assert_eq!(tokio::join!(read(1), read(2), read(3)), (1, 2, 3));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    ok.store(true, Ordering::SeqCst);
    assert_eq!(tokio::join!(read(1), read(2), read(3)), (5, 5, 5));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_on_when_the_one_who_calls_is_dropped() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::new("prices", CacheSettings::default()).unwrap();
    let entry = cache.entry(());
    let call = || {
        policy.idempotent(|_| async {
            sleep(Duration::from_millis(500)).await;
            Ok::<_, Status>(5)
        })
    };
    let dropped = tokio::time::timeout(Duration::from_millis(100), call().or_cached(&entry).into_future());
    let (dropped, answer) = tokio::join!(dropped, call().or_cached(&entry).into_future());
    assert!(dropped.is_err());
    assert_eq!(*answer.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_callers_answer_waits_until_the_own_deadline_at_most() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::new("prices", CacheSettings::default()).unwrap();
    let entry = cache.entry(());
    let call = || {
        policy.idempotent(|_| async {
            sleep(secs(3)).await;
            Ok::<_, Status>(5)
        })
    };
    let start = Instant::now();
    let hurried = async {
        let answer = call().deadline(Deadline::within(secs(1))).or_cached(&entry).await;
        (start.elapsed(), answer.unwrap_err())
    };
    let (first, (at, error)) = tokio::join!(call().or_cached(&entry), hurried);
    assert_eq!(*first.unwrap(), 5);
    assert_eq!((at, error.guard(), error.attempts), (secs(1), Some(Guard::Deadline), 0));
}

#[tokio::test(start_paused = true)]
async fn values_and_functions_stand_in_for_what_the_dependency_failed_at_only() {
    let policy = Policy::fast("prices").build().unwrap();
    let call = |status: u16| policy.idempotent(move |_| async move { Err::<u32, _>(Status(status)) });
    assert_eq!(call(503).or_value(7).await.unwrap(), 7);
    assert_eq!(call(500).or_else(async |error| error.source.map(|_| 8).ok_or(error)).await.unwrap(), 8);
    let own: Result<_, CallError<Status>> = call(404).or_value(7).await;
    assert!(own.unwrap_err().call_at_fault());
    let own = call(422).or_else(async |_| Ok(7)).await;
    assert!(own.unwrap_err().call_at_fault());
    policy.breaker().set_mode(Mode::HeldOpen);
    let guard = call(503).or_else(async |error| {
        assert_eq!(error.guard(), Some(Guard::Breaker));
        Ok(9)
    });
    assert_eq!(guard.await.unwrap(), 9);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refused = |settings| StaleCache::<u32, u32>::new("tips", settings).unwrap_err().to_string();
    let messages = [
        refused(CacheSettings { keys: 0, ..CacheSettings::default() }),
        refused(CacheSettings { stale: secs(1), ..CacheSettings::default() }),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

/// An entry that is held for long must not outlive its place in the cache, or no invalidation would reach it.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_held_sees_an_invalidation_though_its_key_had_to_leave() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::<u32, u32>::new("prices", CacheSettings { keys: 2, ..CacheSettings::default() }).unwrap();
    let held = cache.entry(0);
    let read =
        async |price: u32| *policy.idempotent(|_| async { Ok::<_, Status>(price) }).or_cached(&held).await.unwrap();
    assert_eq!(read(10).await, 10);
    // Others come and are used more often.
    for _ in 0..50 {
        for other in 1..100 {
            cache.entry(other);
        }
    }
    cache.invalidate(&0);
    assert_eq!(read(12).await, 12);
}

#[tokio::test(start_paused = true)]
async fn those_who_waited_for_a_call_at_fault_make_theirs_at_once_and_not_one_after_another() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::<_, u32>::new("prices", CacheSettings::default()).unwrap();
    let entry = cache.entry("unknown");
    let start = Instant::now();
    let read = async || {
        let call = policy.idempotent(|_| async {
            sleep(Duration::from_millis(500)).await;
            Err(Status(404))
        });
        let error = call.or_cached(&entry).await.unwrap_err();
        assert!(error.call_at_fault() && error.source == Some(Status(404)), "each has its own error");
    };
    futures::future::join_all((0..20).map(|_| read())).await;
    assert_eq!(start.elapsed(), secs(1));
}

/// As where the cache is for errors only.
#[tokio::test(start_paused = true)]
async fn many_readers_of_what_is_never_fresh_share_a_call_too() {
    let policy = Policy::fast("prices").build().unwrap();
    let settings = CacheSettings { fresh: Duration::ZERO, ..CacheSettings::default() };
    let cache = StaleCache::new("prices", settings).unwrap();
    let entry = cache.entry("sock");
    let (start, calls) = (Instant::now(), &AtomicU32::new(0));
    let read = async || {
        let call = policy.idempotent(|_| async {
            sleep(Duration::from_millis(500)).await;
            Ok::<_, Status>(calls.fetch_add(1, Ordering::SeqCst) + 1)
        });
        let answer = call.or_cached(&entry).await.unwrap();
        (answer.value, answer.stale)
    };
    let answers = futures::future::join_all((0..20).map(|_| read())).await;
    assert_eq!((answers, start.elapsed()), (vec![(1, false); 20], Duration::from_millis(500)));
    assert_eq!(read().await, (2, false), "who comes later makes a call");
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_a_hurry_does_not_fail_those_who_have_time() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::new("prices", CacheSettings::default()).unwrap();
    let entry = cache.entry("sock");
    let start = Instant::now();
    let read = async |time: Duration| {
        let call = policy.idempotent(|_| async {
            sleep(Duration::from_millis(500)).await;
            Ok::<_, Status>(5)
        });
        let answer = call.deadline(Deadline::within(time)).or_cached(&entry).await;
        (answer.map(|answer| answer.value).ok(), start.elapsed())
    };
    let (hurried, other) = tokio::join!(read(Duration::from_millis(100)), read(secs(2)));
    assert_eq!(hurried, (None, Duration::from_millis(100)));
    assert_eq!(other, (Some(5), Duration::from_millis(600)));
}

/// A new key got no slot while popular ones filled the cache, and each of its callers made a call.
#[tokio::test(start_paused = true)]
async fn those_who_ask_for_a_new_key_share_a_call_though_popular_keys_fill_the_cache() {
    let policy = Policy::fast("prices").build().unwrap();
    let cache = StaleCache::new("prices", CacheSettings { keys: 10, ..CacheSettings::default() }).unwrap();
    for key in (0..10).cycle().take(500) {
        policy.idempotent(|_| async { Ok::<_, Status>(1) }).or_cached(&cache.entry(key)).await.unwrap();
    }
    let calls = AtomicU32::new(0);
    let (policy, cache, calls) = (&policy, &cache, &calls);
    let callers = (0..200).map(|number| async move {
        sleep(Duration::from_millis(number * 10)).await;
        let call = |_| async {
            calls.fetch_add(1, Ordering::SeqCst);
            sleep(secs(3)).await;
            Ok::<_, Status>(2)
        };
        policy.idempotent(call).or_cached(&cache.entry(99)).await.unwrap().value
    });
    assert_eq!(futures::future::join_all(callers).await, [2; 200]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// The wait for another caller's answer had a time of its own, so a call could take twice what its policy allows.
#[tokio::test(start_paused = true)]
async fn waiting_for_another_callers_answer_and_an_own_call_together_take_no_longer_than_the_policy_allows() {
    let policy = Policy::fast("prices").timeout(secs(5)).deadline(secs(6)).build().unwrap();
    let cache = StaleCache::new("prices", CacheSettings::default()).unwrap();
    let entry = cache.entry("sock");
    let hanging = || policy.idempotent(|_| std::future::pending::<Result<u32, Status>>()).or_cached(&entry);
    let start = Instant::now();
    let first = tokio::time::timeout(secs(4), hanging());
    let (left, answer) = tokio::join!(first, hanging());
    assert!(left.is_err(), "the one that called left after 4 s");
    assert_eq!((answer.unwrap_err().attempts, start.elapsed()), (1, secs(6)));
}
