//! The progress of a run: what the coordinator knows of writers and readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::protocol::Instruction;

/// What writers have done.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// What one transaction adds to one stream counts as one append, once its commit has been acknowledged.
    pub(crate) appends: u64,
    /// The events of these appends.
    pub(crate) events: u64,
    /// The appends made through the library, units of work included.
    pub(crate) library: u64,
    /// Units of work that were committed.
    pub(crate) units: u64,
    /// Appends to several streams.
    pub(crate) to_several_streams: u64,
    /// Attempts that failed, most of them on purpose, or whose outcome was unknown at first.
    pub(crate) unknown: u64,
    /// Appends that were found stored when they were repeated after that.
    pub(crate) repeated: u64,
    /// Appends that were refused because of the expected version.
    pub(crate) conflicts: u64,
    /// Transactions that were rolled back after positions were allocated.
    pub(crate) rolled_back: u64,
    /// Savepoints that were rolled back after positions were allocated.
    pub(crate) savepoints: u64,
    /// Transactions that were prepared.
    pub(crate) prepared: u64,
    /// The highest position that was acknowledged.
    pub(crate) head: u64,
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            appends: self.appends + other.appends,
            events: self.events + other.events,
            library: self.library + other.library,
            units: self.units + other.units,
            to_several_streams: self.to_several_streams + other.to_several_streams,
            unknown: self.unknown + other.unknown,
            repeated: self.repeated + other.repeated,
            conflicts: self.conflicts + other.conflicts,
            rolled_back: self.rolled_back + other.rolled_back,
            savepoints: self.savepoints + other.savepoints,
            prepared: self.prepared + other.prepared,
            head: self.head.max(other.head),
        }
    }
}

/// The progress of one reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReaderProgress {
    pub(crate) reader: usize,
    pub(crate) position: u64,
    /// How often it has continued from its checkpoint since its process began.
    pub(crate) resumed: u64,
    /// How often that was on a standby.
    pub(crate) on_standby: u64,
}

#[derive(Default)]
pub(crate) struct Progress(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By process.
    tallies: BTreeMap<usize, Tally>,
    readers: BTreeMap<usize, AcrossProcesses>,
    failures: Vec<String>,
}

/// A reader whose process may have been killed and started again.
#[derive(Clone, Copy, Default)]
struct AcrossProcesses {
    now: ReaderProgress,
    /// Counts of the processes before.
    before: ReaderProgress,
}

impl Progress {
    pub(crate) fn set_tally(&self, process: usize, tally: Tally) {
        self.lock().tallies.insert(process, tally);
    }

    pub(crate) fn set_reader(&self, progress: ReaderProgress) {
        let mut known = self.lock();
        let reader = known.readers.entry(progress.reader).or_default();
        // In one process no count falls.
        if progress.resumed < reader.now.resumed || progress.on_standby < reader.now.on_standby {
            reader.before.resumed += reader.now.resumed;
            reader.before.on_standby += reader.now.on_standby;
        }
        reader.now = progress;
    }

    pub(crate) fn add_failure(&self, why: impl Into<String>) {
        self.lock().failures.push(why.into());
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }

    /// What all writers have done.
    pub(crate) fn tally(&self) -> Tally {
        self.lock().tallies.values().fold(Tally::default(), |sum, tally| sum.plus(*tally))
    }

    /// The sum of all readers' positions, which grows as long as one of them makes progress.
    pub(crate) fn sum_of_positions(&self) -> u64 {
        self.lock().readers.values().map(|reader| reader.now.position).sum()
    }

    pub(crate) fn slowest_reader(&self) -> ReaderProgress {
        self.lock().readers.values().map(|reader| reader.now).min_by_key(|now| now.position).unwrap_or_default()
    }

    /// How often readers have continued from a checkpoint, and how often that was on a standby.
    pub(crate) fn resumed(&self) -> (u64, u64) {
        let known = self.lock();
        let sum = |count: fn(&ReaderProgress) -> u64| {
            known.readers.values().map(|reader| count(&reader.now) + count(&reader.before)).sum()
        };
        (sum(|progress| progress.resumed), sum(|progress| progress.on_standby))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fastest writers wait while the slowest reader is this many positions behind: a reader that is far behind meets no
/// gap that may still be filled.
const FAR_BEHIND: u64 = 50_000;

/// Slows writers down while readers are far behind, and prints the progress every ten seconds.
pub(crate) async fn watch(progress: Arc<Progress>, writers: Vec<mpsc::Sender<Instruction>>, began: Instant) {
    let (mut slow, mut printed, mut appends) = (false, Instant::now(), 0);
    loop {
        sleep(Duration::from_millis(50)).await;
        let tally = progress.tally();
        let slowest = progress.slowest_reader();
        let behind = tally.head.saturating_sub(slowest.position);
        if slow != (behind > FAR_BEHIND) {
            slow = !slow;
            for writer in &writers {
                writer.send(if slow { Instruction::Slow } else { Instruction::Fast }).await.ok();
            }
        }
        if printed.elapsed() >= Duration::from_secs(10) {
            let rate = (tally.appends - appends) as f64 / printed.elapsed().as_secs_f64();
            eprintln!(
                "torture: {:>5.0} s  {:>9} appends  {rate:>6.0}/s  position {:>9}  reader {} {behind} behind",
                began.elapsed().as_secs_f64(),
                tally.appends,
                tally.head,
                slowest.reader,
            );
            (printed, appends) = (Instant::now(), tally.appends);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_had_counted_is_kept_though_the_next_one_resumes_as_often() {
        let progress = Progress::default();
        let report = |resumed, on_standby| {
            progress.set_reader(ReaderProgress { reader: 1, position: 0, resumed, on_standby });
        };
        report(1, 1);
        report(1, 0);
        report(2, 1);
        assert_eq!(progress.resumed(), (3, 2));
    }
}
