//! Finding the first event after a time without reading the log.
//!
//! Times need not increase with positions, so a mark at a position holds the latest time up to there, which does. Between the
//! last mark whose time is not after the one that is asked for and the next mark lies the first event after it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::ReadError;

/// How many events are between two marks.
pub(crate) const EVENTS_PER_MARK: i64 = 1_000;

/// How many events one statement reads to find marks.
pub(crate) const EVENTS_PER_LOOK: i64 = 10 * EVENTS_PER_MARK;

/// An event of the log, and the latest time up to it, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: i64,
    /// Proves that the log up to here is the one whose latest time this is; nil before the first event.
    pub(crate) event_id: Uuid,
    pub(crate) latest: i64,
}

impl Mark {
    /// Before the first event.
    const START: Self = Self { position: 0, event_id: Uuid::nil(), latest: i64::MIN };
}

/// What the marks need of an engine.
#[async_trait]
pub(crate) trait MarkedLog: Sync {
    /// The stored marks whose events are in the log and were not recorded after them, in the order of their positions.
    async fn stored_marks(&self) -> Result<Vec<Mark>, ReadError>;

    /// Stores marks. That may fail, as an account may read only; then they are kept in memory.
    async fn store_marks(&self, marks: &[Mark]) -> Result<(), ReadError>;

    /// The id of the event at a position.
    async fn event_at(&self, position: i64) -> Result<Option<Uuid>, ReadError>;

    /// Reads the next [`EVENTS_PER_LOOK`] events after a position up to another; gives each [`EVENTS_PER_MARK`]th with the latest
    /// time of those that were read up to it.
    async fn next_marks(&self, after: i64, upto: i64) -> Result<Vec<Mark>, ReadError>;

    /// The position of the first event between two positions that was recorded after a time.
    async fn first_between(&self, after: i64, upto: i64, time: i64) -> Result<Option<i64>, ReadError>;
}

/// The marks that a handle knows, in the order of their positions, and so of their times.
#[derive(Default)]
pub(crate) struct TimeMarks(Mutex<Option<Vec<Mark>>>);

impl TimeMarks {
    /// The position of the first event up to `upto` that was recorded after `time`, in microseconds. All events up to `upto` must
    /// be final.
    pub(crate) async fn first_after(
        &self,
        log: &impl MarkedLog,
        time: i64,
        upto: i64,
    ) -> Result<Option<i64>, ReadError> {
        if self.known().is_none() {
            let stored = log.stored_marks().await?;
            self.known().get_or_insert(without_lower(stored));
        }
        let mut last = self.proven_last(log).await?;
        // Between two marks nothing needs to be read beyond the second.
        if last.latest <= time {
            while last.position < upto {
                let next = log.next_marks(last.position, upto).await?;
                let Some(next) = self.extend(last, next) else { break };
                if let Err(error) = log.store_marks(&next).await {
                    tracing::debug!(%error, "marks of times cannot be stored, so they are kept in memory");
                }
                last = next.last().copied().unwrap_or(last);
            }
        }
        log.first_between(self.before(time).position, upto, time).await
    }

    /// The last mark whose event is still in the log; those after it are of another history and are forgotten.
    async fn proven_last(&self, log: &impl MarkedLog) -> Result<Mark, ReadError> {
        loop {
            let Some(last) = self.known().as_ref().and_then(|marks| marks.last().copied()) else {
                return Ok(Mark::START);
            };
            if log.event_at(last.position).await? == Some(last.event_id) {
                return Ok(last);
            }
            if let Some(marks) = &mut *self.known() {
                marks.retain(|mark| mark.position < last.position);
            }
        }
    }

    /// Adds what was read after `last`; `None` if there is no mark.
    fn extend(&self, last: Mark, mut next: Vec<Mark>) -> Option<Vec<Mark>> {
        for mark in &mut next {
            mark.latest = mark.latest.max(last.latest);
        }
        if let Some(marks) = &mut *self.known() {
            let known = marks.last().copied().unwrap_or(Mark::START).position;
            marks.extend(next.iter().filter(|mark| mark.position > known));
        }
        (!next.is_empty()).then_some(next)
    }

    /// The last mark that is not after `time`.
    fn before(&self, time: i64) -> Mark {
        let known = self.known();
        let marks = known.as_deref().unwrap_or_default();
        let after = marks.partition_point(|mark| mark.latest <= time);
        after.checked_sub(1).map_or(Mark::START, |index| marks[index])
    }

    fn known(&self) -> MutexGuard<'_, Option<Vec<Mark>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the marks of an earlier time than one before them, which were changed by hand.
fn without_lower(mut marks: Vec<Mark>) -> Vec<Mark> {
    let mut latest = i64::MIN;
    marks.retain(|mark| {
        let rises = mark.latest >= latest;
        latest = latest.max(mark.latest);
        rises
    });
    marks
}
