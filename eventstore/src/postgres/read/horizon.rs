//! How far the log is final: up to which position no writer can add an event any more.
//!
//! Positions become visible in any order, so a reader that meets a hole cannot see whether it will be filled. It
//! reads L, the last number drawn, and after it W, the transactions that hold the fence. Whoever has drawn a number up
//! to L announced itself before, so it is in W or has ended, and what has ended is visible. When none of W holds the
//! fence any more, everything up to the last event at or below L that a new statement sees is final, and what is
//! missing below it will never come.
//!
//! All of that is of one run of the server: a crash may lose what was committed and not waited for, prepared transactions
//! change their names, and numbers are given out again. So what is known is kept with the run that it was seen in.
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

use crate::error::{BackendError, ReadError};
use crate::position::Position;
use crate::postgres::connection::pool::{Pool, PooledConnection, Query};
use crate::postgres::connection::server_run::ServerRun;
use crate::postgres::fault::NoConnection;
use crate::postgres::read::holders::Wait;
use crate::postgres::read::unsettled::Unsettled;

/// Also whether the server is a standby, which knows nothing of the writers on the primary.
const LAST_DRAWN: &str = "
    SELECT pg_is_in_recovery(), coalesce(pg_sequence_last_value('annals.events_position'), 0) AS last
    ORDER BY last
";

/// The keys are those of the trigger.
const HOLDERS: &str = "
    SELECT l.virtualtransaction
    FROM pg_locks AS l
    JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.locktype = 'advisory' AND l.granted
      AND l.classid = 1634627180 AND l.objid = 1718510437 AND l.objsubid = 2
    ORDER BY l.virtualtransaction
";

const LAST_AT_OR_BELOW: &str = "
    SELECT position, event_id
    FROM annals.events
    WHERE position <= $1
    ORDER BY position DESC
    LIMIT 1
";

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
pub(crate) struct Final {
    pub(crate) position: i64,
    pub(crate) event_id: Option<Uuid>,
}

/// What one handle knows of how far the log is final.
pub(crate) struct Horizon {
    pool: Pool,
    /// Of one run of the server.
    known: Mutex<(Option<ServerRun>, Final)>,
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

/// What the task has seen in one run of the server.
#[derive(Default)]
struct Looks {
    run: Option<ServerRun>,
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
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            known: Mutex::default(),
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            answered: watch::Sender::new(Answered { upto: 0, found: Ok(()) }),
            gave_up: AtomicBool::new(false),
        }
    }

    /// What is known without asking, of the run of the server that the last connection has reached.
    pub(crate) fn known(&self) -> Final {
        self.known_in(self.pool.run().as_ref())
    }

    /// What is known without asking of this run of the server, which alone may be used for what a statement in it sees.
    pub(crate) fn known_in(&self, run: Option<&ServerRun>) -> Final {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.as_ref() == run { known.1 } else { Final::default() }
    }

    /// How often somebody has asked.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    fn learn(&self, run: Option<&ServerRun>, found: Final) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.as_ref() == run {
            known.1 = if found.position > known.1.position { found } else { known.1 };
        } else if self.pool.run().as_ref() == run {
            *known = (run.cloned(), found);
        }
    }

    /// Asks how far the log is final now: at least every event that was visible before the call, or some event after
    /// `after`, whichever is known first. Waits for writers that are at work, as long as `max_wait` says; `None` if that was
    /// not enough. Then readers of the head are woken as soon as there is an answer.
    pub(crate) async fn settle(&self, after: i64, max_wait: Duration) -> Result<Option<Final>, ReadError> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answers = self.answered.subscribe();
        self.wake.notify_one();
        let comes = answers.wait_for(|answered| answered.upto >= ticket || self.known().position > after);
        if timeout(max_wait, comes).await.is_err() {
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
    pub(crate) async fn serve(self: Arc<Self>, head: watch::Sender<Position>, alarm: Duration) {
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
    ///
    /// All its statements go over one connection, and so reach one run of the server.
    async fn look(&self, looks: &mut Looks) -> Result<u64, NoConnection> {
        let mut held = self.pool.take().await?;
        let mut since = Instant::now();
        if looks.run.as_ref() != held.run() {
            // What was seen in another run counts for nothing, and its questions are asked anew.
            since = looks.open.front().map_or(since, |oldest| oldest.since);
            *looks = Looks { run: held.run().cloned(), ..Looks::default() };
        }
        let asked = self.asked.load(Ordering::Acquire);
        if asked > looks.asked {
            let rows = fetch(&mut held, sqlx::query(LAST_DRAWN)).await?;
            let row = rows.first().ok_or_else(|| unreadable(sqlx::Error::RowNotFound))?;
            if row.try_get(0).map_err(unreadable)? {
                let why = "a standby cannot tell whether a missing position will be filled; read from the primary";
                return Err(NoConnection::Unavailable(BackendError::new(why)));
            }
            looks.asked = asked;
            looks.open.push_back(Question { ticket: asked, last: row.try_get(1).map_err(unreadable)?, since });
        }
        let Some(wanted) = looks.open.back().map(|question| question.last) else { return Ok(0) };
        if looks.settled < wanted {
            self.look_at_writers(&mut held, looks, wanted).await?;
        }
        let mut answered = 0;
        while let Some(question) = looks.open.pop_front_if(|question| question.last <= looks.settled) {
            answered = question.ticket;
        }
        Ok(answered)
    }

    /// Takes in who is at work, and what is settled by it.
    async fn look_at_writers(
        &self,
        held: &mut PooledConnection,
        looks: &mut Looks,
        wanted: i64,
    ) -> Result<(), NoConnection> {
        let rows = fetch(held, sqlx::query(HOLDERS)).await?;
        let mut holders: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        holders.dedup();
        looks.unsettled.add(wanted, &holders);
        let Some(done) = looks.unsettled.done(&holders) else { return Ok(()) };
        let rows = fetch(held, sqlx::query(LAST_AT_OR_BELOW).bind(done)).await?;
        if let Some(row) = rows.first() {
            self.learn(held.run(), Final { position: row.get(0), event_id: Some(row.get(1)) });
        }
        looks.unsettled.settled(done);
        looks.settled = done;
        Ok(())
    }

    /// How far the log is final without waiting for anybody: what is known, and the numbers without a hole after it.
    pub(crate) async fn without_waiting(&self) -> Result<Final, ReadError> {
        loop {
            let mut held = self.pool.take().await.map_err(NoConnection::into_read)?;
            let known = self.known_in(held.run());
            let query = sqlx::query(END_OF_RUN).bind(known.position);
            let rows = fetch(&mut held, query).await.map_err(NoConnection::into_read)?;
            let Some(row) = rows.first() else { return Ok(known) };
            let end = Final { position: row.get(0), event_id: Some(row.get(1)) };
            self.learn(held.run(), end);
            if end.position - known.position < 10_000 {
                return Ok(self.known());
            }
        }
    }
}

async fn fetch(held: &mut PooledConnection, query: Query<'_>) -> Result<Vec<PgRow>, NoConnection> {
    held.fetch_all(query).await.map_err(unreadable)
}

fn unreadable(error: sqlx::Error) -> NoConnection {
    NoConnection::Unavailable(BackendError::new(error))
}

/// The statements that read events, and values for them, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("LAST_AT_OR_BELOW", LAST_AT_OR_BELOW, "(15000)"),
        ("END_OF_RUN", END_OF_RUN, "(100)"),
        ("LAST_DRAWN", LAST_DRAWN, ""),
        ("HOLDERS", HOLDERS, ""),
    ]
}
