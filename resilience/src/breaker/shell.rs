use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::machine::{Admission, Machine, Now};
use super::watch::{Transitions, Watch};
use super::{BreakerSettings, BreakerSnapshot, BreakerState, Mode, Outcome, Refused};
use crate::error::SettingsError;

/// A circuit breaker, see [the module](super). Clones share one state.
///
/// A breaker starts no task and needs a runtime only for [`Watch`] and [`Transitions`].
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    core: Arc<Core>,
    /// The number of the last transition. Closed when the last handle and permit are dropped.
    changed: watch::Sender<u64>,
}

/// What readers keep, so that they can read the last transitions of a dropped breaker.
pub(super) struct Core {
    name: Arc<str>,
    machine: Mutex<Machine>,
    start: Instant,
}

impl Breaker {
    /// A closed breaker. Its name appears in metrics, log lines and errors.
    ///
    /// # Errors
    /// [`SettingsError`] names the settings that cannot work.
    pub fn new(name: impl Into<Arc<str>>, settings: BreakerSettings) -> Result<Self, SettingsError> {
        Self::new_in(Mode::Normal, name, settings)
    }

    /// The same in another mode than [`Mode::Normal`]: it begins so, and nothing changes.
    pub(crate) fn new_in(
        mode: Mode,
        name: impl Into<Arc<str>>,
        settings: BreakerSettings,
    ) -> Result<Self, SettingsError> {
        let name = name.into();
        settings.check(&name)?;
        let machine = Machine::new_in(mode, settings);
        show(&name, machine.state());
        let machine = Mutex::new(machine);
        let core = Arc::new(Core { name, machine, start: Instant::now() });
        Ok(Self { shared: Arc::new(Shared { core, changed: watch::Sender::new(0) }) })
    }

    /// The name given to [`new`](Self::new).
    pub fn name(&self) -> &str {
        &self.shared.core.name
    }

    /// Asks to make a call now. The permit takes its result; dropping it says that the call was abandoned.
    ///
    /// # Errors
    /// [`Refused`] if the breaker is open, or half-open with all probes under way.
    pub fn admit(&self) -> Result<Permit, Refused> {
        let admission = self.shared.with_clock(|machine, clock| machine.admit(clock))?;
        Ok(Permit { shared: self.shared.clone(), admission, outcome: Outcome::Abandoned })
    }

    /// Whether a call would be admitted now. Takes no probe's place.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn check(&self) -> Result<(), Refused> {
        self.shared.with_clock(|machine, clock| machine.check(clock))
    }

    /// The state at this moment, whether or not anybody calls.
    pub fn snapshot(&self) -> BreakerSnapshot {
        self.shared.with(Machine::snapshot)
    }

    /// The state at this moment.
    pub fn state(&self) -> BreakerState {
        self.snapshot().state
    }

    /// Changes what the breaker does, and starts anew with an empty window.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.with(|machine, now| machine.set_mode(mode, now));
    }

    /// Follows the state: the newest is always at hand, states in between may be skipped.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.shared)
    }

    /// Follows every transition from now on.
    pub fn transitions(&self) -> Transitions {
        Transitions::new(&self.shared)
    }

    /// Waits until the breaker refuses calls because it is open.
    ///
    /// Cancel-safe.
    pub(crate) async fn opened(&self) -> Refused {
        let mut changed = self.shared.changed.subscribe();
        loop {
            if let Some(refused) = self.shared.with(Machine::refusal_while_open) {
                return refused;
            }
            if changed.changed().await.is_err() {
                // This handle keeps the sender, so it is there as long as anybody waits here.
                return std::future::pending().await;
            }
        }
    }
}

/// Reads the time under the lock, so that the machine never sees it run backwards, and once at most.
struct Clock<'a> {
    core: &'a Core,
    read: Option<Duration>,
}

impl Now for Clock<'_> {
    fn get(&mut self) -> Duration {
        *self.read.get_or_insert_with(|| self.core.now())
    }
}

impl Core {
    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        // The machine has no invariant that a panic of another thread could have broken half way.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn instant(&self, since_start: Duration) -> Option<Instant> {
        self.start.checked_add(since_start)
    }
}

impl Shared {
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Machine, Duration) -> R) -> R {
        self.with_clock(|machine, mut clock| act(machine, clock.get()))
    }

    /// Everything that may change the state goes through here, so every transition is announced.
    fn with_clock<R>(&self, act: impl FnOnce(&mut Machine, Clock<'_>) -> R) -> R {
        let mut machine = self.core.lock();
        let before = machine.sequence();
        let answer = act(&mut machine, Clock { core: &self.core, read: None });
        let after = machine.sequence();
        if after != before {
            self.announce(machine, before, after);
        }
        answer
    }

    #[cold]
    fn announce(&self, machine: MutexGuard<'_, Machine>, before: u64, after: u64) {
        let transitions: Vec<_> = (before..after).filter_map(|seen| Some(machine.transition_after(seen)?.0)).collect();
        drop(machine);
        let policy = || self.core.name.clone();
        // Two threads may come here in another order than they had the lock in; the gauge shows the newest state.
        self.changed.send_if_modified(|newest| {
            let newer = after > *newest;
            if let Some(last) = transitions.last().filter(|_| newer) {
                show(&self.core.name, last.to);
            }
            *newest = after.max(*newest);
            newer
        });
        for transition in transitions {
            let (to, _) = described(transition.to);
            if transition.from == transition.to {
                tracing::info!(policy = &*self.core.name, state = to, cause = ?transition.cause, "the breaker begins anew");
                continue;
            }
            metrics::counter!("resilience_breaker_transitions_total", "policy" => policy(), "to" => to).increment(1);
            tracing::warn!(policy = &*self.core.name, from = ?transition.from, to = ?transition.to, cause = ?transition.cause, "the breaker changed its state");
        }
    }
}

/// As metrics and the log have it.
fn described(state: BreakerState) -> (&'static str, f64) {
    match state {
        BreakerState::Closed => ("closed", 0.0),
        BreakerState::HalfOpen => ("half_open", 1.0),
        BreakerState::Open => ("open", 2.0),
    }
}

/// Sets the gauge.
fn show(policy: &Arc<str>, state: BreakerState) {
    metrics::gauge!("resilience_breaker_state", "policy" => Arc::clone(policy)).set(described(state).1);
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("name", &self.shared.core.name).field("state", &self.state()).finish()
    }
}

/// An admitted call that has no result yet. Dropping it records the call as abandoned.
#[must_use = "dropping the permit records the call as abandoned"]
pub struct Permit {
    shared: Arc<Shared>,
    admission: Admission,
    outcome: Outcome,
}

impl Permit {
    /// Records how the call ended.
    pub fn record(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.with_clock(|machine, clock| machine.record(self.admission, self.outcome, clock));
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("breaker", &self.shared.core.name).finish_non_exhaustive()
    }
}
