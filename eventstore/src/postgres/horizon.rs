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

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::fault::{NoConnection, read_error};
use super::pool::{Pool, Query};
use super::rows::Micros;
use super::unsettled::Unsettled;
use crate::error::{BackendError, ReadError};

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
           CASE WHEN is_called THEN last_value ELSE 0 END AS last
    FROM annals.events_position
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
#[derive(Default)]
pub(super) struct Horizon {
    known: Mutex<Final>,
    /// Held while somebody looks, so that what was seen is taken in in the order in which it was seen.
    looks: tokio::sync::Mutex<Looks>,
}

/// What the readers of one handle have seen together.
#[derive(Default)]
struct Looks {
    /// The life that the rest is of.
    life: Option<Life>,
    unsettled: Unsettled,
    /// The highest number up to which everything is settled.
    settled: i64,
}

impl Looks {
    /// Forgets what was seen of any other life.
    fn of(&mut self, life: &Life) {
        if self.life.as_ref() != Some(life) {
            *self = Self { life: Some(life.clone()), ..Self::default() };
        }
    }
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

    /// Finds out how far the log is final now: at least every event that was visible before the call, or some event
    /// after `after`, whichever is known first. Waits for writers that are at work, as long as `patience` says; `None` if
    /// that was not enough. Who comes again goes on with the same wait.
    ///
    /// Holds no connection while it waits.
    pub(super) async fn settle(&self, pool: &Pool, after: i64, patience: Duration) -> Result<Option<Final>, ReadError> {
        let until = Instant::now() + patience;
        let mut wanted = None;
        loop {
            let is_settled = self.look(pool, &mut wanted).await?;
            let known = self.known();
            if is_settled || known.position > after {
                return Ok(Some(known));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Looks at the writers once, and tells whether the log is settled up to the number `wanted`: the last one drawn in
    /// this life of the server, which is found out if there is none.
    async fn look(&self, pool: &Pool, wanted: &mut Option<(Life, i64)>) -> Result<bool, ReadError> {
        let mut looks = self.looks.lock().await;
        // Others wait for this one to end, so a server that does not answer must not keep it for ever.
        let answered = timeout(MOST_FOR_A_LOOK, self.take_a_look(pool, &mut looks, wanted)).await;
        answered.unwrap_or_else(|_| {
            let why = format!("no answer within {MOST_FOR_A_LOOK:?}");
            Err(ReadError::Unavailable { source: BackendError::new(why) })
        })
    }

    async fn take_a_look(
        &self,
        pool: &Pool,
        looks: &mut Looks,
        wanted: &mut Option<(Life, i64)>,
    ) -> Result<bool, ReadError> {
        if wanted.is_none() {
            let (life, rows) = ask(pool, sqlx::query(LAST_DRAWN)).await?;
            *wanted = Some((life, rows.first().map_or(0, |row| row.get(3))));
        }
        let Some((life, last)) = wanted else { return Ok(false) };
        looks.of(life);
        if looks.settled >= *last {
            return Ok(true);
        }
        let rows = fetch(pool, sqlx::query(HOLDERS)).await?;
        if started(&rows)? != life.started {
            *wanted = None;
            return Ok(false);
        }
        let mut holders: Vec<String> = rows.iter().filter_map(|row| row.get::<Option<String>, _>(2)).collect();
        holders.dedup();
        looks.unsettled.add(*last, &holders);
        let Some(done) = looks.unsettled.done(&holders) else { return Ok(false) };
        let (same, rows) = ask(pool, sqlx::query(LAST_AT_OR_BELOW).bind(done)).await?;
        if same != *life {
            *wanted = None;
            return Ok(false);
        }
        if let Some(row) = rows.first()
            && let Some(position) = row.get(3)
        {
            self.learn(Final { position, event_id: row.get(4) });
        }
        looks.unsettled.settled(done);
        looks.settled = done;
        Ok(done >= *last)
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

async fn fetch(pool: &Pool, query: Query<'_>) -> Result<Vec<PgRow>, ReadError> {
    let mut held = pool.take().await.map_err(NoConnection::into_read)?;
    held.fetch_all(query).await.map_err(read_error)
}

/// Runs a statement whose first columns tell of the server's life.
async fn ask(pool: &Pool, query: Query<'_>) -> Result<(Life, Vec<PgRow>), ReadError> {
    let rows = fetch(pool, query).await?;
    let started = started(&rows)?;
    let processes = rows.first().map(|row| row.try_get(2)).transpose().map_err(unreadable)?.unwrap_or_default();
    Ok((Life { started, processes }, rows))
}

/// When the server was started that has given these rows.
fn started(rows: &[PgRow]) -> Result<i64, ReadError> {
    let row = rows.first().ok_or_else(|| unreadable(sqlx::Error::RowNotFound))?;
    if row.try_get::<bool, _>(0).map_err(unreadable)? {
        let why = "a standby cannot tell whether a missing position will be filled; read from the primary";
        return Err(ReadError::Unavailable { source: BackendError::new(why) });
    }
    Ok(row.try_get::<Micros, _>(1).map_err(unreadable)?.0)
}

fn unreadable(error: sqlx::Error) -> ReadError {
    ReadError::Unavailable { source: BackendError::new(error) }
}
