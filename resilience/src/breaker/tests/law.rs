//! Random programs of calls, results and pauses agree with a slow and obvious model.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::super::machine::Admission;
use super::super::window::BUCKETS;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Start,
    /// Ends the call that is so many places from the oldest one under way.
    End(usize, Outcome),
    Pass(Duration),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        5 => Just(Outcome::Success),
        5 => Just(Outcome::Failure),
        1 => Just(Outcome::Ignored),
        1 => Just(Outcome::Abandoned),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => Just(Step::Start),
        5 => (0..8_usize, outcome()).prop_map(|(which, outcome)| Step::End(which, outcome)),
        2 => (0..500_u64).prop_map(|millis| Step::Pass(ms(millis))),
        1 => (900..12_000_u64).prop_map(|millis| Step::Pass(ms(millis))),
    ];
    prop::collection::vec(step, 1..200)
}

fn any_settings() -> impl Strategy<Value = BreakerSettings> {
    let window = prop_oneof![
        (1..12_u32).prop_map(WindowSettings::Calls),
        (100..4_000_u64).prop_map(|millis| WindowSettings::Time(ms(millis))),
    ];
    let rate = prop_oneof![Just(None), (1..=100_u32).prop_map(|percent| Some(f64::from(percent) / 100.0))];
    (window, 1..8_u32, rate.clone(), rate, 1..6_u32, 1..4_u32, 1..4_u32, any::<bool>()).prop_map(
        |(window, minimum, failure_rate, slow_rate, in_a_row, probes, closes_after, grows)| BreakerSettings {
            minimum_calls: match window {
                WindowSettings::Calls(calls) => minimum.min(calls),
                WindowSettings::Time(_) => minimum,
            },
            window,
            failure_rate,
            slow_call: slow_rate.map(|_| ms(800)),
            slow_rate,
            consecutive_failures: (failure_rate.is_none() && slow_rate.is_none()).then_some(in_a_row),
            open: secs(2),
            open_growth: if grows { 2.0 } else { 1.0 },
            open_cap: secs(10),
            open_jitter: 0.2,
            probes,
            closes_after: closes_after.min(probes),
            probe_lease: secs(5),
            seed: Some(1),
        },
    )
}

/// Keeps every result for ever and counts again each time.
struct Model {
    settings: BreakerSettings,
    state: BreakerState,
    generation: u64,
    until: Duration,
    results: Vec<(Duration, Mark)>,
    failures_in_a_row: u32,
    /// Every probe of this half-open state: its call, when its lease ends, and its result.
    probes: Vec<(usize, Duration, Option<bool>)>,
}

#[derive(Clone, Copy)]
struct Mark {
    failed: bool,
    slow: bool,
}

#[derive(Clone, Copy)]
struct Started {
    id: usize,
    at: Duration,
    generation: u64,
}

impl Model {
    fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: BreakerState::Closed,
            generation: 0,
            until: Duration::ZERO,
            results: Vec::new(),
            failures_in_a_row: 0,
            probes: Vec::new(),
        }
    }

    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.generation += 1;
        self.results.clear();
        self.failures_in_a_row = 0;
        self.probes.clear();
    }

    fn tick(&mut self, now: Duration) {
        if self.state == BreakerState::Open && now >= self.until {
            self.enter(BreakerState::HalfOpen);
        }
    }

    fn start(&mut self, id: usize, now: Duration) -> Option<Started> {
        self.tick(now);
        let taken = self.probes.iter().filter(|(_, until, result)| result.is_some() || *until > now).count();
        match self.state {
            BreakerState::Open => return None,
            BreakerState::HalfOpen if taken as u32 >= self.settings.probes => return None,
            BreakerState::HalfOpen => self.probes.push((id, now + self.settings.probe_lease, None)),
            BreakerState::Closed => {}
        }
        Some(Started { id, at: now, generation: self.generation })
    }

    /// Whether it opened; then the caller says until when.
    fn end(&mut self, call: Started, outcome: Outcome, now: Duration) -> bool {
        if call.generation != self.generation {
            return false;
        }
        let slow = self.settings.slow_call.is_some_and(|limit| now - call.at >= limit);
        let counts = match outcome {
            Outcome::Success | Outcome::Failure => true,
            Outcome::Abandoned => slow,
            Outcome::Ignored => false,
        };
        let good = outcome == Outcome::Success && !slow;
        if self.state == BreakerState::HalfOpen {
            let Some(place) = self.probes.iter().position(|(id, until, _)| *id == call.id && *until > now) else {
                return false;
            };
            if !counts {
                self.probes.remove(place);
            } else if good {
                self.probes[place].2 = Some(true);
                let successes = self.probes.iter().filter(|(_, _, result)| *result == Some(true)).count();
                if successes as u32 == self.settings.closes_after {
                    self.enter(BreakerState::Closed);
                }
            } else {
                self.enter(BreakerState::Open);
                return true;
            }
            return false;
        }
        if !counts {
            return false;
        }
        self.results.push((now, Mark { failed: outcome == Outcome::Failure, slow }));
        match outcome {
            Outcome::Success => self.failures_in_a_row = 0,
            Outcome::Failure => self.failures_in_a_row += 1,
            Outcome::Ignored | Outcome::Abandoned => {}
        }
        let (calls, failures, slow) = self.recount(now);
        let reached = |rate: Option<f64>, part: u32| {
            calls >= self.settings.minimum_calls
                && rate.is_some_and(|rate| part * 100 >= (rate * 100.0).round() as u32 * calls)
        };
        let in_a_row = self.settings.consecutive_failures.is_some_and(|limit| self.failures_in_a_row >= limit);
        let opens = in_a_row || reached(self.settings.failure_rate, failures) || reached(self.settings.slow_rate, slow);
        if opens {
            self.enter(BreakerState::Open);
        }
        opens
    }

    fn recount(&self, now: Duration) -> (u32, u32, u32) {
        let counted: Vec<Mark> = match self.settings.window {
            WindowSettings::Calls(calls) => {
                self.results.iter().rev().take(calls as usize).map(|(_, mark)| *mark).collect()
            }
            WindowSettings::Time(time) => {
                let span = |at: Duration| at.as_nanos() / (time.as_nanos() / BUCKETS as u128);
                let in_window = |at: Duration| span(at) + BUCKETS as u128 > span(now);
                self.results.iter().filter(|(at, _)| in_window(*at)).map(|(_, mark)| *mark).collect()
            }
        };
        let count = |which: fn(&Mark) -> bool| counted.iter().filter(|mark| which(mark)).count() as u32;
        (counted.len() as u32, count(|mark| mark.failed), count(|mark| mark.slow))
    }
}

/// What is compared with the model: the machine, or one with a fault.
struct Subject {
    machine: Machine,
    fault: Option<PlantedFault>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum PlantedFault {
    /// The window is one call, or a tenth of its time, too long.
    LongWindow,
    /// The window is one call, or a tenth of its time, too short.
    ShortWindow,
    /// A dropped probe does not give its place back.
    LostProbe,
    /// Results of another generation count.
    LateCounts,
}

impl Subject {
    fn new(mut settings: BreakerSettings, fault: Option<PlantedFault>) -> Self {
        settings.window = match (settings.window, fault) {
            (WindowSettings::Calls(calls), Some(PlantedFault::LongWindow)) => WindowSettings::Calls(calls + 1),
            (WindowSettings::Calls(calls), Some(PlantedFault::ShortWindow)) => {
                WindowSettings::Calls((calls - 1).max(1))
            }
            (WindowSettings::Time(time), Some(PlantedFault::LongWindow)) => WindowSettings::Time(time * 11 / 10),
            (WindowSettings::Time(time), Some(PlantedFault::ShortWindow)) => WindowSettings::Time(time * 9 / 10),
            (window, _) => window,
        };
        Self { machine: Machine::new(settings), fault }
    }

    fn record(&mut self, mut admission: Admission, outcome: Outcome, now: Duration) {
        match self.fault {
            Some(PlantedFault::LostProbe) if outcome == Outcome::Abandoned => return,
            Some(PlantedFault::LateCounts) => admission.generation = Some(self.machine.snapshot(now).generation),
            _ => {}
        }
        self.machine.record(admission, outcome, now);
    }
}

/// Runs a program on both and compares them after every step.
fn agree(settings: BreakerSettings, steps: Vec<Step>, fault: Option<PlantedFault>) {
    let mut subject = Subject::new(settings.clone(), fault);
    let mut model = Model::new(settings.clone());
    let mut now = Duration::ZERO;
    let mut under_way: Vec<(Admission, Started)> = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        match step {
            Step::Start => {
                let ours = subject.machine.admit(now);
                let theirs = model.start(index, now);
                assert_eq!(ours.is_ok(), theirs.is_some(), "admission at {now:?}, step {index}");
                if let (Ok(ours), Some(theirs)) = (ours, theirs) {
                    under_way.push((ours, theirs));
                }
            }
            Step::End(which, outcome) => {
                if under_way.is_empty() {
                    continue;
                }
                let (ours, theirs) = under_way.remove(which % under_way.len());
                let before = subject.machine.snapshot(now);
                model.tick(now);
                subject.record(ours, outcome, now);
                if model.end(theirs, outcome, now) {
                    model.until = subject.machine.due().expect("the model opened here, so must the machine");
                    let period = model.until - now;
                    assert!(period >= settings.open && period <= settings.open_cap, "open for {period:?}");
                }
                if theirs.generation != before.generation {
                    let after = BreakerSnapshot { late: before.late, ..subject.machine.snapshot(now) };
                    assert_eq!(after, before, "a result of another generation changed something at step {index}");
                }
            }
            Step::Pass(time) => now += time,
        }
        model.tick(now);
        let snapshot = subject.machine.snapshot(now);
        assert_eq!((snapshot.state, snapshot.generation), (model.state, model.generation), "step {index}");
        let (calls, failures, slow) = model.recount(now);
        assert_eq!((snapshot.calls, snapshot.failures, snapshot.slow), (calls, failures, slow), "step {index}");
        assert!(snapshot.probes_in_flight + snapshot.probes_succeeded <= settings.probes, "step {index}");
    }
    // Whatever happened: when all calls succeed for long enough, the breaker closes.
    for (ours, _) in under_way {
        subject.record(ours, Outcome::Abandoned, now);
    }
    for _ in 0..40 {
        now += settings.open_cap + settings.probe_lease;
        call(&mut subject.machine, now, Outcome::Success).expect("a place is free");
    }
    assert_eq!(subject.machine.state(), BreakerState::Closed);
}

proptest! {
    #![proptest_config(crate::cases::cases(1_000))]

    /// The window equals a recount of the last N, nothing of one generation changes another, and no more is admitted
    /// while half-open than there are probes.
    #[test]
    fn random_programs_agree_with_the_model(settings in any_settings(), steps in steps()) {
        agree(settings, steps, None);
    }
}

#[test]
fn planted_faults_are_caught() {
    for fault in
        [PlantedFault::LongWindow, PlantedFault::ShortWindow, PlantedFault::LostProbe, PlantedFault::LateCounts]
    {
        // The same programs each time.
        let config = Config {
            cases: 1_000,
            rng_seed: RngSeed::Fixed(7),
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Config::default()
        };
        let found = TestRunner::new(config).run(&(any_settings(), steps()), |(settings, steps)| {
            let agreed = std::panic::catch_unwind(|| agree(settings, steps, Some(fault)));
            agreed.map_err(|_| TestCaseError::fail("caught"))
        });
        assert!(found.is_err(), "{fault:?} was not noticed");
    }
}
