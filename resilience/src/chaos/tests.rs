use super::*;
use crate::error::{CallError, Reason, TimeLimit};
use crate::{Policy, retry::Retry};

fn all_kinds() -> ChaosSettings {
    ChaosSettings {
        seed: 11,
        latency: 0.3,
        errors: 0.2,
        timeouts_after_effect: 0.1,
        cancellations: 0.2,
        ..ChaosSettings::default()
    }
}

#[test]
fn faults_are_as_frequent_as_asked_for_and_follow_from_the_seed_alone() {
    let settings = all_kinds();
    let fates: Vec<_> = (0..10_000).map(|attempt| settings.fate(attempt)).collect();
    let share = |which: fn(&Fate) -> bool| fates.iter().filter(|fate| which(fate)).count() as f64 / 10_000.0;
    let near = |share: f64, expected: f64| assert!((share - expected).abs() < 0.02, "{share} is not near {expected}");
    near(share(|fate| fate.latency.is_some()), 0.3);
    near(share(|fate| fate.fault == Fault::Error), 0.2);
    near(share(|fate| fate.fault == Fault::TimeoutAfterEffect), 0.1);
    near(share(|fate| matches!(fate.fault, Fault::Cancel { .. })), 0.2);
    let again: Vec<_> = (0..10_000).map(|attempt| all_kinds().fate(attempt)).collect();
    assert_eq!(fates, again);
    let other = ChaosSettings { seed: 12, ..all_kinds() };
    assert_ne!(fates, (0..10_000).map(|attempt| other.fate(attempt)).collect::<Vec<_>>());
    assert!(fates.iter().all(|fate| fate.latency.is_none_or(|latency| latency <= settings.latency_up_to)));
}

/// What a seeded run of one caller came to, call by call.
async fn run(policy: &Policy) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..50 {
        let start = tokio::time::Instant::now();
        let answer: Result<(), CallError<std::io::Error>> = policy.idempotent(|_| async { Ok(()) }).await;
        seen.push(format!("{:?} after {:?}", answer.map_err(|error| error.reason), start.elapsed()));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn one_number_repeats_a_whole_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let policy = Policy::fast("stock").retry(Retry { seed: Some(5), ..Retry::default() }).build().unwrap();
        policy.set_chaos(Some(all_kinds())).unwrap();
        runs.push(run(&policy).await);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_what_it_says() {
    let timeout = Duration::from_secs(1);
    let policy = Policy::fast("stock").timeout(timeout).build().unwrap();
    let effects = std::sync::atomic::AtomicU32::new(0);
    let call = || {
        policy.once(|_| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            effects.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(())
        })
    };
    let with = |settings: ChaosSettings| policy.set_chaos(Some(settings)).unwrap();

    with(ChaosSettings { errors: 1.0, ..ChaosSettings::default() });
    let error = call().await.unwrap_err();
    assert_eq!((error.reason, error.may_have_happened()), (Reason::Injected, false));
    assert_eq!(effects.load(Ordering::SeqCst), 0);

    with(ChaosSettings { timeouts_after_effect: 1.0, ..ChaosSettings::default() });
    let error = call().await.unwrap_err();
    assert_eq!(error.reason, Reason::TimedOut { limit: TimeLimit::Attempt(timeout) });
    assert_eq!((effects.load(Ordering::SeqCst), error.may_have_happened()), (1, true));

    with(ChaosSettings { cancellations: 1.0, ..ChaosSettings::default() });
    let error = call().await.unwrap_err();
    assert_eq!((error.reason, error.may_have_happened()), (Reason::Injected, true));
    assert_eq!(effects.load(Ordering::SeqCst), 1);

    with(ChaosSettings { latency: 1.0, ..ChaosSettings::default() });
    call().await.unwrap();
    assert_eq!(policy.breaker().snapshot().failures, 3);

    policy.set_chaos(None).unwrap();
    call().await.unwrap();
    assert_eq!(effects.load(Ordering::SeqCst), 3);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refused = |settings: ChaosSettings| settings.check("stock").unwrap_err().to_string();
    let messages = [
        refused(ChaosSettings { errors: 1.5, ..ChaosSettings::default() }),
        refused(ChaosSettings { latency: f64::NAN, ..ChaosSettings::default() }),
        refused(ChaosSettings {
            errors: 0.6,
            timeouts_after_effect: 0.3,
            cancellations: 0.2,
            ..ChaosSettings::default()
        }),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}
