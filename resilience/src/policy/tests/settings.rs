use super::*;

fn refused(builder: PolicyBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn attempts_and_waits_must_fit_the_deadline_exactly() {
    let retry = Retry { cap: ms(500), ..Retry::default() };
    let policy = |deadline| Policy::medium("payment").timeout(secs(3)).retry(retry.clone()).deadline(deadline);
    assert_eq!(policy(secs(10)).build().unwrap().longest(), secs(10));
    let message = refused(policy(ms(9_990)));
    for part in ["`deadline` = 9.99s", "`timeout` = 3s", "10s in all"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn settings_that_contradict_are_refused_with_both_names() {
    let child = Policy::fast("child").timeout(secs(2)).build().unwrap();
    let breaker = BreakerSettings::default;
    let base = || Policy::medium("parent").timeout(secs(3));
    let messages = [
        refused(base().timeout(Duration::ZERO)),
        refused(base().connect_timeout(secs(4))),
        refused(base().read_timeout(Duration::ZERO)),
        refused(base().deadline(secs(2))),
        refused(base().in_sequence([&child, &child])),
        refused(base().breaker(BreakerSettings { probe_lease: secs(1), ..breaker() })),
        refused(base().breaker(BreakerSettings { slow_call: Some(secs(3)), slow_rate: Some(0.5), ..breaker() })),
        refused(base().breaker(BreakerSettings { open: Duration::ZERO, ..breaker() })),
        refused(base().bulkhead(BulkheadSettings { slots: 1, queue: 1, wait: Some(secs(1)) }).deadline(secs(3))),
        refused(base().bulkhead(BulkheadSettings { slots: 1, queue: 1, wait: None })),
        refused(base().rate_limit(RateLimit::per_second(0))),
        refused(base().retry(Retry { attempts: 0, ..Retry::default() })),
    ];
    insta::assert_snapshot!(messages.join("\n"));
    assert!(base().timeout(secs(4)).in_sequence([&child, &child]).build().is_ok());
}

#[test]
fn profiles_are_what_the_defaults_page_says() {
    for (builder, timeout, open, connect) in
        [(Policy::fast("p"), 5, 10, 2), (Policy::medium("p"), 10, 30, 3), (Policy::slow("p"), 30, 60, 5)]
    {
        let policy = builder.build().unwrap();
        let limits = &policy.engine.limits;
        assert_eq!((limits.timeout, limits.breaker.open, limits.connect), (secs(timeout), secs(open), secs(connect)));
        assert_eq!(limits.breaker.probe_lease, secs(60));
    }
    let longer = Policy::slow("p").timeout(secs(50)).build().unwrap();
    assert_eq!(longer.engine.limits.breaker.probe_lease, secs(100), "twice the attempt");
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_work_or_are_refused() {
    const MAX: Duration = Duration::MAX;
    let breaker = || BreakerSettings { consecutive_failures: Some(1), ..BreakerSettings::default() };
    let base = || Policy::fast("longest");
    let builders = [
        base().timeout(MAX),
        base().timeout(MAX).retry(Retry { cap: MAX, base: MAX, ..Retry::default() }),
        base().deadline(MAX),
        base().connect_timeout(MAX),
        base().breaker(BreakerSettings { open: MAX, open_cap: MAX, ..breaker() }),
        base().breaker(BreakerSettings { probe_lease: MAX, ..breaker() }),
        base().breaker(BreakerSettings { window: WindowSettings::Time(MAX), ..breaker() }),
        base().bulkhead(BulkheadSettings { slots: 1, queue: 1, wait: Some(MAX) }),
        base().rate_limit(RateLimit { per: MAX, ..RateLimit::default() }),
        base().rate_limit(RateLimit {
            per: secs(366 * 24 * 3600),
            calls: 1,
            burst: Some(u32::MAX),
            ..RateLimit::default()
        }),
        base().rate_limit(RateLimit { calls: u32::MAX, burst: Some(u32::MAX), ..RateLimit::default() }),
        base().retry(Retry { budget: Some(Budget { window: MAX, ..Budget::default() }), ..Retry::default() }),
    ];
    let mut built = 0;
    for builder in builders {
        let Ok(policy) = builder.build() else { continue };
        built += 1;
        for _ in 0..3 {
            policy.once(|_| async { Err::<(), _>(DOWN) }).await.ok();
        }
        policy.state();
    }
    assert_eq!(built, 9, "three are refused: the limit of connecting, the year, and a burst of millennia");
}

#[test]
fn two_policies_of_one_name_in_the_settings_are_refused() {
    let settings = || ("stock", PolicySettings::default());
    let error = Policies::from_settings([settings(), settings()]).unwrap_err();
    assert!(error.to_string().contains("`stock`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_state_tells_times_in_whole_milliseconds() {
    let breaker = BreakerSettings { consecutive_failures: Some(1), ..Profile::Slow.breaker() };
    let policy = Policy::slow("reports").breaker(breaker).build().unwrap();
    policy.once(|_| async { Err::<(), _>(DOWN) }).await.unwrap_err();
    tokio::time::advance(Duration::from_nanos(1)).await;
    let state = serde_json::to_value(policy.state()).unwrap();
    assert_eq!((&state["breaker"]["in_state_for"], &state["breaker"]["retry_after"]), (&"1ms".into(), &"60s".into()));
}
