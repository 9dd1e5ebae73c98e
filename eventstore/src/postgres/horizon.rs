//! How far the log is final: up to which position no writer can add an event any more.
//!
//! Positions become visible in any order, so a reader that meets a hole cannot see whether it will be filled. It
//! reads L, the last number drawn, and after it W, the transactions that hold the fence. Whoever has drawn a number up
//! to L announced itself before, so it is in W or has ended, and what has ended is visible. When none of W holds the
//! fence any more, everything up to the last event at or below L that a new statement sees is final, and what is
//! missing below it will never come.
//!
//! L and W are of one server's life: when it starts anew, prepared transactions change their names and numbers
//! of aborted draws are drawn again. So every statement also says when the server started and whether it is a standby,
//! which knows nothing of the writers on the primary.

//!
//! One task per handle finds that out for all its readers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::fault::NoConnection;
use super::holders::Wait;
use super::pool::{Pool, Query};
use super::rows::Micros;
use crate::error::{BackendError, ReadError};
use crate::position::Position;

const LAST_DRAWN: &str = "
    SELECT pg_postmaster_start_time(), pg_is_in_recovery(), CASE WHEN is_called THEN last_value ELSE 0 END AS last
    FROM annals.events_position
    ORDER BY 1
";

/// One row per holder, and one without a holder if there is none. The keys are those of the trigger.
const HOLDERS: &str = "
    SELECT pg_postmaster_start_time(), pg_is_in_recovery(), l.virtualtransaction
    FROM (SELECT oid FROM pg_database WHERE datname = current_database()) AS d
    LEFT JOIN pg_locks AS l
      ON l.locktype = 'advisory' AND l.database = d.oid AND l.granted
     AND l.classid = 1634627180 AND l.objid = 1718510437 AND l.objsubid = 2
    ORDER BY 3
";

const LAST_AT_OR_BELOW: &str = "
    SELECT pg_postmaster_start_time(), pg_is_in_recovery(), e.position, e.event_id
    FROM (SELECT 1) AS one
    LEFT JOIN (
        SELECT position, event_id
        FROM annals.events
        WHERE position <= $1
        ORDER BY position DESC
        LIMIT 1) AS e ON true
    ORDER BY 3
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

/// An event up to which the log is final; position 0 and no id before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Final {
    pub(super) position: i64,
    pub(super) event_id: Option<Uuid>,
}

/// Which life of the server a statement saw.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Life {
    started: i64,
}

/// What one handle knows of how far the log is final.
pub(super) struct Horizon {
    pool: Pool,
    known: Mutex<Final>,
    /// How many have asked. A run of the task answers all that had asked when it began.
    asked: AtomicU64,
    wake: Notify,
    answered: watch::Sender<Answered>,
    /// Whether somebody who asked waits for news of the head instead.
    gave_up: AtomicBool,
}

/// What the last run of the task found.
struct Answered {
    upto: u64,
    found: Result<Final, NoConnection>,
}

impl Horizon {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            known: Mutex::default(),
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            answered: watch::Sender::new(Answered { upto: 0, found: Ok(Final::default()) }),
            gave_up: AtomicBool::new(false),
        }
    }

    /// What is known without asking. Events that are final stay so, also through a restart of the server: a commit
    /// keeps the numbers up to its own.
    pub(super) fn known(&self) -> Final {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, found: Final) -> Final {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if found.position > known.position {
            *known = found;
        }
        *known
    }

    /// Asks how far the log is final now: at least every event that was visible before the call. Waits for writers that
    /// are at work, as long as `patience` says; `None` if that was not enough. Then readers of the head are woken as soon
    /// as there is an answer.
    pub(super) async fn settle(&self, patience: Duration) -> Result<Option<Final>, ReadError> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answers = self.answered.subscribe();
        self.wake.notify_one();
        let answered = timeout(patience, answers.wait_for(|answered| answered.upto >= ticket)).await;
        if answered.is_err() {
            self.gave_up.store(true, Ordering::Release);
        }
        // Also after giving up: the answer may have come before anybody was told to wake others.
        let answered = self.answered.borrow();
        if answered.upto < ticket {
            return Ok(None);
        }
        answered.found.clone().map(Some).map_err(NoConnection::into_read)
    }

    /// Answers those who ask, until it is aborted. Says aloud who keeps readers waiting for longer than `alarm`.
    pub(super) async fn serve(self: Arc<Self>, head: watch::Sender<Position>, alarm: Duration) {
        loop {
            self.wake.notified().await;
            let upto = self.asked.load(Ordering::Acquire);
            let found = self.find_out(alarm).await;
            let failed = found.is_err();
            self.answered.send_replace(Answered { upto, found });
            if self.gave_up.swap(false, Ordering::AcqRel) {
                head.send_modify(|_| {});
            }
            if failed {
                sleep(TRY_AGAIN).await;
            }
        }
    }

    /// Finds out how far the log is final, however long writers at work take. Holds no connection while it waits.
    async fn find_out(&self, alarm: Duration) -> Result<Final, NoConnection> {
        let mut wait = Wait::new(alarm);
        'anew: loop {
            let (life, rows) = self.ask(sqlx::query(LAST_DRAWN)).await?;
            let last: i64 = rows.first().map_or(0, |row| row.get(2));
            let (same, rows) = self.ask(sqlx::query(HOLDERS)).await?;
            if same != life {
                continue;
            }
            let mut writers = holders(&rows);
            while !writers.is_empty() {
                wait.look(&self.pool).await;
                sleep(LOOK_AGAIN).await;
                let (same, rows) = self.ask(sqlx::query(HOLDERS)).await?;
                if same != life {
                    continue 'anew;
                }
                let now = holders(&rows);
                // A writer that has prepared its transaction may go on under the name of a prepared one.
                writers.retain(|writer| now.contains(writer));
                writers.extend(now.into_iter().filter(|holder| is_prepared(holder)));
            }
            let (same, rows) = self.ask(sqlx::query(LAST_AT_OR_BELOW).bind(last)).await?;
            if same != life {
                continue;
            }
            let found = rows
                .first()
                .and_then(|row| Some(Final { position: row.get::<Option<i64>, _>(2)?, event_id: row.get(3) }));
            return Ok(self.learn(found.unwrap_or_default()));
        }
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
        held.fetch_all(query).await.map_err(|e| NoConnection::Unavailable(BackendError::new(e)))
    }

    /// Runs a statement whose first columns tell of the server's life.
    async fn ask(&self, query: Query<'_>) -> Result<(Life, Vec<PgRow>), NoConnection> {
        let rows = self.fetch(query).await?;
        let unreadable = |e| NoConnection::Unavailable(BackendError::new(e));
        let row = rows.first().ok_or_else(|| unreadable(sqlx::Error::RowNotFound))?;
        let started: Micros = row.try_get(0).map_err(unreadable)?;
        if row.try_get::<bool, _>(1).map_err(unreadable)? {
            let why = "a standby cannot tell whether a missing position will be filled; read from the primary";
            return Err(NoConnection::Unavailable(BackendError::new(why)));
        }
        Ok((Life { started: started.0 }, rows))
    }
}

fn holders(rows: &[PgRow]) -> Vec<String> {
    let mut holders: Vec<String> = rows.iter().filter_map(|row| row.get::<Option<String>, _>(2)).collect();
    holders.dedup();
    holders
}

/// A prepared transaction belongs to no backend, so its number stands after a `-1`.
fn is_prepared(holder: &str) -> bool {
    holder.starts_with("-1/")
}
