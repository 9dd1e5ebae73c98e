use std::time::Duration;

use backon::{BackoffBuilder, Retryable};
use proptest::prelude::*;

use super::budget::{Account, SPANS};
use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const KINDS: [Jitter; 4] = [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated];

fn retry(jitter: Jitter, base: Duration, cap: Duration) -> Retry {
    Retry { jitter, base, cap, seed: Some(3), ..Retry::default() }
}

#[test]
fn waits_are_finite_and_within_their_bounds_whatever_their_number() {
    for jitter in KINDS {
        let check = |retry: &Retry, number: u32, delay: Duration| {
            let exponential = retry.base.as_secs_f64() * retry.factor.powf(f64::from(number));
            let exponential = exponential.min(retry.cap.as_secs_f64());
            let least = match jitter {
                Jitter::None => exponential,
                Jitter::Full => 0.0,
                Jitter::Equal => exponential / 2.0,
                Jitter::Decorrelated => retry.base.as_secs_f64(),
            };
            assert!(delay <= retry.cap, "{jitter:?} {number}: {delay:?}");
            assert!(delay.as_secs_f64() >= least - 1e-9, "{jitter:?} {number}: {delay:?} is below {least}");
        };
        let long = retry(jitter, ms(1_000), Duration::from_secs(15 * 60));
        for (number, delay) in long.delays().take(5_000).enumerate() {
            check(&long, number as u32, delay);
        }
        let short = retry(jitter, ms(30), ms(1_000));
        for number in [38, 39, 49, 62, 63, 64, 65, 100, 1025, u32::MAX] {
            for delay in short.delays().starting_at(number).take(3) {
                check(&short, number, delay);
            }
        }
    }
}

#[test]
fn a_seed_repeats_the_waits_and_without_jitter_they_double() {
    let seeded = retry(Jitter::Full, ms(100), ms(2_000));
    assert_eq!(seeded.delays().take(20).collect::<Vec<_>>(), seeded.delays().take(20).collect::<Vec<_>>());
    let plain: Vec<_> = retry(Jitter::None, ms(100), ms(450)).delays().take(4).collect();
    assert_eq!(plain, [ms(100), ms(200), ms(400), ms(450)]);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refused = |retry: Retry| retry.check("payment").unwrap_err().to_string();
    let base = Retry::default;
    let budget = |budget| Retry { budget: Some(budget), ..Retry::default() };
    let messages = [
        refused(Retry { attempts: 0, ..base() }),
        refused(Retry { attempts: 11, ..base() }),
        refused(Retry { base: Duration::ZERO, ..base() }),
        refused(Retry { base: ms(1_000), cap: ms(100), ..base() }),
        refused(Retry { base: ms(1_000), cap: ms(500), ..base() }),
        refused(Retry { factor: 0.5, ..base() }),
        refused(Retry { factor: f64::NAN, ..base() }),
        refused(budget(Budget { ratio: 1.5, ..Budget::default() })),
        refused(budget(Budget { window: Duration::ZERO, ..Budget::default() })),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn the_waits_are_a_backoff_of_backon() {
    let settings = Retry { jitter: Jitter::None, attempts: 3, ..Retry::default() };
    let calls = std::cell::Cell::new(0);
    let start = tokio::time::Instant::now();
    let result = (|| async {
        calls.set(calls.get() + 1);
        Err::<(), _>("no")
    })
    .retry(settings.build())
    .sleep(tokio::time::sleep)
    .await;
    assert_eq!((result, calls.get(), start.elapsed()), (Err("no"), 3, ms(300)));
}

#[test]
fn fractions_of_the_budget_are_exact() {
    for (ratio, deposits, expected) in
        [(0.6, 10, 6), (0.3, 100, 30), (0.35, 100, 35), (0.15, 100, 15), (0.2, 100, 20), (1.0, 100, 100), (0.0, 100, 0)]
    {
        let mut account = Account::new(&Budget { ratio, reserve: 0, ..Budget::default() });
        for _ in 0..deposits {
            account.deposit(ms(5));
        }
        let granted = (0..2 * deposits).filter(|_| account.withdraw(ms(5)).is_some()).count();
        assert_eq!(granted, expected, "{ratio} of {deposits}");
    }
}

/// Retries that are granted in an outage of a minute, in which 50 calls a second all ask for one.
fn in_an_outage(failures_deposit: bool) -> usize {
    let mut account = Account::new(&Budget::default());
    let mut granted = 0;
    for call in 0..3_000 {
        if failures_deposit {
            account.deposit(ms(20 * call));
        }
        granted += usize::from(account.withdraw(ms(20 * call)).is_some());
    }
    granted
}

#[test]
fn failures_add_nothing_and_the_reserve_is_there_in_every_window() {
    let reserves = 3 * 7;
    assert!(in_an_outage(false) <= reserves, "{} retries", in_an_outage(false));
    assert!(in_an_outage(true) > reserves, "a budget that failures refill would be noticed");
    let mut account = Account::new(&Budget::default());
    for hour in 1..100 {
        assert!(account.withdraw(Duration::from_secs(3_600 * hour)).is_some(), "one call an hour, hour {hour}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_spent_goes_back() {
    let budget = RetryBudget::new("payment", &Budget { ratio: 0.0, reserve: 1, ..Budget::default() }).unwrap();
    drop(budget.withdraw().unwrap());
    let kept = budget.withdraw().unwrap();
    assert!(budget.withdraw().is_none());
    tokio::time::advance(Duration::from_secs(60)).await;
    drop(kept);
    assert_eq!(budget.left(), 1, "a refund of long ago adds nothing");
    assert!(budget.withdraw().unwrap().spend());
    assert_eq!(budget.left(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Deposit,
    Withdraw,
    Refund(usize),
    Spend(usize),
    Pass(u64),
}

proptest! {
    #![proptest_config(crate::cases::cases(500))]

    /// In no window are there more retries than the deposits in it and the reserve allow, and as many are granted as a
    /// recount over the spans allows.
    #[test]
    fn retries_stay_within_the_budget_in_every_window(
        ratio in (0..=20_u32).prop_map(|twentieths| f64::from(twentieths) / 20.0),
        reserve in 0..4_u32,
        steps in prop::collection::vec(
            prop_oneof![
                5 => Just(Step::Deposit),
                5 => Just(Step::Withdraw),
                1 => (0..5_usize).prop_map(Step::Refund),
                2 => (0..5_usize).prop_map(Step::Spend),
                3 => (0..300_u64).prop_map(Step::Pass),
                1 => (500..15_000_u64).prop_map(Step::Pass),
            ],
            1..300,
        ),
    ) {
        let window = 10_000;
        let budget = Budget { ratio, reserve, window: ms(window) };
        let mut account = Account::new(&budget);
        let (mut now, mut deposits, mut retries) = (0_u64, Vec::<u64>::new(), Vec::<(u64, u64)>::new());
        let allowed = |deposits: usize| (ratio * 20.0).round() as usize * deposits / 20 + reserve as usize;
        let span = |at: u64| at / (window / SPANS);
        for step in steps {
            match step {
                Step::Deposit => {
                    account.deposit(ms(now));
                    deposits.push(now);
                }
                // One that is made is counted anew at that moment, and must be allowed anew.
                Step::Withdraw | Step::Spend(_) => {
                    let put_off = match step {
                        Step::Spend(which) if which < retries.len() => Some(retries.remove(retries.len() - 1 - which)),
                        Step::Spend(_) => continue,
                        _ => None,
                    };
                    let counted = deposits.iter().filter(|at| span(**at) + SPANS > span(now)).count();
                    let taken = retries.iter().filter(|(at, _)| span(*at) + SPANS >= span(now)).count();
                    let granted = match put_off {
                        Some((_, of)) => account.spend(of, ms(now)).then(|| span(now)),
                        None => account.withdraw(ms(now)),
                    };
                    prop_assert_eq!(granted.is_some(), taken < allowed(counted), "at {}", now);
                    retries.extend(granted.map(|span| (now, span)));
                    let in_window = |at: u64| at + window > now;
                    let exact_deposits = deposits.iter().filter(|at| in_window(**at)).count();
                    let exact = retries.iter().filter(|(at, _)| in_window(*at)).count();
                    if granted.is_some() {
                        prop_assert!(exact <= allowed(exact_deposits), "{exact} retries at {now}");
                    }
                }
                Step::Refund(which) if which < retries.len() => {
                    let (_, span) = retries.remove(retries.len() - 1 - which);
                    account.refund(span, ms(now));
                }
                Step::Refund(_) => {}
                Step::Pass(millis) => now += millis,
            }
        }
    }
}
