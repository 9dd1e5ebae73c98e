use std::time::Duration;

use annals::resilience::breaker::BreakerState;

use super::profile::{END, Profile};
use super::run::{Run, simulate};

const SEEDS: [u64; 2] = [1, 2];

fn all(mut check: impl FnMut(&str, &Run)) {
    for seed in SEEDS {
        for profile in Profile::ALL {
            check(&format!("{}, seed {seed}", profile.name()), &simulate(profile, 50.0, seed).expect("simulated"));
        }
    }
}

#[test]
fn retries_stay_within_a_fifth_and_calls_succeed_within_one_open_period_and_the_probes_after_the_fault() {
    all(|name, run| {
        let summary = run.summary();
        assert!(summary.amplification <= 1.2, "{name}: {summary:?}");
        // An attempt that began before the end of the fault may take a second more, and the probes wait for calls.
        let probes = Duration::from_secs(2);
        let open = run.transitions.iter().rev().find(|transition| transition.to == BreakerState::Open);
        let half_open = run.transitions.iter().rev().find(|transition| transition.to == BreakerState::HalfOpen);
        let period = match (open, half_open) {
            (Some(open), Some(half_open)) if half_open.at > END => half_open.at - open.at,
            _ => Duration::ZERO,
        };
        assert!(run.recovery() <= period + probes, "{name}: recovered after {:?}, {period:?} open", run.recovery());
    });
}

#[test]
fn each_profile_does_what_its_name_says() {
    all(|name, run| {
        let summary = run.summary();
        let opened = run.transitions.iter().any(|transition| transition.to == BreakerState::Open);
        match run.profile {
            // Retries recover most calls, and use about the whole budget of that minute.
            Profile::Errors => assert!(summary.goodput > 0.9 && summary.amplification > 1.1, "{name}: {summary:?}"),
            // The dependency processes what it can, and the rest is refused; nothing has to recover.
            Profile::Overload => assert!(!opened && run.recovery().is_zero(), "{name}: {summary:?}"),
            // The fault lasts a third of the time, and few other calls are lost.
            Profile::Slowness | Profile::Flapping | Profile::Outage => {
                assert!(opened && summary.goodput > 0.55, "{name}: {summary:?}");
            }
        }
        let rejected = summary.rejected > 0.25;
        assert_eq!(rejected, run.profile != Profile::Errors, "{name}: {summary:?}");
    });
}

#[test]
fn the_plot_shows_every_profile_and_every_state() {
    let runs: Vec<_> = Profile::ALL.into_iter().map(|profile| simulate(profile, 50.0, 7).expect("simulated")).collect();
    let plot = super::plot::svg(&runs);
    for profile in Profile::ALL {
        assert!(plot.contains(&format!(">{}, the fault from 30s to 90s<", profile.name())), "{}", profile.name());
    }
    let states: usize = runs.iter().map(|run| run.transitions.len() + 1).sum();
    assert_eq!(plot.matches(&format!("height=\"{}\"", super::plot::BAND)).count(), states);
    assert_eq!(plot.matches("<polyline").count(), 2 * runs.len());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for profile in Profile::ALL {
        let run = |seed| simulate(profile, 50.0, seed).expect("simulated");
        let first = run(7);
        assert_eq!(first, run(7));
        assert_ne!(first, run(8));
    }
}
