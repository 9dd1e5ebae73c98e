use std::time::Duration;

use super::machine::Machine;
use super::*;

mod law;
mod shared;
mod threads;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A breaker for a test: deterministic, and without growth of the open period unless asked for.
fn settings() -> BreakerSettings {
    BreakerSettings { open_growth: 1.0, seed: Some(7), ..BreakerSettings::default() }
}

/// Makes one call that ends at once.
fn call(machine: &mut Machine, at: Duration, outcome: Outcome) -> Result<(), Refused> {
    let admission = machine.admit(at)?;
    machine.record(admission, outcome, at);
    Ok(())
}

fn open(machine: &mut Machine, at: Duration) {
    while machine.state() != BreakerState::Open {
        call(machine, at, Outcome::Failure).unwrap();
    }
}

#[test]
fn ignored_probes_give_their_place_back_and_change_nothing() {
    for outcomes in [
        vec![Outcome::Ignored, Outcome::Ignored, Outcome::Ignored, Outcome::Success, Outcome::Success],
        vec![Outcome::Success, Outcome::Ignored, Outcome::Success],
        vec![Outcome::Abandoned, Outcome::Abandoned, Outcome::Abandoned, Outcome::Success, Outcome::Success],
    ] {
        let mut machine = Machine::new(settings());
        for tenth in 0..10 {
            assert_eq!(machine.state(), BreakerState::Closed);
            call(&mut machine, ms(100 * tenth), Outcome::Failure).unwrap();
        }
        assert_eq!(machine.state(), BreakerState::Open);
        for (index, &outcome) in outcomes.iter().enumerate() {
            assert_ne!(machine.state(), BreakerState::Closed, "closed before call {index} of {outcomes:?}");
            call(&mut machine, secs(31 + index as u64), outcome).unwrap();
        }
        let snapshot = machine.snapshot(secs(40));
        assert_eq!((snapshot.state, snapshot.calls), (BreakerState::Closed, 0), "{outcomes:?}");
    }
}

#[test]
fn failures_that_arrive_after_the_opening_neither_open_again_nor_move_the_timer() {
    let mut machine = Machine::new(BreakerSettings {
        failure_rate: None,
        consecutive_failures: Some(5),
        open: secs(10),
        ..settings()
    });
    let calls: Vec<_> = (0..8).map(|_| machine.admit(Duration::ZERO).unwrap()).collect();
    for (index, admission) in calls.into_iter().enumerate() {
        machine.record(admission, Outcome::Failure, ms(1_000 + 100 * index as u64));
    }
    let opening = Transition {
        number: 1,
        from: BreakerState::Closed,
        to: BreakerState::Open,
        cause: Cause::ConsecutiveFailures { failures: 5 },
        at: ms(1_400),
    };
    assert_eq!(machine.transition_after(0), Some((opening, 0)));
    assert_eq!(machine.transition_after(1), None);
    assert_eq!(machine.snapshot(ms(1_700)).late, 3);
    assert_eq!(machine.snapshot(ms(11_399)).retry_after, Some(ms(1)));
    assert_eq!(machine.snapshot(ms(11_400)).state, BreakerState::HalfOpen);
}

#[test]
fn a_call_dropped_quickly_is_abandoned_and_one_dropped_while_hanging_is_slow() {
    let settings = BreakerSettings { slow_call: Some(secs(2)), slow_rate: Some(0.5), ..settings() };
    let mut healthy = Machine::new(settings.clone());
    for _ in 0..50 {
        let admission = healthy.admit(Duration::ZERO).unwrap();
        healthy.record(admission, Outcome::Abandoned, ms(40));
    }
    let BreakerSnapshot { state, calls, failures, slow, abandoned, .. } = healthy.snapshot(ms(40));
    assert_eq!((state, calls, failures, slow, abandoned), (BreakerState::Closed, 0, 0, 0, 50));
    assert!(healthy.admit(ms(40)).is_ok());

    let mut hanging = Machine::new(settings);
    let calls: Vec<_> = (0..20).map(|_| hanging.admit(Duration::ZERO).unwrap()).collect();
    for (index, admission) in calls.into_iter().enumerate() {
        hanging.record(admission, Outcome::Abandoned, secs(6));
        let expected = if index < 9 { BreakerState::Closed } else { BreakerState::Open };
        assert_eq!(hanging.state(), expected, "after call {index}");
    }
    assert!(hanging.admit(secs(6)).is_err());
}

#[test]
fn a_slow_probe_is_a_failed_one_also_when_its_caller_left() {
    for outcome in [Outcome::Success, Outcome::Abandoned, Outcome::Failure] {
        let mut machine =
            Machine::new(BreakerSettings { slow_call: Some(secs(2)), slow_rate: Some(0.5), ..settings() });
        open(&mut machine, Duration::ZERO);
        let probe = machine.admit(secs(30)).unwrap();
        machine.record(probe, outcome, secs(32));
        assert_eq!(machine.state(), BreakerState::Open, "{outcome:?}");
    }
}

#[test]
fn a_probe_without_a_result_gives_its_place_back_after_its_lease() {
    let mut machine = Machine::new(BreakerSettings { probes: 1, closes_after: 1, probe_lease: secs(5), ..settings() });
    open(&mut machine, Duration::ZERO);
    let lost = machine.admit(secs(30)).unwrap();
    assert_eq!(machine.admit(ms(34_999)), Err(Refused::ProbesTaken));
    let probe = machine.admit(secs(35)).unwrap();
    machine.record(lost, Outcome::Success, secs(36));
    let BreakerSnapshot { state, late, probes_in_flight, .. } = machine.snapshot(secs(36));
    assert_eq!((state, late, probes_in_flight), (BreakerState::HalfOpen, 1, 1), "the lost probe does not count");
    machine.record(probe, Outcome::Success, secs(37));
    assert_eq!(machine.state(), BreakerState::Closed);
}

#[test]
fn a_lost_place_is_back_although_nobody_asks_and_a_late_loser_opens_nothing() {
    let mut machine = Machine::new(BreakerSettings { probe_lease: secs(5), ..settings() });
    open(&mut machine, Duration::ZERO);
    let lost = machine.admit(secs(30)).unwrap();
    assert_eq!(machine.snapshot(secs(34)).probes_in_flight, 1);
    assert_eq!(machine.snapshot(secs(35)).probes_in_flight, 0);
    machine.record(lost, Outcome::Failure, secs(35));
    assert_eq!(machine.state(), BreakerState::HalfOpen);
}

#[test]
fn each_further_opening_lasts_longer_up_to_the_cap_and_closing_starts_anew() {
    let grows = BreakerSettings { open_growth: 2.0, open_jitter: 0.1, open_cap: secs(100), ..settings() };
    let mut machine = Machine::new(grows);
    let mut now = Duration::ZERO;
    open(&mut machine, now);
    for (least, most) in [(30, 30), (54, 60), (90, 100), (90, 100), (90, 100)] {
        let period = machine.snapshot(now).retry_after.unwrap();
        assert!((secs(least)..=secs(most)).contains(&period), "{period:?} is not within {least}..={most} s");
        now += period;
        call(&mut machine, now, Outcome::Failure).unwrap();
    }
    now += secs(100);
    call(&mut machine, now, Outcome::Success).unwrap();
    call(&mut machine, now, Outcome::Success).unwrap();
    open(&mut machine, now);
    assert_eq!(machine.snapshot(now).retry_after, Some(secs(30)));
}

#[test]
fn modes_admit_and_count_as_they_say() {
    let mut machine = Machine::new(settings());
    let before = machine.admit(secs(0)).unwrap();
    machine.set_mode(Mode::HeldOpen, secs(1));
    assert_eq!(machine.admit(secs(1_000_000)), Err(Refused::HeldOpen), "held open has no end");
    assert_eq!(machine.snapshot(secs(2)).retry_after, None);

    machine.set_mode(Mode::HeldClosed, secs(3));
    machine.record(before, Outcome::Failure, secs(3));
    for _ in 0..20 {
        call(&mut machine, secs(3), Outcome::Failure).unwrap();
    }
    let BreakerSnapshot { state, failures, late, .. } = machine.snapshot(secs(3));
    assert_eq!((state, failures, late), (BreakerState::Closed, 10, 1));

    machine.set_mode(Mode::Disabled, secs(4));
    call(&mut machine, secs(4), Outcome::Failure).unwrap();
    assert_eq!(machine.snapshot(secs(4)).calls, 0);

    machine.set_mode(Mode::MetricsOnly, secs(5));
    for _ in 0..15 {
        call(&mut machine, secs(5), Outcome::Failure).unwrap();
    }
    let BreakerSnapshot { state, refused, .. } = machine.snapshot(secs(5));
    assert_eq!((state, refused), (BreakerState::Open, 6), "5 would have been refused, and one before while held open");

    machine.set_mode(Mode::Normal, secs(6));
    let BreakerSnapshot { state, calls, .. } = machine.snapshot(secs(6));
    assert_eq!((state, calls), (BreakerState::Closed, 0));
}

#[test]
fn a_reader_that_is_far_behind_learns_how_many_it_missed() {
    let mut machine = Machine::new(BreakerSettings { probes: 1, closes_after: 1, ..settings() });
    for _ in 0..300 {
        machine.set_mode(Mode::Normal, Duration::ZERO);
    }
    let (transition, missed) = machine.transition_after(0).unwrap();
    assert_eq!((transition.number, missed), (45, 44));
    assert_eq!(machine.transition_after(44).unwrap().1, 0);
    assert_eq!(machine.transition_after(300), None);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let base = settings;
    let refused = |settings: BreakerSettings| Breaker::new("stock", settings).unwrap_err().to_string();
    let messages = [
        refused(BreakerSettings { window: WindowSettings::Calls(5), minimum_calls: 10, ..base() }),
        refused(BreakerSettings { window: WindowSettings::Calls(0), ..base() }),
        refused(BreakerSettings { window: WindowSettings::Time(Duration::ZERO), ..base() }),
        refused(BreakerSettings { minimum_calls: 0, ..base() }),
        refused(BreakerSettings { slow_call: Some(secs(1)), ..base() }),
        refused(BreakerSettings { failure_rate: None, ..base() }),
        refused(BreakerSettings { consecutive_failures: Some(0), ..base() }),
        refused(BreakerSettings { open: Duration::ZERO, ..base() }),
        refused(BreakerSettings { open_growth: 0.5, ..base() }),
        refused(BreakerSettings { open_cap: secs(1), ..base() }),
        refused(BreakerSettings { open_jitter: 2.0, ..base() }),
        refused(BreakerSettings { probes: 0, closes_after: 0, ..base() }),
        refused(BreakerSettings { closes_after: 4, probes: 3, ..base() }),
        refused(BreakerSettings { probe_lease: Duration::ZERO, ..base() }),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn a_rate_is_above_0_and_at_most_1() {
    for (rate, accepted) in
        [(0.0, false), (0.5, true), (1.0, true), (1.5, false), (50.0, false), (f64::NAN, false), (-0.1, false)]
    {
        let failures = Breaker::new("b", BreakerSettings { failure_rate: Some(rate), ..settings() });
        let slow = BreakerSettings { slow_rate: Some(rate), slow_call: Some(secs(1)), ..settings() };
        let slow = Breaker::new("b", slow);
        assert_eq!((failures.is_ok(), slow.is_ok()), (accepted, accepted), "{rate}");
        if !accepted {
            assert!(failures.unwrap_err().to_string().contains("`breaker.failure_rate`"));
            assert!(slow.unwrap_err().to_string().contains("`breaker.slow_rate`"));
        }
    }
}

#[test]
fn settings_come_from_a_file_and_unknown_names_are_refused() {
    let read = |text: &str| serde_json::from_str::<BreakerSettings>(text);
    let expected = BreakerSettings {
        window: WindowSettings::Time(secs(60)),
        open: ms(1_500),
        slow_call: Some(secs(2)),
        slow_rate: Some(0.8),
        ..BreakerSettings::default()
    };
    let text = r#"{"window": {"time": "60s"}, "open": "1.5s", "slow_call": "2s", "slow_rate": 0.8}"#;
    assert_eq!(read(text).unwrap(), expected);
    assert_eq!(read(&serde_json::to_string(&expected).unwrap()).unwrap(), expected);
    assert_eq!(read("{}").unwrap(), BreakerSettings::default());
    assert!(read(r#"{"opens": "1s"}"#).is_err() && read(r#"{"open": 1}"#).is_err());
}
