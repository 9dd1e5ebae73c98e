//! Which instances this process runs, and which it has just run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::any_saga::Key;
use super::instances::SLOTS;
use crate::control::Control;

/// The wait after the first run that failed, and the longest one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How many instances that were run are remembered, twice, and how long.
const MOST_RECENT: usize = 10_000;
const RECENT: Duration = Duration::from_secs(30);

/// How the runner takes an instance.
#[derive(Debug)]
pub(crate) enum Begin {
    /// It is to be run until this stops it.
    Run(Arc<Control>),
    /// It runs already, and is looked at once more afterwards.
    Runs,
    /// As many run as may.
    Full,
    /// Not now: its row is older than what this process did, its last run failed a moment ago, or its slot is on its way to another
    /// process.
    Not,
}

/// The instances that run in this process.
pub(crate) struct InFlight {
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closing: bool,
    runs: HashMap<Key, Run>,
    /// When another process was last given to understand that it gets a slot, by slot.
    leaving: HashMap<u32, Instant>,
    recent: Recent,
    /// Whether an instance was refused for want of room.
    was_full: bool,
}

struct Run {
    slot: u32,
    again: bool,
    control: Arc<Control>,
    /// Dropped when it has ended.
    done: watch::Sender<()>,
}

/// How runs ended, in two generations: what was remembered long enough is forgotten, which costs a look at an instance.
#[derive(Default)]
struct Recent {
    new: HashMap<Key, Ended>,
    old: HashMap<Key, Ended>,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Ended {
    /// The version up to which the instance was run.
    version: i64,
    /// How many runs have failed, one after the other.
    failed: u32,
    not_before: Option<Instant>,
    at: Option<Instant>,
}

impl Recent {
    fn get(&self, key: &Key) -> Option<Ended> {
        let known = self.new.get(key).or_else(|| self.old.get(key)).copied()?;
        // A log that was set back has versions below the remembered one.
        known.at.is_some_and(|at| at.elapsed() < 2 * RECENT).then_some(known)
    }

    fn insert(&mut self, key: Key, ended: Ended) {
        let now = Instant::now();
        let ended = Ended { at: Some(now), ..ended };
        let since = *self.since.get_or_insert(now);
        if self.new.len() >= MOST_RECENT || now - since > RECENT {
            self.old = std::mem::take(&mut self.new);
            self.since = Some(now);
        }
        self.new.insert(key, ended);
    }
}

impl InFlight {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().runs.len()
    }

    /// How many more may run.
    pub(crate) fn room(&self) -> usize {
        self.most - self.count().min(self.most)
    }

    /// Takes an instance of a slot that this process has. `row` is the version of its row, if it was found by that.
    pub(crate) fn begin(&self, key: &Key, slot: u32, row: Option<i64>, lease: Duration) -> Begin {
        let mut state = self.lock();
        if let Some(run) = state.runs.get_mut(key) {
            run.again |= row.is_none();
            run.control.look(row);
            return Begin::Runs;
        }
        let now = Instant::now();
        let leaving = state.leaving.get(&slot).is_some_and(|since| now - *since < lease);
        let known = state.recent.get(key).unwrap_or_default();
        let early = row.is_some() && known.not_before.is_some_and(|at| now < at);
        if state.closing || leaving || early || row.is_some_and(|version| version < known.version) {
            return Begin::Not;
        }
        if state.runs.len() >= self.most {
            state.was_full = true;
            return Begin::Full;
        }
        let control = Arc::<Control>::default();
        let run = Run { slot, again: false, control: Arc::clone(&control), done: watch::Sender::new(()) };
        state.runs.insert(key.clone(), run);
        Begin::Run(control)
    }

    /// A run has ended: at this version, or by a failure. Whether it is to be run once more at once.
    pub(crate) fn ended(&self, key: &Key, version: Option<i64>) -> bool {
        let mut state = self.lock();
        let again = state
            .runs
            .get_mut(key)
            .is_some_and(|run| std::mem::take(&mut run.again) && version.is_some() && !run.control.is_stopped());
        if again {
            return true;
        }
        let ended = match version {
            Some(version) => Ended { version, ..Ended::default() },
            None => {
                let known = state.recent.get(key).unwrap_or_default();
                let wait = FIRST_WAIT.saturating_mul(1 << known.failed.min(10)).min(LONGEST_WAIT);
                Ended { failed: known.failed + 1, not_before: Some(Instant::now() + wait), ..known }
            }
        };
        state.recent.insert(key.clone(), ended);
        state.runs.remove(key);
        false
    }

    /// Whether an instance was refused for want of room since this was last asked.
    pub(crate) fn take_was_full(&self) -> bool {
        std::mem::take(&mut self.lock().was_full)
    }

    /// What says when the run of an instance ends, if it runs here.
    pub(crate) fn done(&self, key: &Key) -> Option<watch::Receiver<()>> {
        Some(self.lock().runs.get(key)?.done.subscribe())
    }

    /// Whether another process may have a slot: no instance of it runs here. Those that do begin no further call, and no new one
    /// is taken for a while.
    pub(crate) fn may_leave(&self, slot: u32) -> bool {
        let mut state = self.lock();
        state.leaving.insert(slot, Instant::now());
        stop(&state, |of| of == slot) == 0
    }

    /// Lets the instances of slots that this process does not have begin no further call.
    pub(crate) fn keep(&self, slots: &[u32]) {
        stop(&self.lock(), |slot| !slots.contains(&slot));
    }

    /// Takes no further instance, and lets those that run begin no further call.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        stop(&state, |_| true);
    }
}

/// Lets instances begin no further call; how many they are.
fn stop(state: &State, of: impl Fn(u32) -> bool) -> usize {
    let stopped = state.runs.values().filter(|run| of(run.slot));
    stopped.map(|run| run.control.stop()).count()
}

/// Every slot, as the text of the query has them: those that this process does not have are -1.
pub(crate) fn slot_values(slots: &[u32]) -> [i64; SLOTS as usize] {
    let mut values = [-1; SLOTS as usize];
    for (value, slot) in values.iter_mut().zip(slots) {
        *value = i64::from(*slot);
    }
    values
}
