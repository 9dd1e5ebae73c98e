//! How far the log is final: up to which position no writer can add an event any more.
//!
//! Positions become visible in any order, so a reader that meets a hole cannot see whether it will be filled. It
//! reads L, the last number drawn, and after it W, the transactions that hold the fence. Whoever has drawn a number up
//! to L announced itself before, so it is in W or has ended, and what has ended is visible. When none of W holds the
//! fence any more, everything up to the last event at or below L that a new statement sees is final, and what is
//! missing below it will never come.
//!
//! L and W are of one server's life: when it recovers from a crash, prepared transactions change their names and
//! numbers of aborted draws are drawn again. So the statements also say which life they saw, and whether the server
//! is a standby, which knows nothing of the writers on the primary.
//!
//! One task per handle finds all that out for its readers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::fault::NoConnection;
use super::holders::Wait;
use super::pool::{Pool, Query};
use super::rows::Micros;
use super::unsettled::Unsettled;
use crate::error::{BackendError, ReadError};
use crate::position::Position;

/// Which life of the server a statement sees: when it was started, and its own processes. The time alone is not
/// enough: when a backend is killed (for want of memory, say), the server recovers without being started anew, and
/// then all its processes are other ones. `concat!` makes it the first columns of a statement.
macro_rules! life {
    () => {
        "
    SELECT pg_is_in_recovery(), pg_postmaster_start_time(),
           (SELECT coalesce(string_agg(p.pid::text, ' ' ORDER BY p.pid), '')
            FROM pg_stat_activity AS p
            WHERE p.datid IS NULL AND p.usesysid IS NULL) AS processes,"
    };
}

const LAST_DRAWN: &str = concat!(
    life!(),
    "
           coalesce(pg_sequence_last_value('annals.events_position'), 0) AS last
    ORDER BY 1
"
);

/// One row per holder, and one without a holder if there is none. The keys are those of the trigger. Asked often, and
/// always between two statements that see the same life; so it says only what tells one server from another.
const HOLDERS: &str = "
    SELECT pg_is_in_recovery(), pg_postmaster_start_time(), l.virtualtransaction
    FROM (SELECT oid FROM pg_database WHERE datname = current_database()) AS d
    LEFT JOIN pg_locks AS l
      ON l.locktype = 'advisory' AND l.database = d.oid AND l.granted
     AND l.classid = 1634627180 AND l.objid = 1718510437 AND l.objsubid = 2
    ORDER BY 3
";

const LAST_AT_OR_BELOW: &str = concat!(
    life!(),
    "
           e.position, e.event_id
    FROM (SELECT 1) AS one
    LEFT JOIN (
        SELECT position, event_id
        FROM annals.events
        WHERE position <= $1
        ORDER BY position DESC
        LIMIT 1) AS e ON true
    ORDER BY 4
"
);

/// The end of the run of numbers without a hole that begins after `$1`.
const END_OF_RUN: &str = "
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

/// How long to wait before the holders are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How long to wait after a fault.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// How long the statements of one look may take, each of which is quick.
const MOST_FOR_A_LOOK: Duration = Duration::from_secs(15);

/// An event up to which the log is final; position 0 and no id before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Final {
    pub(super) position: i64,
    pub(super) event_id: Option<Uuid>,
}

/// Which life of the server a statement saw.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    started: i64,
    processes: String,
}

/// What one handle knows of how far the log is final.
pub(super) struct Horizon {
    pool: Pool,
    known: Mutex<Final>,
    /// How many have asked.
    asked: AtomicU64,
    wake: Notify,
    answered: watch::Sender<Answered>,
    /// Whether somebody who asked waits for news of the head instead.
    gave_up: AtomicBool,
}

/// Up to which question all are answered, and how the last answer came out.
struct Answered {
    upto: u64,
    found: Result<(), NoConnection>,
}

/// What the task has seen in one life of the server.
#[derive(Default)]
struct Looks {
    life: Option<Life>,
    unsettled: Unsettled,
    /// The highest number up to which everything is settled.
    settled: i64,
    /// Questions without an answer, the oldest first.
    open: VecDeque<Question>,
    /// The last question that was taken in.
    asked: u64,
}

/// All questions up to `ticket` are answered when the log is settled up to `last`, which was drawn after they were asked.
struct Question {
    ticket: u64,
    last: i64,
    since: Instant,
}

impl Horizon {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            known: Mutex::default(),
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            answered: watch::Sender::new(Answered { upto: 0, found: Ok(()) }),
            gave_up: AtomicBool::new(false),
        }
    }

    /// What is known without asking. Events that are final stay so, also through a restart of the server: a commit
    /// keeps the numbers up to its own.
    pub(super) fn known(&self) -> Final {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often somebody has asked.
    #[cfg(test)]
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    fn learn(&self, found: Final) -> Final {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if found.position > known.position {
            *known = found;
        }
        *known
    }

    /// Asks how far the log is final now: at least every event that was visible before the call, or some event after
    /// `after`, whichever is known first. Waits for writers that are at work, as long as `patience` says; `None` if that was
    /// not enough. Then readers of the head are woken as soon as there is an answer.
    pub(super) async fn settle(&self, after: i64, patience: Duration) -> Result<Option<Final>, ReadError> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answers = self.answered.subscribe();
        self.wake.notify_one();
        let comes = answers.wait_for(|answered| answered.upto >= ticket || self.known().position > after);
        if timeout(patience, comes).await.is_err() {
            self.gave_up.store(true, Ordering::Release);
        }
        // Also after giving up: the answer may have come before anybody was told to wake others.
        let answered = self.answered.borrow();
        if answered.upto >= ticket {
            answered.found.clone().map_err(NoConnection::into_read)?;
            return Ok(Some(self.known()));
        }
        Ok(Some(self.known()).filter(|known| known.position > after))
    }

    /// Answers those who ask, until it is aborted. Says aloud who keeps readers waiting for longer than `alarm`.
    pub(super) async fn serve(self: Arc<Self>, head: watch::Sender<Position>, alarm: Duration) {
        let mut looks = Looks::default();
        let mut wait = Wait::new(alarm);
        let mut known = self.known();
        loop {
            if looks.open.is_empty() {
                wait.over();
                self.wake.notified().await;
            }
            // A server that does not answer must not keep readers for ever.
            let looked = timeout(MOST_FOR_A_LOOK, self.look(&mut looks)).await.unwrap_or_else(|_| {
                let why = format!("no answer within {MOST_FOR_A_LOOK:?}");
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
            if (upto > 0 || advanced) && self.gave_up.swap(false, Ordering::AcqRel) {
                head.send_modify(|_| {});
            }
            if failed {
                sleep(TRY_AGAIN).await;
            } else if let Some(oldest) = looks.open.front() {
                wait.look(&self.pool, oldest.since.elapsed()).await;
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Looks at the writers once. Gives the last question that is answered now, or 0. Holds no connection afterwards.
    async fn look(&self, looks: &mut Looks) -> Result<u64, NoConnection> {
        let asked = self.asked.load(Ordering::Acquire);
        if asked > looks.asked {
            let (life, rows) = self.ask(sqlx::query(LAST_DRAWN)).await?;
            if looks.life.as_ref() != Some(&life) {
                // What was seen of another life counts for nothing, and its questions are asked anew.
                *looks = Looks { life: Some(life), ..Looks::default() };
            }
            let last = rows.first().map_or(0, |row| row.get(3));
            looks.asked = asked;
            looks.open.push_back(Question { ticket: asked, last, since: Instant::now() });
        }
        let Some(wanted) = looks.open.back().map(|question| question.last) else { return Ok(0) };
        if looks.settled < wanted && !self.look_at_writers(looks, wanted).await? {
            // Another life of the server: everything is asked anew at the next look.
            let since = looks.open.front().map_or_else(Instant::now, |oldest| oldest.since);
            *looks = Looks::default();
            looks.open.push_back(Question { ticket: 0, last: i64::MAX, since });
            return Ok(0);
        }
        let mut answered = 0;
        while let Some(question) = looks.open.pop_front_if(|question| question.last <= looks.settled) {
            answered = question.ticket;
        }
        Ok(answered)
    }

    /// Takes in who is at work, and what is settled by it. False if the server has begun another life.
    async fn look_at_writers(&self, looks: &mut Looks, wanted: i64) -> Result<bool, NoConnection> {
        let Some(life) = looks.life.clone() else { return Ok(false) };
        let rows = self.fetch(sqlx::query(HOLDERS)).await?;
        if started(&rows)? != life.started {
            return Ok(false);
        }
        let mut holders: Vec<String> = rows.iter().filter_map(|row| row.get::<Option<String>, _>(2)).collect();
        holders.dedup();
        looks.unsettled.add(wanted, &holders);
        let Some(done) = looks.unsettled.done(&holders) else { return Ok(true) };
        let (same, rows) = self.ask(sqlx::query(LAST_AT_OR_BELOW).bind(done)).await?;
        if same != life {
            return Ok(false);
        }
        if let Some(row) = rows.first()
            && let Some(position) = row.get(3)
        {
            self.learn(Final { position, event_id: row.get(4) });
        }
        looks.unsettled.settled(done);
        looks.settled = done;
        Ok(true)
    }

    /// How far the log is final without waiting for anybody: what is known, and the numbers without a hole after it.
    pub(super) async fn without_waiting(&self) -> Result<Final, ReadError> {
        loop {
            let known = self.known();
            let query = sqlx::query(END_OF_RUN).bind(known.position);
            let rows = self.fetch(query).await.map_err(NoConnection::into_read)?;
            let Some(row) = rows.first() else { return Ok(known) };
            let end = Final { position: row.get(0), event_id: Some(row.get(1)) };
            if self.learn(end) != end || end.position - known.position < 10_000 {
                return Ok(self.known());
            }
        }
    }

    async fn fetch(&self, query: Query<'_>) -> Result<Vec<PgRow>, NoConnection> {
        let mut held = self.pool.take().await?;
        held.fetch_all(query).await.map_err(unreadable)
    }

    /// Runs a statement whose first columns tell of the server's life.
    async fn ask(&self, query: Query<'_>) -> Result<(Life, Vec<PgRow>), NoConnection> {
        let rows = self.fetch(query).await?;
        let started = started(&rows)?;
        let processes = rows.first().map(|row| row.try_get(2)).transpose().map_err(unreadable)?.unwrap_or_default();
        Ok((Life { started, processes }, rows))
    }
}

/// When the server was started that has given these rows.
fn started(rows: &[PgRow]) -> Result<i64, NoConnection> {
    let row = rows.first().ok_or_else(|| unreadable(sqlx::Error::RowNotFound))?;
    if row.try_get::<bool, _>(0).map_err(unreadable)? {
        let why = "a standby cannot tell whether a missing position will be filled; read from the primary";
        return Err(NoConnection::Unavailable(BackendError::new(why)));
    }
    Ok(row.try_get::<Micros, _>(1).map_err(unreadable)?.0)
}

fn unreadable(error: sqlx::Error) -> NoConnection {
    NoConnection::Unavailable(BackendError::new(error))
}

/// The statements that read events, and values for them, for the golden files.
#[cfg(test)]
pub(super) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("LAST_AT_OR_BELOW", LAST_AT_OR_BELOW, "(15000)"),
        ("END_OF_RUN", END_OF_RUN, "(100)"),
        ("LAST_DRAWN", LAST_DRAWN, ""),
        ("HOLDERS", HOLDERS, ""),
    ]
}
