//! What the leading process knows of the others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::torture::part::{Progress, Tally};

#[derive(Default)]
pub(crate) struct Board(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By process.
    tallies: BTreeMap<usize, Tally>,
    readers: BTreeMap<usize, Seen>,
    failures: Vec<String>,
}

/// A reader over the lives of its process.
#[derive(Clone, Copy, Default)]
struct Seen {
    now: Progress,
    /// What earlier lives have done.
    before: Progress,
}

impl Board {
    pub(crate) fn wrote(&self, process: usize, tally: Tally) {
        self.lock().tallies.insert(process, tally);
    }

    pub(crate) fn read(&self, progress: Progress) {
        let mut known = self.lock();
        let seen = known.readers.entry(progress.reader).or_default();
        if progress.resumed < seen.now.resumed {
            seen.before.resumed += seen.now.resumed;
            seen.before.on_standby += seen.now.on_standby;
        }
        seen.now = progress;
    }

    pub(crate) fn failed(&self, why: String) {
        self.lock().failures.push(why);
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }

    /// What all writers have done.
    pub(crate) fn tally(&self) -> Tally {
        self.lock().tallies.values().fold(Tally::default(), |sum, tally| sum.plus(*tally))
    }

    /// The sum of the positions of all readers, which grows as long as any of them goes on.
    pub(crate) fn read_in_all(&self) -> u64 {
        self.lock().readers.values().map(|seen| seen.now.position).sum()
    }

    /// How far the slowest reader is.
    pub(crate) fn slowest(&self) -> Progress {
        self.lock().readers.values().map(|seen| seen.now).min_by_key(|now| now.position).unwrap_or_default()
    }

    /// How often readers have gone on from a checkpoint, and how often that was on a standby.
    pub(crate) fn resumed(&self) -> (u64, u64) {
        let known = self.lock();
        let sum = |count: fn(&Progress) -> u64| known.readers.values().map(|s| count(&s.now) + count(&s.before)).sum();
        (sum(|progress| progress.resumed), sum(|progress| progress.on_standby))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
