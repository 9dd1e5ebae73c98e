//! How far the log is final: the position up to which no writer can add an event any more.
//!
//! Positions become visible in any order, so a reader at a gap cannot see whether it will be filled. It reads L, the last
//! allocated position, and then W, the transactions that have locked the table of events for an INSERT. A writer that has allocated
//! a position up to L took that lock before, so it is in W or has ended, and the events of ended transactions are visible. When no
//! transaction of W holds the lock any more, the log is final up to the last event at or below L that a new statement
//! sees, and positions that are missing below it stay gaps.
//!
//! All of that holds for one run of the server: a crash may lose commits that were not flushed, prepared transactions
//! change their names, and positions are allocated again. So known results are kept with their run.
//!
//! One task per handle does this for all its readers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::error::{BackendError, ReadError};
use crate::position::Position;
use crate::postgres::connection::pool::{Pool, PooledConnection, Query};
use crate::postgres::connection::server_run::ServerRun;
use crate::postgres::fault::NoConnection;
use crate::postgres::read::holders::WaitAlarm;
use crate::postgres::read::unsettled::Unsettled;

/// Also whether the server is a standby, which does not see the writers on the primary.
const LAST_ALLOCATED: &str = "
    SELECT pg_is_in_recovery(), coalesce(pg_sequence_last_value('annals.events_position'), 0) AS last
    ORDER BY last
";

/// The transactions that are announced as writers, by the lock that every INSERT takes before it allocates a position.
pub(crate) const HOLDERS: &str = "
    SELECT l.virtualtransaction
    FROM pg_locks AS l
    JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.locktype = 'relation' AND l.granted
      AND l.relation = 'annals.events'::regclass AND l.mode = 'RowExclusiveLock'
    ORDER BY l.virtualtransaction
";

const LAST_AT_OR_BELOW: &str = "
    SELECT position, event_id
    FROM annals.events
    WHERE position <= $1
    ORDER BY position DESC
    LIMIT 1
";

/// The last of the positions without a gap that begin after `$1`.
const LAST_BEFORE_GAP: &str = "
    SELECT position, event_id
    FROM (SELECT position, event_id, position - row_number() OVER (ORDER BY position) AS before_run
          FROM (SELECT position, event_id
                FROM annals.events
                WHERE position > $1
                ORDER BY position
                LIMIT 10000) AS next) AS numbered
    WHERE before_run = $1
    ORDER BY position DESC
    LIMIT 1
";

/// How long to wait before the holders are read again, at first. It grows with the wait, of which it is a 16th.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The most of it: behind a transaction that somebody has forgotten, looking costs little.
const LOOK_AGAIN_AT_LAST: Duration = Duration::from_millis(250);

/// How many questions are kept. More share the last one, and with it the positions that it waits for.
const MOST_QUESTIONS: usize = 32;

/// How long to wait after a fault.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The timeout of one look, whose statements are all quick.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// An event up to which the log is final; position 0 and no id before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Final {
    pub(crate) position: i64,
    pub(crate) event_id: Option<Uuid>,
}

/// The known final part of the log, for one handle.
pub(crate) struct Horizon {
    pool: Pool,
    /// Of one run of the server.
    known: Mutex<(Option<ServerRun>, Final)>,
    /// How many calls have asked.
    asked: AtomicU64,
    wake: Notify,
    answered: watch::Sender<Answered>,
    /// Whether a caller has timed out and now waits for the head to move.
    timed_out: AtomicBool,
}

/// The ticket up to which all calls are answered, and the last error.
struct Answered {
    upto: u64,
    found: Result<(), NoConnection>,
}

/// What the task has read in one run of the server.
#[derive(Default)]
struct Looks {
    run: Option<ServerRun>,
    unsettled: Unsettled,
    /// The highest position up to which everything is settled.
    settled: i64,
    /// Questions without an answer, the oldest first.
    open: VecDeque<Question>,
    /// The last ticket that was read.
    asked: u64,
}

impl Looks {
    /// Adds a question, or lets the newest one answer its calls too.
    fn ask(&mut self, question: Question) {
        let is_full = self.open.len() >= MOST_QUESTIONS;
        match self.open.back_mut().filter(|newest| is_full || newest.last == question.last) {
            Some(newest) => (newest.ticket, newest.last) = (question.ticket, question.last),
            None => self.open.push_back(question),
        }
    }
}

/// All calls up to `ticket` are answered when the log is settled up to `last`, which was allocated after them.
struct Question {
    ticket: u64,
    last: i64,
    since: Instant,
}

impl Horizon {
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            known: Mutex::default(),
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            answered: watch::Sender::new(Answered { upto: 0, found: Ok(()) }),
            timed_out: AtomicBool::new(false),
        }
    }

    /// What is known without a query, in the server run of the last connection.
    pub(crate) fn known(&self) -> Final {
        self.known_in(self.pool.run().as_ref())
    }

    /// What is known without a query in this server run. Only this may be used for what a statement in the run sees.
    pub(crate) fn known_in(&self, run: Option<&ServerRun>) -> Final {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.as_ref() == run { known.1 } else { Final::default() }
    }

    /// How many calls have asked.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    fn record_final(&self, run: Option<&ServerRun>, found: Final) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.as_ref() == run {
            known.1 = if found.position > known.1.position { found } else { known.1 };
        } else if self.pool.run().as_ref() == run {
            *known = (run.cloned(), found);
        }
    }

    /// Waits until it is known how far the log is final: at least every event that was visible before the call, or some event
    /// after `after`, whichever is known first. Waits for running writers up to `max_wait`; `None` after that timeout. Then
    /// readers of the head are woken as soon as there is an answer.
    pub(crate) async fn wait_until_final(&self, after: i64, max_wait: Duration) -> Result<Option<Final>, NoConnection> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answers = self.answered.subscribe();
        self.wake.notify_one();
        let comes = answers.wait_for(|answered| answered.upto >= ticket || self.known().position > after);
        if timeout(max_wait, comes).await.is_err() {
            self.timed_out.store(true, Ordering::Release);
        }
        // Also after the timeout: the answer may have arrived before `timed_out` was set.
        let answered = self.answered.borrow();
        if answered.upto >= ticket {
            answered.found.clone()?;
            return Ok(Some(self.known()));
        }
        Ok(Some(self.known()).filter(|known| known.position > after))
    }

    /// Answers the calls until it is aborted. Logs which transactions keep readers waiting for longer than `alarm`.
    pub(crate) async fn serve(self: Arc<Self>, head: watch::Sender<Position>, alarm: Duration) {
        let mut looks = Looks::default();
        let mut wait = WaitAlarm::new(alarm);
        let mut known = self.known();
        loop {
            if looks.open.is_empty() {
                wait.over();
                self.wake.notified().await;
            }
            // Readers must not wait forever for a server that does not answer.
            let looked = timeout(LOOK_TIMEOUT, self.look(&mut looks)).await.unwrap_or_else(|_| {
                let why = format!("no answer within {LOOK_TIMEOUT:?}");
                Err(NoConnection::Unavailable(BackendError::new(why)))
            });
            let failed = looked.is_err();
            let now = self.known();
            let advanced = std::mem::replace(&mut known, now) != now;
            let upto = match &looked {
                Ok(upto) => *upto,
                Err(_) => {
                    looks = Looks { asked: self.asked.load(Ordering::Acquire), ..Looks::default() };
                    looks.asked
                }
            };
            self.answered.send_if_modified(|answered| {
                if upto > answered.upto {
                    *answered = Answered { upto, found: looked.map(|_| ()) };
                    return true;
                }
                advanced
            });
            if (upto > 0 || advanced) && self.timed_out.swap(false, Ordering::AcqRel) {
                head.send_modify(|_| {});
            }
            if failed {
                sleep(TRY_AGAIN).await;
            } else if let Some(oldest) = looks.open.front() {
                let waited = oldest.since.elapsed();
                wait.look(&self.pool, waited).await;
                sleep(pause_after(waited)).await;
            }
        }
    }

    /// Looks at the writers once. Returns the last ticket that is answered now, or 0. Keeps no connection afterwards.
    ///
    /// All its statements use one connection, and so one run of the server.
    async fn look(&self, looks: &mut Looks) -> Result<u64, NoConnection> {
        let mut connection = self.pool.take().await?;
        let mut since = Instant::now();
        if looks.run.as_ref() != connection.run() {
            // What was read in another run is invalid, and its calls are answered again.
            since = looks.open.front().map_or(since, |oldest| oldest.since);
            *looks = Looks { run: connection.run().cloned(), ..Looks::default() };
        }
        let asked = self.asked.load(Ordering::Acquire);
        if asked > looks.asked {
            let rows = fetch(&mut connection, sqlx::query(LAST_ALLOCATED)).await?;
            let row = rows.first().ok_or_else(|| unreadable(sqlx::Error::RowNotFound))?;
            if row.try_get(0).map_err(unreadable)? {
                return Err(NoConnection::Standby);
            }
            looks.asked = asked;
            looks.ask(Question { ticket: asked, last: row.try_get(1).map_err(unreadable)?, since });
        }
        let Some(wanted) = looks.open.back().map(|question| question.last) else { return Ok(0) };
        if looks.settled < wanted {
            self.read_writers(&mut connection, looks, wanted).await?;
        }
        let mut answered = 0;
        while let Some(question) = looks.open.pop_front_if(|question| question.last <= looks.settled) {
            answered = question.ticket;
        }
        Ok(answered)
    }

    /// Reads the running writers, and what is settled by now.
    async fn read_writers(
        &self,
        connection: &mut PooledConnection,
        looks: &mut Looks,
        wanted: i64,
    ) -> Result<(), NoConnection> {
        let rows = fetch(connection, sqlx::query(HOLDERS)).await?;
        let mut holders: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        holders.dedup();
        looks.unsettled.add(wanted, &holders);
        let Some(done) = looks.unsettled.done(&holders) else { return Ok(()) };
        let rows = fetch(connection, sqlx::query(LAST_AT_OR_BELOW).bind(done)).await?;
        if let Some(row) = rows.first() {
            self.record_final(connection.run(), Final { position: row.get(0), event_id: Some(row.get(1)) });
        }
        looks.unsettled.settled(done);
        looks.settled = done;
        Ok(())
    }

    /// How far the log is final without waiting: the known part, and the positions without a gap after it.
    pub(crate) async fn final_without_waiting(&self) -> Result<Final, ReadError> {
        loop {
            let mut connection = self.pool.take().await.map_err(NoConnection::into_read)?;
            let known = self.known_in(connection.run());
            let Some(end) = last_before_gap(&mut connection, known.position).await? else { return Ok(known) };
            self.record_final(connection.run(), end);
            if end.position - known.position < 10_000 {
                return Ok(self.known());
            }
        }
    }
}

/// How long to wait before the holders are read again, after a wait.
fn pause_after(waited: Duration) -> Duration {
    (waited / 16).clamp(LOOK_AGAIN, LOOK_AGAIN_AT_LAST)
}

/// The last of the events that follow `after` without a gap, of the next 10,000.
pub(crate) async fn last_before_gap(connection: &mut PooledConnection, after: i64) -> Result<Option<Final>, ReadError> {
    let query = sqlx::query(LAST_BEFORE_GAP).bind(after);
    let rows = fetch(connection, query).await.map_err(NoConnection::into_read)?;
    Ok(rows.first().map(|row| Final { position: row.get(0), event_id: Some(row.get(1)) }))
}

async fn fetch(connection: &mut PooledConnection, query: Query<'_>) -> Result<Vec<PgRow>, NoConnection> {
    connection.fetch_all(query).await.map_err(unreadable)
}

fn unreadable(error: sqlx::Error) -> NoConnection {
    NoConnection::Unavailable(BackendError::new(error))
}

/// The statements that read events, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("LAST_AT_OR_BELOW", LAST_AT_OR_BELOW, "(15000)"),
        ("LAST_BEFORE_GAP", LAST_BEFORE_GAP, "(100)"),
        ("LAST_ALLOCATED", LAST_ALLOCATED, ""),
        ("HOLDERS", HOLDERS, ""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind a transaction that somebody has forgotten every read asks again.
    #[test]
    fn questions_without_an_answer_are_few_however_many_calls_ask() {
        let mut looks = Looks::default();
        let ask = |looks: &mut Looks, ticket, last| looks.ask(Question { ticket, last, since: Instant::now() });
        for ticket in 1..=10_000 {
            ask(&mut looks, ticket, 7);
        }
        assert_eq!(looks.open.iter().map(|question| question.ticket).collect::<Vec<_>>(), [10_000]);
        for ticket in 10_001..=20_000 {
            ask(&mut looks, ticket, i64::try_from(ticket).unwrap());
        }
        assert_eq!(looks.open.len(), MOST_QUESTIONS);
        assert_eq!(looks.open.back().map(|question| (question.ticket, question.last)), Some((20_000, 20_000)));
    }

    #[test]
    fn the_longer_the_wait_the_longer_the_pause() {
        let pauses = [0, 10, 160, 1_600, 3_600_000].map(|ms| pause_after(Duration::from_millis(ms)).as_millis());
        assert_eq!(pauses, [2, 2, 10, 100, 250]);
    }
}
