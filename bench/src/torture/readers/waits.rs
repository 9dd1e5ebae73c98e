//! How long a reader waits where a number is missing, and how old the oldest writer is meanwhile.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sqlx::Row;
use tokio::time::{Instant, sleep};

use crate::torture::Fault;
use crate::torture::place::{Link, Place};

/// Who holds the fence. The keys are those of the trigger.
const HOLDERS: &str = "
    SELECT DISTINCT virtualtransaction
    FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND classid = 1634627180 AND objid = 1718510437 AND objsubid = 2
    ORDER BY 1
";

/// How often the writers are looked at, which is how exact their age is known.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// How long ages are remembered: longer than any wait.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The longest wait of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Wait {
    /// For how long a read did not go on though there was more in the log, a missing number included.
    pub(crate) waited_ms: f64,
    /// How old the oldest writer that held a number became meanwhile.
    pub(crate) oldest_writer_ms: f64,
}

impl Wait {
    fn longer(self, other: Self) -> Self {
        if other.waited_ms > self.waited_ms { other } else { self }
    }
}

/// The waits of a run so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    longest: Wait,
    /// Those that were at a writer, in milliseconds beyond its age.
    beyond: Vec<f32>,
}

impl Waits {
    pub(crate) fn add(&mut self, wait: Wait) {
        self.longest = self.longest.longer(wait);
        if wait.waited_ms >= LOOK_EVERY.as_secs_f64() * 1_000.0 {
            self.beyond.push((wait.waited_ms - wait.oldest_writer_ms) as f32);
        }
    }

    pub(crate) fn report(mut self) -> WaitReport {
        self.beyond.sort_by(f32::total_cmp);
        let beyond = |part: f64| {
            let last = self.beyond.len().saturating_sub(1);
            self.beyond.get((last as f64 * part) as usize).copied().unwrap_or_default()
        };
        WaitReport {
            longest: self.longest,
            counted: self.beyond.len(),
            beyond_p50_ms: beyond(0.5),
            beyond_p99_ms: beyond(0.99),
            beyond_max_ms: beyond(1.0),
        }
    }
}

/// What the waits of a run were.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WaitReport {
    pub(crate) longest: Wait,
    /// Waits that were long enough to see how old the writers are.
    pub(crate) counted: usize,
    /// How much longer these lasted than the oldest writer was old; below 0 if they began later than it.
    pub(crate) beyond_p50_ms: f32,
    pub(crate) beyond_p99_ms: f32,
    pub(crate) beyond_max_ms: f32,
}

impl fmt::Display for WaitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  longest wait of a read: {:.0} ms, the oldest writer being {:.0} ms old; {} waits of {} ms and more lasted \
             {:.0} ms beyond the oldest writer (p50; p99 {:.0}, at most {:.0})",
            self.longest.waited_ms,
            self.longest.oldest_writer_ms,
            self.counted,
            LOOK_EVERY.as_millis(),
            self.beyond_p50_ms,
            self.beyond_p99_ms,
            self.beyond_max_ms
        )
    }
}

/// How old the oldest writer was, of late.
#[derive(Clone, Default)]
pub(crate) struct Ages(Arc<Mutex<VecDeque<(Instant, Duration)>>>);

impl Ages {
    fn add(&self, now: Instant, oldest: Duration) {
        let mut ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ages.push_back((now, oldest));
        while ages.front().is_some_and(|(then, _)| now - *then > REMEMBERED) {
            ages.pop_front();
        }
    }

    /// The greatest age since then.
    pub(super) fn oldest_since(&self, then: Instant) -> Duration {
        let ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ages.iter().rev().take_while(|(at, _)| *at >= then).map(|(_, age)| *age).max().unwrap_or_default()
    }
}

/// Looks at the writers until it is dropped.
pub(crate) async fn look_at_writers(place: Place, ages: Ages) -> Result<(), Fault> {
    let mut link = Link::new(&place);
    let mut since: HashMap<String, Instant> = HashMap::new();
    loop {
        match sqlx::query(HOLDERS).fetch_all(link.get().await?).await {
            Ok(rows) => {
                let now = Instant::now();
                let holders: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                since.retain(|holder, _| holders.contains(holder));
                for holder in holders {
                    since.entry(holder).or_insert(now);
                }
                ages.add(now, since.values().map(|begun| now - *begun).max().unwrap_or_default());
            }
            Err(_) => {
                since.clear();
                link.mend().await;
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_that_counts_is_the_greatest_since_the_read_was_due() {
        let (ages, start) = (Ages::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for (then, age) in [(0, 900), (10, 30), (20, 40), (30, 5)] {
            ages.add(at(then), Duration::from_millis(age));
        }
        assert_eq!(ages.oldest_since(at(5)), Duration::from_millis(40));
        assert_eq!(ages.oldest_since(at(25)), Duration::from_millis(5));
        assert_eq!(ages.oldest_since(at(35)), Duration::ZERO);
        ages.add(at(0) + REMEMBERED + Duration::from_millis(15), Duration::ZERO);
        assert_eq!(ages.oldest_since(start), Duration::from_millis(40), "what is too old is forgotten");
    }

    #[test]
    fn the_longest_wait_is_kept_and_those_at_writers_are_told_apart() {
        let mut waits = Waits::default();
        let wait = |waited_ms, oldest_writer_ms| Wait { waited_ms, oldest_writer_ms };
        for next in [wait(14.0, 0.0), wait(100.0, 98.0), wait(40.0, 30.0), wait(20.0, 50.0), wait(1.0, 0.0)] {
            waits.add(next);
        }
        let report = waits.report();
        assert_eq!((report.longest, report.counted), (wait(100.0, 98.0), 3));
        assert_eq!((report.beyond_p50_ms, report.beyond_p99_ms, report.beyond_max_ms), (2.0, 2.0, 10.0));
    }
}
