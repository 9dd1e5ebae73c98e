//! A dependency that is down for a minute, at 50 calls a second.

use std::sync::atomic::AtomicBool;

use super::*;

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_load_is_normal_and_the_breaker_closes_within_one_period_and_the_probes() {
    let policy = Policy::fast("payment").retry(fixed()).bulkhead(20).build().unwrap();
    let down = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let reached = Arc::new(std::sync::Mutex::new(vec![0_u32; 200]));
    let mut calls = tokio::task::JoinSet::new();
    let mut recovered = None;
    let mut allowed = Duration::ZERO;
    for number in 0..200 * 50_u32 {
        let second = start.elapsed().as_secs();
        if number == 60 * 50 {
            down.store(true, Ordering::SeqCst);
        }
        if number == 120 * 50 {
            down.store(false, Ordering::SeqCst);
            allowed = policy.breaker().snapshot().retry_after.unwrap_or_default() + secs(1);
        }
        if second >= 120 && recovered.is_none() && policy.breaker().state() == BreakerState::Closed {
            recovered = Some(start.elapsed() - secs(120));
        }
        let (policy, down, reached) = (policy.clone(), down.clone(), reached.clone());
        calls.spawn(async move {
            let call = policy.idempotent(|_| async {
                reached.lock().unwrap()[start.elapsed().as_secs() as usize] += 1;
                sleep(ms(20)).await;
                if down.load(Ordering::SeqCst) { Err(DOWN) } else { Ok(()) }
            });
            (start.elapsed(), call.await.map_err(|error| error.reason))
        });
        sleep(ms(20)).await;
    }
    let ended = calls.join_all().await;
    let reached = reached.lock().unwrap().clone();
    assert!(reached.iter().all(|second| *second <= 2 * 50), "never more than twice the normal load: {reached:?}");
    let in_outage: u32 = reached[62..120].iter().sum();
    assert!(in_outage <= 30, "{in_outage} calls reached what is down, apart from the first two seconds");
    let recovered = recovered.expect("the breaker closed again");
    assert!(recovered <= allowed, "closed {recovered:?} after the end, {allowed:?} were allowed");
    let bad = ended.into_iter().filter_map(|(at, answer)| Some((at, answer.err()?)));
    let healthy = |at: Duration| at < secs(59) || at > secs(120) + recovered;
    let bad: Vec<_> = bad.filter(|(at, _)| healthy(*at)).collect();
    assert!(bad.is_empty(), "{} calls failed while all was well, as {:?}", bad.len(), bad[0]);
}
