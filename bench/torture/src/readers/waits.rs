//! The reader that measures how long it waits at a gap, and how old the oldest writer is meanwhile.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use annals::{EventStore, Filter, Position, PostgresOptions};
use serde::Serialize;
use sqlx::Row;
use tokio::time::{Instant, sleep, timeout};

use super::checkpoint_file::CheckpointFile;
use crate::Fault;
use crate::fact::Fact;
use crate::run_folder::{Reconnecting, RunFolder};

/// The transactions that hold the fence.
const HOLDERS: &str = "
    SELECT DISTINCT virtualtransaction
    FROM pg_locks
    WHERE locktype = 'relation' AND granted AND relation = 'annals.events'::regclass AND mode = 'RowExclusiveLock'
    ORDER BY 1
";

/// The interval between two samples of the writers, and so the precision of their ages.
const SAMPLE_EVERY: Duration = Duration::from_millis(15);

/// How long samples are kept: longer than any wait.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The longest wait of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Wait {
    /// How long a read returned nothing although the log had more.
    pub(crate) waited_ms: f64,
    /// The greatest age of a writer with an allocated position meanwhile.
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
    /// Of the waits for a writer: the milliseconds beyond the age of that writer.
    beyond: Vec<f32>,
}

impl Waits {
    pub(crate) fn add(&mut self, wait: Wait) {
        self.longest = self.longest.longer(wait);
        if wait.waited_ms >= SAMPLE_EVERY.as_secs_f64() * 1_000.0 {
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
    /// Waits that were long enough to sample the writers.
    pub(crate) counted: usize,
    /// How much longer these lasted than the age of the oldest writer; below 0 if they began after it.
    pub(crate) beyond_p50_ms: f32,
    pub(crate) beyond_p99_ms: f32,
    pub(crate) beyond_max_ms: f32,
}

impl fmt::Display for WaitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  longest wait of a read: {:.0} ms, with the oldest writer {:.0} ms old; {} waits of {} ms and more lasted \
             {:.0} ms beyond the oldest writer (p50; p99 {:.0}, at most {:.0})",
            self.longest.waited_ms,
            self.longest.oldest_writer_ms,
            self.counted,
            SAMPLE_EVERY.as_millis(),
            self.beyond_p50_ms,
            self.beyond_p99_ms,
            self.beyond_max_ms
        )
    }
}

/// Recent samples of the age of the oldest writer.
#[derive(Default)]
struct Ages(Mutex<VecDeque<(Instant, Duration)>>);

impl Ages {
    fn add(&self, now: Instant, oldest: Duration) {
        let mut ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ages.push_back((now, oldest));
        while ages.front().is_some_and(|(then, _)| now - *then > KEPT_FOR) {
            ages.pop_front();
        }
    }

    /// The greatest age since then.
    fn oldest_since(&self, then: Instant) -> Duration {
        let ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ages.iter().rev().take_while(|(at, _)| *at >= then).map(|(_, age)| *age).max().unwrap_or_default()
    }
}

/// Reads every event through one handle that stays open during the whole run. Calls `report` with each position.
pub(crate) async fn measure(folder: &RunFolder, reader: usize, report: impl Fn(u64)) -> Result<Waits, Fault> {
    let ages = Ages::default();
    tokio::select! {
        done = read(folder, reader, &ages, report) => done,
        failed = sample_writers(folder, &ages) => failed.map(|()| Waits::default()),
    }
}

async fn read(folder: &RunFolder, reader: usize, ages: &Ages, report: impl Fn(u64)) -> Result<Waits, Fault> {
    let mut file = CheckpointFile::resume(folder, reader)?;
    let store = PostgresOptions::new(folder.url()).connections(2).open().await?;
    let mut notifications = store.watch();
    let mut waits = Waits::default();
    let mut after = Position::START;
    let mut asked = Instant::now();
    while !file.is_complete() {
        notifications.borrow_and_update();
        let page = match store.read_page(after.into(), &Filter::all(), 1_000).await {
            Ok(page) => page,
            Err(error) if error.is_transient() => {
                sleep(Duration::from_millis(20)).await;
                // The server is unreachable: not a wait for a writer.
                asked = Instant::now();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for event in &page.events {
            file.add(&Fact::of_event(event)?)?;
        }
        if let Some(checkpoint) = page.checkpoint {
            file.set_checkpoint(&checkpoint)?;
            after = checkpoint.position;
            let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
            let oldest_writer_ms = millis(ages.oldest_since(asked));
            waits.add(Wait { waited_ms: millis(asked.elapsed()), oldest_writer_ms });
            report(file.position());
            asked = Instant::now();
        } else if page.end {
            // Other processes do not notify this handle, so it also polls.
            timeout(Duration::from_millis(100), notifications.changed()).await.ok();
            asked = Instant::now();
        }
    }
    store.close().await;
    Ok(waits)
}

/// Samples the ages of the writers until it is dropped.
async fn sample_writers(folder: &RunFolder, ages: &Ages) -> Result<(), Fault> {
    let mut connection = Reconnecting::new(folder);
    let mut since: HashMap<String, Instant> = HashMap::new();
    loop {
        match sqlx::query(HOLDERS).fetch_all(connection.get().await?).await {
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
                connection.reset().await;
            }
        }
        sleep(SAMPLE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_age_since_the_read_was_asked_counts() {
        let (ages, start) = (Ages::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for (then, age) in [(0, 900), (10, 30), (20, 40), (30, 5)] {
            ages.add(at(then), Duration::from_millis(age));
        }
        assert_eq!(ages.oldest_since(at(5)), Duration::from_millis(40));
        assert_eq!(ages.oldest_since(at(25)), Duration::from_millis(5));
        assert_eq!(ages.oldest_since(at(35)), Duration::ZERO);
        ages.add(at(0) + KEPT_FOR + Duration::from_millis(15), Duration::ZERO);
        assert_eq!(ages.oldest_since(start), Duration::from_millis(40), "old samples are dropped");
    }

    #[test]
    fn the_longest_wait_is_kept_and_waits_for_writers_are_counted() {
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
