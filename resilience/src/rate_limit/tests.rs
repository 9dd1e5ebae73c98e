use tokio::time::advance;

use super::*;

#[cfg(feature = "axum")]
mod layer;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn limiter(settings: RateLimit) -> RateLimiter<u32> {
    RateLimiter::new("tenants", settings).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_retry_after_is_admitted() {
    let limiter = limiter(RateLimit::per_minute(1_000));
    for left in (0..1_000).rev() {
        assert_eq!(limiter.check(&1).unwrap().remaining, left);
    }
    let limited = limiter.check(&1).unwrap_err();
    assert_eq!((limited.quota.limit, limited.quota.remaining), (1_000, 0));
    assert_eq!(header_seconds(limited.retry_after), 1, "rounded up, never 0");
    assert_eq!(header_seconds(limited.quota.reset), 60);
    advance(limited.retry_after).await;
    assert!(limiter.check(&1).is_ok());
    assert!(limiter.check(&2).is_ok(), "another key has a quota of its own");
}

#[tokio::test(start_paused = true)]
async fn two_a_minute_are_one_every_thirty_seconds() {
    let limiter = limiter(RateLimit { burst: Some(2), ..RateLimit::per_minute(2) });
    let first = limiter.check(&1).unwrap();
    assert_eq!((first.remaining, first.reset), (1, secs(30)));
    assert_eq!(limiter.check(&1).unwrap().reset, secs(60));
    assert_eq!(limiter.check(&1).unwrap_err().retry_after, secs(30));
    advance(Duration::from_millis(29_900)).await;
    let limited = limiter.check(&1).unwrap_err();
    assert_eq!(header_seconds(limited.retry_after), 1);
    advance(Duration::from_millis(100)).await;
    assert!(limiter.check(&1).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_gets_a_thousand_a_minute_and_a_hundred_at_once() {
    let limiter = limiter(RateLimit::default());
    let mut passed = 0;
    for _ in 0..3_000 {
        passed += u32::from(limiter.check(&1).is_ok());
        advance(Duration::from_millis(20)).await;
    }
    assert!((1_000..=1_100).contains(&passed), "{passed} of 3,000 within a minute");
}

#[tokio::test(start_paused = true)]
async fn refusals_cost_nothing() {
    let limiter = limiter(RateLimit::default());
    let mut passed = 0;
    // An hour at 2,000 a minute.
    for _ in 0..120_000 {
        passed += u32::from(limiter.check(&1).is_ok());
        advance(Duration::from_millis(30)).await;
    }
    assert!((60_000..=60_100).contains(&passed), "{passed} of 120,000");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_takes_no_memory_and_nothing_from_those_that_are_known() {
    let limiter = limiter(RateLimit { keys: 100, ..RateLimit::per_minute(10) });
    for _ in 0..5 {
        limiter.check(&0).unwrap();
    }
    let passed = (1..10_000).filter(|key| limiter.check(key).is_ok()).count();
    assert_eq!(passed, 99 + 10, "99 more keys had room, and all others shared one quota");
    assert_eq!(limiter.keys(), 100);
    assert_eq!(limiter.check(&0).unwrap().remaining, 4, "the known key still has its own");
    // All quotas are full again, so there is room for others.
    advance(secs(60)).await;
    assert!((20_000..20_100).all(|key| limiter.check(&key).is_ok()));
    assert_eq!(limiter.keys(), 100);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refused = |settings: RateLimit| RateLimiter::<u32>::new("tenants", settings).unwrap_err().to_string();
    let base = RateLimit::default;
    let messages = [
        refused(RateLimit { calls: 0, ..base() }),
        refused(RateLimit { burst: Some(0), ..base() }),
        refused(RateLimit { keys: 0, ..base() }),
        refused(RateLimit { per: Duration::ZERO, ..base() }),
        refused(RateLimit { per: Duration::MAX, ..base() }),
        refused(RateLimit { calls: 2_000_000, per: Duration::from_millis(1), ..base() }),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn seconds_in_headers_are_rounded_up() {
    for (millis, seconds) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2)] {
        assert_eq!(header_seconds(Duration::from_millis(millis)), seconds);
    }
}

/// The time between two calls was cut to whole nanoseconds: of 600 million a second 1,000 million passed.
#[tokio::test(start_paused = true)]
async fn a_rate_that_is_no_whole_number_of_nanoseconds_lets_no_call_more_pass() {
    let settings = RateLimit { calls: 600_000, per: Duration::from_millis(1), burst: Some(1_000), keys: 1 };
    let limiter = limiter(settings);
    let mut passed = 0;
    for _ in 0..1_000 {
        passed += (0..2_000).filter(|_| limiter.check(&1).is_ok()).count();
        tokio::time::advance(Duration::from_micros(1)).await;
    }
    assert!((400_000..=601_000).contains(&passed), "{passed}");
}
