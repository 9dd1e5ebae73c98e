//! The circuit breaker as a pure state machine: every input carries its time, given as the time since the machine was
//! made. Nothing here reads a clock, waits or locks.

use std::collections::VecDeque;
use std::time::Duration;

use super::settings::BreakerSettings;
use super::window::{Mark, Sums, Window};
use super::{BreakerSnapshot, BreakerState, Cause, Mode, Outcome, Refused, Transition};
use crate::ratio::Ratio;

/// The time of an input. It is read only where it matters, since reading a clock takes longer than all the rest.
pub(super) trait Now {
    fn get(&mut self) -> Duration;
}

impl Now for Duration {
    fn get(&mut self) -> Duration {
        *self
    }
}

/// How many transitions a reader of them may be behind without missing one.
pub(super) const TRANSITIONS_KEPT: usize = 256;

/// An admitted call. Its result counts only in the generation that admitted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admission {
    /// `None` for a call that a disabled or watching breaker let pass without counting it.
    pub(super) generation: Option<u64>,
    probe: Option<u64>,
    admitted: Duration,
}

#[derive(Debug)]
pub(super) struct Machine {
    settings: BreakerSettings,
    limits: Limits,
    mode: Mode,
    phase: Phase,
    /// Grows with each transition. What was admitted in one generation changes nothing in another.
    generation: u64,
    since: Duration,
    window: Window,
    failures_in_a_row: u32,
    /// Openings since the breaker was last closed.
    openings: u32,
    next_probe: u64,
    rng: fastrand::Rng,
    transitions: VecDeque<Transition>,
    sequence: u64,
    late: u64,
    abandoned: u64,
    refused: u64,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { successes: u32, leases: Vec<Lease> },
}

/// The place of a probe without a result yet.
#[derive(Debug, Clone, Copy)]
struct Lease {
    probe: u64,
    until: Duration,
}

#[derive(Debug)]
struct Limits {
    failure_rate: Option<Ratio>,
    slow_rate: Option<Ratio>,
}

impl Machine {
    /// For settings that were checked.
    #[cfg(test)]
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self::new_in(Mode::Normal, settings)
    }

    pub(super) fn new_in(mode: Mode, settings: BreakerSettings) -> Self {
        let phase = match mode {
            Mode::HeldOpen => Phase::Open { until: Duration::MAX },
            Mode::Normal | Mode::HeldClosed | Mode::Disabled | Mode::MetricsOnly => Phase::Closed,
        };
        let rate = |rate: Option<f64>| rate.and_then(Ratio::new);
        Self {
            limits: Limits { failure_rate: rate(settings.failure_rate), slow_rate: rate(settings.slow_rate) },
            mode,
            phase,
            generation: 0,
            since: Duration::ZERO,
            window: Window::new(settings.window),
            failures_in_a_row: 0,
            openings: 0,
            next_probe: 0,
            rng: settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            transitions: VecDeque::new(),
            sequence: 0,
            late: 0,
            abandoned: 0,
            refused: 0,
            settings,
        }
    }

    /// Asks to make a call. What is admitted must be recorded.
    pub(super) fn admit(&mut self, mut now: impl Now) -> Result<Admission, Refused> {
        if matches!((&self.phase, self.mode), (Phase::Closed, Mode::Normal)) {
            let admitted = self.settings.slow_call.map_or(Duration::ZERO, |_| now.get());
            return Ok(Admission { generation: Some(self.generation), probe: None, admitted });
        }
        let now = now.get();
        let uncounted = Admission { generation: None, probe: None, admitted: now };
        if self.mode == Mode::Disabled {
            return Ok(uncounted);
        }
        match self.would_admit(now) {
            Ok(()) => {}
            Err(_) if self.mode == Mode::MetricsOnly => {
                self.refused += 1;
                return Ok(uncounted);
            }
            Err(refused) => {
                self.refused += 1;
                return Err(refused);
            }
        }
        let probe = match &mut self.phase {
            Phase::HalfOpen { leases, .. } => {
                self.next_probe += 1;
                let until = now.saturating_add(self.settings.probe_lease);
                leases.push(Lease { probe: self.next_probe, until });
                Some(self.next_probe)
            }
            Phase::Closed | Phase::Open { .. } => None,
        };
        Ok(Admission { generation: Some(self.generation), probe, admitted: now })
    }

    /// Whether [`admit`](Self::admit) would admit a call, without taking a probe's place.
    pub(super) fn check(&mut self, mut now: impl Now) -> Result<(), Refused> {
        match self.mode {
            Mode::Disabled | Mode::MetricsOnly => Ok(()),
            Mode::Normal if matches!(self.phase, Phase::Closed) => Ok(()),
            Mode::Normal | Mode::HeldOpen | Mode::HeldClosed => {
                self.would_admit(now.get()).inspect_err(|_| self.refused += 1)
            }
        }
    }

    /// The answer to those who wait for their turn when the breaker opens.
    pub(super) fn refusal_while_open(&mut self, now: Duration) -> Option<Refused> {
        self.tick(now);
        match (self.mode, &self.phase) {
            (Mode::Disabled | Mode::MetricsOnly, _) => None,
            (_, Phase::Open { .. }) => self.check(now).err(),
            _ => None,
        }
    }

    fn would_admit(&mut self, now: Duration) -> Result<(), Refused> {
        self.tick(now);
        if self.mode == Mode::HeldOpen {
            return Err(Refused::HeldOpen);
        }
        match &mut self.phase {
            Phase::Closed => Ok(()),
            Phase::Open { until } => Err(Refused::Open { retry_after: until.saturating_sub(now) }),
            Phase::HalfOpen { successes, leases } => {
                leases.retain(|lease| lease.until > now);
                // A success keeps its place: in all no more calls are let through than there are probes.
                let taken = leases.len() as u32 + *successes;
                if taken < self.settings.probes { Ok(()) } else { Err(Refused::ProbesTaken) }
            }
        }
    }

    /// Takes the result of an admitted call.
    pub(super) fn record(&mut self, admission: Admission, outcome: Outcome, mut now: impl Now) {
        let Some(generation) = admission.generation else { return };
        if generation != self.generation {
            self.late += 1;
            return;
        }
        let took = self.settings.slow_call.map_or(Duration::ZERO, |_| now.get().saturating_sub(admission.admitted));
        let mark = self.mark(outcome, took);
        match &mut self.phase {
            Phase::Closed => {
                if let Some(mark) = mark {
                    self.count(mark, outcome, now);
                }
            }
            // Nothing is admitted while open, so there is no result of this generation.
            Phase::Open { .. } => {}
            Phase::HalfOpen { successes, leases } => {
                let now = now.get();
                leases.retain(|lease| lease.until > now);
                let Some(place) = leases.iter().position(|lease| Some(lease.probe) == admission.probe) else {
                    self.late += 1;
                    return;
                };
                leases.swap_remove(place);
                match mark {
                    None => {}
                    Some(Mark { failed: false, slow: false }) => {
                        *successes += 1;
                        if *successes >= self.settings.closes_after {
                            self.close(Cause::ProbesSucceeded, now);
                        }
                    }
                    Some(_) => self.open(Cause::ProbeFailed, now),
                }
            }
        }
        if mark.is_none() && outcome == Outcome::Abandoned {
            self.abandoned += 1;
        }
    }

    /// How an outcome counts, in every state alike; `None`: not at all.
    fn mark(&self, outcome: Outcome, took: Duration) -> Option<Mark> {
        let slow = self.settings.slow_call.is_some_and(|limit| took >= limit);
        match outcome {
            Outcome::Success => Some(Mark { failed: false, slow }),
            Outcome::Failure => Some(Mark { failed: true, slow }),
            Outcome::Abandoned if slow => Some(Mark { failed: false, slow }),
            Outcome::Abandoned | Outcome::Ignored => None,
        }
    }

    fn count(&mut self, mark: Mark, outcome: Outcome, mut now: impl Now) {
        let time = if self.window.forgets_by_time() { now.get() } else { Duration::ZERO };
        self.window.add(mark, time);
        match outcome {
            Outcome::Success => self.failures_in_a_row = 0,
            Outcome::Failure => self.failures_in_a_row += 1,
            Outcome::Ignored | Outcome::Abandoned => {}
        }
        if self.mode == Mode::HeldClosed {
            return;
        }
        if let Some(cause) = self.reason_to_open(time) {
            self.open(cause, now.get());
        }
    }

    fn reason_to_open(&mut self, now: Duration) -> Option<Cause> {
        let Sums { calls, failures, slow } = self.window.sums(now);
        if self.settings.consecutive_failures.is_some_and(|limit| self.failures_in_a_row >= limit) {
            return Some(Cause::ConsecutiveFailures { failures: self.failures_in_a_row });
        }
        if calls < self.settings.minimum_calls {
            return None;
        }
        if self.limits.failure_rate.is_some_and(|rate| rate.is_reached(failures, calls)) {
            return Some(Cause::FailureRate { failures, calls });
        }
        if self.limits.slow_rate.is_some_and(|rate| rate.is_reached(slow, calls)) {
            return Some(Cause::SlowRate { slow, calls });
        }
        None
    }

    fn open(&mut self, cause: Cause, now: Duration) {
        let until = now.saturating_add(self.open_period());
        self.openings = self.openings.saturating_add(1);
        self.enter(Phase::Open { until }, cause, now);
    }

    /// The first period is exact; further ones grow, and are spread over processes.
    fn open_period(&mut self) -> Duration {
        let BreakerSettings { open, open_growth, open_cap, open_jitter, .. } = self.settings;
        if self.openings == 0 || open_growth == 1.0 {
            return open;
        }
        let grown = open.as_secs_f64() * open_growth.powi(self.openings.min(1_000) as i32);
        let grown = grown.min(open_cap.as_secs_f64());
        let spread = grown * (1.0 - open_jitter * self.rng.f64());
        Duration::try_from_secs_f64(spread).unwrap_or(open_cap).clamp(open, open_cap)
    }

    fn close(&mut self, cause: Cause, now: Duration) {
        self.openings = 0;
        self.enter(Phase::Closed, cause, now);
    }

    /// An open breaker becomes half-open by time alone. The transition carries the moment when it was due.
    pub(super) fn tick(&mut self, now: Duration) {
        if let Phase::Open { until } = self.phase
            && until <= now
        {
            self.enter(Phase::HalfOpen { successes: 0, leases: Vec::new() }, Cause::OpenPeriodOver, until);
        }
    }

    fn enter(&mut self, phase: Phase, cause: Cause, at: Duration) {
        let from = self.state();
        self.phase = phase;
        self.generation += 1;
        self.since = at;
        self.window.clear();
        self.failures_in_a_row = 0;
        self.sequence += 1;
        if self.transitions.len() == TRANSITIONS_KEPT {
            self.transitions.pop_front();
        }
        let to = self.state();
        self.transitions.push_back(Transition { number: self.sequence, from, to, cause, at });
    }

    /// Starts anew under `mode`: closed (or open, for [`Mode::HeldOpen`]) with an empty window.
    pub(super) fn set_mode(&mut self, mode: Mode, now: Duration) {
        self.tick(now);
        self.mode = mode;
        match mode {
            Mode::HeldOpen => self.enter(Phase::Open { until: Duration::MAX }, Cause::ByHand, now),
            Mode::Normal | Mode::HeldClosed | Mode::Disabled | Mode::MetricsOnly => self.close(Cause::ByHand, now),
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When an open breaker becomes half-open.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } if until < Duration::MAX => Some(until),
            _ => None,
        }
    }

    /// The first kept transition after number `seen`, and how many before it are no longer kept.
    pub(super) fn transition_after(&self, seen: u64) -> Option<(Transition, u64)> {
        let oldest = self.transitions.front()?.number;
        let wanted = seen + 1;
        let index = usize::try_from(wanted.saturating_sub(oldest)).ok()?;
        Some((*self.transitions.get(index)?, oldest.saturating_sub(wanted)))
    }

    pub(super) fn snapshot(&mut self, now: Duration) -> BreakerSnapshot {
        self.tick(now);
        let Sums { calls, failures, slow } = self.window.sums(now);
        let (probes_in_flight, probes_succeeded) = match &self.phase {
            Phase::HalfOpen { successes, leases } => {
                (leases.iter().filter(|lease| lease.until > now).count() as u32, *successes)
            }
            Phase::Closed | Phase::Open { .. } => (0, 0),
        };
        BreakerSnapshot {
            state: self.state(),
            mode: self.mode,
            generation: self.generation,
            in_state_for: now.saturating_sub(self.since),
            retry_after: self.due().map(|until| until.saturating_sub(now)),
            calls,
            failures,
            slow,
            probes_in_flight,
            probes_succeeded,
            late: self.late,
            abandoned: self.abandoned,
            refused: self.refused,
        }
    }
}
