//! What the last calls were, with sums that cost the same whatever the window's size.

use std::time::Duration;

use super::WindowSettings;

/// How a finished call counts. Slow calls may have succeeded or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

impl Sums {
    fn add(&mut self, mark: Mark) {
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(mark.failed));
        self.slow = self.slow.saturating_add(u32::from(mark.slow));
    }

    fn subtract(&mut self, other: Sums) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

impl From<Mark> for Sums {
    fn from(mark: Mark) -> Self {
        Self { calls: 1, failures: u32::from(mark.failed), slow: u32::from(mark.slow) }
    }
}

/// A time window forgets a tenth of its span at once.
pub(super) const BUCKETS: usize = 10;

#[derive(Debug)]
pub(super) struct Window {
    kept: Kept,
    sums: Sums,
}

#[derive(Debug)]
enum Kept {
    /// The marks of the last calls; `next` is the oldest once the ring is full.
    Calls { ring: Box<[Mark]>, next: usize },
    /// Sums per span of time; `current` is the number of the newest span since time zero.
    Time { buckets: [Sums; BUCKETS], span: u64, current: u64 },
}

impl Window {
    pub(super) fn new(settings: WindowSettings) -> Self {
        let kept = match settings {
            WindowSettings::Calls(calls) => {
                Kept::Calls { ring: vec![Mark::default(); calls.max(1) as usize].into(), next: 0 }
            }
            WindowSettings::Time(time) => {
                let span = (nanoseconds(time) / BUCKETS as u64).max(1);
                Kept::Time { buckets: [Sums::default(); BUCKETS], span, current: 0 }
            }
        };
        Self { kept, sums: Sums::default() }
    }

    /// Whether the time of an input matters.
    pub(super) fn forgets_by_time(&self) -> bool {
        matches!(self.kept, Kept::Time { .. })
    }

    pub(super) fn add(&mut self, mark: Mark, now: Duration) {
        self.forget(now);
        match &mut self.kept {
            Kept::Calls { ring, next } => {
                if self.sums.calls as usize == ring.len() {
                    self.sums.subtract(ring[*next].into());
                }
                ring[*next] = mark;
                *next = (*next + 1) % ring.len();
            }
            Kept::Time { buckets, current, .. } => buckets[(*current % BUCKETS as u64) as usize].add(mark),
        }
        self.sums.add(mark);
    }

    pub(super) fn sums(&mut self, now: Duration) -> Sums {
        self.forget(now);
        self.sums
    }

    pub(super) fn clear(&mut self) {
        self.sums = Sums::default();
        match &mut self.kept {
            Kept::Calls { next, .. } => *next = 0,
            Kept::Time { buckets, .. } => *buckets = [Sums::default(); BUCKETS],
        }
    }

    /// Drops the spans that are too old by now: at most all of them, whatever time has passed.
    fn forget(&mut self, now: Duration) {
        let Kept::Time { buckets, span, current } = &mut self.kept else { return };
        let newest = nanoseconds(now) / *span;
        let steps = newest.saturating_sub(*current).min(BUCKETS as u64);
        for step in 1..=steps {
            let bucket = &mut buckets[((*current + step) % BUCKETS as u64) as usize];
            self.sums.subtract(*bucket);
            *bucket = Sums::default();
        }
        if steps > 0 {
            // After a long pause every bucket is empty, so which of them is the newest does not matter.
            *current = newest;
        }
    }
}

/// 584 years are enough for a process.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
