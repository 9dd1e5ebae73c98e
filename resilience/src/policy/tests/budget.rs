use super::*;

/// Calls `policy` at 50 a second; all fail while `down`.
async fn traffic(policy: &Policy, time: Duration, down: bool, reached: &AtomicU32) {
    let end = Instant::now() + time;
    let mut calls = tokio::task::JoinSet::new();
    while Instant::now() < end {
        let policy = policy.clone();
        let attempts = async move {
            let answer = policy.idempotent(|_| async { if down { Err(DOWN) } else { Ok(1) } }).await;
            answer.unwrap_or_else(|error| error.attempts)
        };
        calls.spawn(attempts);
        sleep(ms(20)).await;
    }
    reached.fetch_add(calls.join_all().await.into_iter().sum(), Ordering::SeqCst);
}

fn policy(name: &str) -> Policy {
    Policy::medium(name).retry(fixed()).breaker_mode(Mode::Disabled).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_outage_does_not_refill_the_budget_and_takes_nothing_from_other_policies() {
    let (payment, stock) = (policy("payment"), policy("stock"));
    let reached = AtomicU32::new(0);
    let calls = 60 * 50;
    let during = async {
        sleep(secs(30)).await;
        always(&stock, DOWN, &AtomicU32::new(0)).await.attempts
    };
    let ((), attempts) = tokio::join!(traffic(&payment, secs(60), true, &reached), during);
    assert_eq!(attempts, 3, "the other policy has a budget of its own");
    let retries = reached.load(Ordering::SeqCst) - calls;
    // Failures add nothing, so only the reserve of 3 in 10 s is left.
    assert!(retries <= 3 * 7, "{retries} retries in the outage");

    traffic(&payment, secs(20), false, &reached).await;
    assert_eq!(
        always(&payment, DOWN, &AtomicU32::new(0)).await.attempts,
        3,
        "after the outage there are retries again"
    );
}

#[tokio::test(start_paused = true)]
async fn one_call_an_hour_has_its_retry_every_time() {
    let policy = policy("reports");
    for hour in 0..50 {
        assert_eq!(always(&policy, DOWN, &AtomicU32::new(0)).await.attempts, 3, "hour {hour}");
        sleep(secs(3_600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn amplification_stays_within_the_budget_whatever_fails() {
    for percent in [5, 20, 30, 50, 80, 100] {
        let policy = policy("payment");
        let (mut attempts, mut calls) = (0, 0);
        let mut rng = fastrand::Rng::with_seed(percent.into());
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..50 * 60 {
            calls += 1;
            let (policy, mut rng) = (policy.clone(), rng.fork());
            running.spawn(async move {
                let mut made = 0;
                let call = policy.idempotent(|_| {
                    made += 1;
                    let fails = rng.u32(0..100) < percent;
                    async move { if fails { Err(DOWN) } else { Ok(()) } }
                });
                call.await.ok();
                made
            });
            sleep(ms(20)).await;
        }
        attempts += running.join_all().await.into_iter().sum::<u32>();
        let amplification = f64::from(attempts) / f64::from(calls);
        assert!(amplification <= 1.2, "{amplification} with {percent} % of the attempts failing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_used_budget_ends_the_call_with_its_error() {
    let budget = Some(Budget { ratio: 0.0, reserve: 1, ..Budget::default() });
    let policy = Policy::medium("p").retry(Retry { budget, ..fixed() }).build().unwrap();
    let error = always(&policy, DOWN, &AtomicU32::new(0)).await;
    assert_eq!(error.attempts, 2);
    assert_eq!(error.reason, Reason::Failed { last_because: LastBecause::BudgetUsed, retry_after: None });
}

/// A retry was counted when it was decided on. All that an answer put off to one moment were made at that moment, of six
/// windows together.
#[tokio::test(start_paused = true)]
async fn retries_that_were_put_off_to_one_moment_stay_within_the_budget_of_that_moment() {
    let retry = Retry { attempts: 2, ..Retry::default() };
    let policy = Policy::slow("payment").retry(retry).breaker_mode(Mode::Disabled).deadline(secs(600)).build().unwrap();
    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let policy = policy.clone();
        calls.spawn(async move {
            let back = Status(429, Some(secs(60).saturating_sub(start.elapsed())));
            always(&policy, back, &AtomicU32::new(0)).await
        });
        sleep(secs(1)).await;
    }
    let errors = calls.join_all().await;
    assert_eq!(errors.iter().filter(|error| error.attempts == 2).count(), 3);
    let refused = errors.iter().filter(|error| error.attempts == 1);
    let because = |error: &CallError<Status>| match error.reason {
        Reason::Failed { last_because, retry_after } => (last_because, retry_after == error.source.unwrap().1),
        _ => panic!("{error:?}"),
    };
    assert!(refused.map(because).all(|because| because == (LastBecause::BudgetUsed, true)), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn successful_calls_earn_retries_and_no_others_do() {
    let budget = Some(Budget { ratio: 0.2, reserve: 0, ..Budget::default() });
    let retry = Retry { attempts: 2, budget, ..fixed() };
    let policy = Policy::medium("p").retry(retry).breaker_mode(Mode::Disabled).build().unwrap();
    for _ in 0..10 {
        always(&policy, DOWN, &AtomicU32::new(0)).await;
        always(&policy, Status(404, None), &AtomicU32::new(0)).await;
    }
    assert_eq!(policy.state().retries_left, Some(0));
    for _ in 0..10 {
        policy.once(|_| async { Ok::<_, Status>(()) }).await.unwrap();
    }
    let mut attempts = Vec::new();
    for _ in 0..3 {
        attempts.push(always(&policy, DOWN, &AtomicU32::new(0)).await.attempts);
    }
    assert_eq!(attempts, [2, 2, 1]);
}
