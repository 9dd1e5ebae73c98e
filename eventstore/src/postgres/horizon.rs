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

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::fault::{NoConnection, read_error};
use super::pool::{Pool, Query};
use super::rows::Micros;
use crate::error::{BackendError, ReadError};

const LAST_DRAWN: &str = "
    SELECT pg_postmaster_start_time(), pg_is_in_recovery(),
           coalesce(pg_sequence_last_value('annals.events_position'), 0) AS last
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
#[derive(Default)]
pub(super) struct Horizon {
    known: Mutex<Final>,
}

impl Horizon {
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

    /// Finds out how far the log is final now: at least every event that was visible before the call. Waits for writers
    /// that are at work, as long as `patience` says; `None` if that was not enough.
    ///
    /// Holds no connection while it waits.
    pub(super) async fn settle(&self, pool: &Pool, patience: Duration) -> Result<Option<Final>, ReadError> {
        let until = Instant::now() + patience;
        'anew: loop {
            let (life, rows) = ask(pool, sqlx::query(LAST_DRAWN)).await?;
            let last: i64 = rows.first().map_or(0, |row| row.get(2));
            let (same, rows) = ask(pool, sqlx::query(HOLDERS)).await?;
            if same != life {
                continue;
            }
            let mut writers = holders(&rows);
            while !writers.is_empty() {
                if Instant::now() >= until {
                    return Ok(None);
                }
                sleep(LOOK_AGAIN).await;
                let (same, rows) = ask(pool, sqlx::query(HOLDERS)).await?;
                if same != life {
                    continue 'anew;
                }
                let now = holders(&rows);
                // A writer that has prepared its transaction may go on under the name of a prepared one.
                writers.retain(|writer| now.contains(writer));
                writers.extend(now.into_iter().filter(|holder| is_prepared(holder)));
            }
            let (same, rows) = ask(pool, sqlx::query(LAST_AT_OR_BELOW).bind(last)).await?;
            if same != life {
                continue;
            }
            let found = rows
                .first()
                .and_then(|row| Some(Final { position: row.get::<Option<i64>, _>(2)?, event_id: row.get(3) }));
            return Ok(Some(self.learn(found.unwrap_or_default())));
        }
    }

    /// How far the log is final without waiting for anybody: what is known, and the numbers without a hole after it.
    pub(super) async fn without_waiting(&self, pool: &Pool) -> Result<Final, ReadError> {
        loop {
            let known = self.known();
            let rows = fetch(pool, sqlx::query(END_OF_RUN).bind(known.position)).await?;
            let Some(row) = rows.first() else { return Ok(known) };
            let end = Final { position: row.get(0), event_id: Some(row.get(1)) };
            if self.learn(end) != end || end.position - known.position < 10_000 {
                return Ok(self.known());
            }
        }
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

async fn fetch(pool: &Pool, query: Query<'_>) -> Result<Vec<PgRow>, ReadError> {
    let mut held = pool.take().await.map_err(NoConnection::into_read)?;
    held.fetch_all(query).await.map_err(read_error)
}

/// Runs a statement whose first columns tell of the server's life.
async fn ask(pool: &Pool, query: Query<'_>) -> Result<(Life, Vec<PgRow>), ReadError> {
    let rows = fetch(pool, query).await?;
    let unreadable = |e| ReadError::Unavailable { source: BackendError::new(e) };
    let row = rows.first().ok_or_else(|| unreadable(sqlx::Error::RowNotFound))?;
    let started: Micros = row.try_get(0).map_err(unreadable)?;
    if row.try_get::<bool, _>(1).map_err(unreadable)? {
        let why = "a standby cannot tell whether a missing position will be filled; read from the primary";
        return Err(ReadError::Unavailable { source: BackendError::new(why) });
    }
    Ok((Life { started: started.0 }, rows))
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
