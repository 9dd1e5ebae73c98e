//! The log as of a position or a time.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::as_of::{AsOf, beyond_log, not_of_the_log, not_over};
use crate::clock::micros_up_to;
use crate::error::{BackendError, ReadError};
use crate::event::EventId;
use crate::position::{Checkpoint, Position};
use crate::postgres::connection::pool::Query;
use crate::postgres::connection::server_run::ServerRun;
use crate::postgres::fault::{NoConnection, read_error};
use crate::postgres::read::horizon::HOLDERS;
use crate::postgres::read::pages::Reader;
use crate::time_marks::{EVENTS_PER_LOOK, EVENTS_PER_MARK, Mark, MarkedLog};

/// The clock, and whether the server is a standby, which does not see the writers on the primary.
const CLOCK: &str = "
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now, pg_is_in_recovery()
    ORDER BY now
";

/// The appends that position `$1` divides, of those between whose events others are.
const DIVIDED: &str = "
    SELECT first_position
    FROM annals.interleaved_appends
    WHERE int8range(first_position, last_position) @> $1::bigint
    ORDER BY first_position
";

/// The last event up to `$1`, unless the event after `$1` is of the same append: then the last one before that append.
const LAST_WHOLE: &str = "
    SELECT e.position, e.event_id
    FROM annals.events AS e
    WHERE e.position <= $1 AND (e.append_id IS NULL OR e.append_id IS DISTINCT FROM (
        SELECT after.append_id
        FROM annals.events AS after
        WHERE after.position > $1
        ORDER BY after.position
        LIMIT 1))
    ORDER BY e.position DESC
    LIMIT 1
";

const STORED_MARKS: &str = "
    SELECT m.position, m.event_id, m.latest
    FROM annals.time_marks AS m
    JOIN annals.events AS e
        ON e.position = m.position AND e.event_id = m.event_id
        AND (extract(epoch FROM e.recorded_at) * 1000000)::bigint <= m.latest
    ORDER BY m.position
";

const STORE_MARKS: &str = "
    INSERT INTO annals.time_marks (position, event_id, latest)
    SELECT position, event_id, latest
    FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) AS mark (position, event_id, latest)
    ON CONFLICT (position) DO UPDATE
    SET event_id = excluded.event_id, latest = excluded.latest
";

const EVENT_AT: &str = "
    SELECT event_id
    FROM annals.events
    WHERE position = $1
    ORDER BY position
";

const NEXT_MARKS: &str = "
    SELECT position, event_id, (extract(epoch FROM latest) * 1000000)::bigint
    FROM (SELECT position, event_id, max(recorded_at) OVER in_order AS latest, row_number() OVER in_order AS number
          FROM (SELECT position, event_id, recorded_at
                FROM annals.events
                WHERE position > $1 AND position <= $2
                ORDER BY position
                LIMIT $3) AS next
          WINDOW in_order AS (ORDER BY position)) AS numbered
    WHERE number % $4 = 0
    ORDER BY position
";

const FIRST_BETWEEN: &str = "
    SELECT position
    FROM annals.events
    WHERE position > $1 AND position <= $2 AND (extract(epoch FROM recorded_at) * 1000000)::bigint > $3
    ORDER BY position
    LIMIT 1
";

/// How long running writers are waited for.
const MAX_WAIT_FOR_WRITERS: Duration = Duration::from_secs(10);

/// How long to wait before the holders are read again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The log in one run of the server: what is final is so in that run only.
struct InRun<'r> {
    reader: &'r Reader,
    run: Option<ServerRun>,
}

impl Reader {
    pub(crate) async fn read_as_of(&self, as_of: AsOf) -> Result<Checkpoint, ReadError> {
        // Connects, so that the run is known.
        drop(self.pool.take().await.map_err(NoConnection::into_read)?);
        let log = InRun { reader: self, run: self.pool.run() };
        match as_of {
            AsOf::Version(version) => Err(not_of_the_log(version)),
            AsOf::Position(position) => {
                log.settle_to(position.get()).await?;
                log.last_whole(position.get()).await
            }
            AsOf::Time(time) => log.last_whole(log.last_before(time).await?).await,
        }
    }
}

impl InRun<'_> {
    fn known(&self) -> i64 {
        self.reader.horizon.known_in(self.run.as_ref()).position
    }

    /// Waits until everything that was visible before the call is final; returns the position of the last such event.
    async fn settle(&self) -> Result<i64, ReadError> {
        if self
            .reader
            .horizon
            .wait_until_final(i64::MAX, MAX_WAIT_FOR_WRITERS)
            .await
            .map_err(NoConnection::into_read)?
            .is_none()
        {
            return Err(writers_are_open());
        }
        self.known_now().await
    }

    /// The same without waiting: also on a standby, and while transactions stay open.
    async fn settle_without_waiting(&self) -> Result<i64, ReadError> {
        self.reader.horizon.final_without_waiting().await?;
        self.known_now().await
    }

    /// What is known, if this is still the run of the server.
    async fn known_now(&self) -> Result<i64, ReadError> {
        let known = self.known();
        drop(self.reader.connection_in(&self.run, None).await?);
        Ok(known)
    }

    /// Waits until the log is final up to `position`.
    async fn settle_to(&self, position: i64) -> Result<(), ReadError> {
        if position <= self.known() {
            return Ok(());
        }
        match self.settle().await {
            Ok(head) if position > head => Err(beyond_log(Position::stored(position), Position::stored(head))),
            Err(error) if position > self.settle_without_waiting().await? => Err(error),
            _ => Ok(()),
        }
    }

    /// The last position before the first event that was recorded after `time`.
    async fn last_before(&self, time: Timestamp) -> Result<i64, ReadError> {
        let marks = &self.reader.marks;
        let micros = micros_up_to(time);
        if let Some(after) = marks.first_after(self, micros, self.known()).await? {
            return Ok(after - 1);
        }
        // Nothing later is known. What is stored from now on must not be recorded at `time` or before.
        let is_over = self.wait_for_writers(time).await;
        let head = match self.settle().await {
            Ok(head) => head,
            Err(error) => {
                let head = self.settle_without_waiting().await?;
                let after = marks.first_after(self, micros, head).await?;
                return after.map(|after| after - 1).ok_or(error);
            }
        };
        match marks.first_after(self, micros, head).await? {
            Some(after) => Ok(after - 1),
            None => is_over.map(|()| head),
        }
    }

    /// Waits until every transaction that could record an event at `time` or before has ended: those that are announced once
    /// the clock shows a later time. A transaction reads the clock after it was announced.
    async fn wait_for_writers(&self, time: Timestamp) -> Result<(), ReadError> {
        let begun = Instant::now();
        let rows = self.fetch(sqlx::query(CLOCK)).await?;
        let row = rows.first().ok_or_else(|| read_error(sqlx::Error::RowNotFound))?;
        if row.try_get(1).map_err(read_error)? {
            let why = "a standby does not know the running writers; read from the primary";
            return Err(ReadError::Unavailable { source: BackendError::new(why) });
        }
        let now: i64 = row.try_get(0).map_err(read_error)?;
        if now <= micros_up_to(time) {
            return Err(not_over(time, Timestamp::from_microsecond(now).unwrap_or(Timestamp::MAX)));
        }
        let mut writers: Option<Vec<String>> = None;
        loop {
            let rows = self.fetch(sqlx::query(HOLDERS)).await?;
            let holders: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let open = match writers {
                Some(writers) => writers.into_iter().filter(|writer| holders.contains(writer)).collect(),
                None => holders,
            };
            if open.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > MAX_WAIT_FOR_WRITERS {
                return Err(writers_are_open());
            }
            writers = Some(open);
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The end of the last append that is whole up to `last`; what was recorded up to there must be final.
    async fn last_whole(&self, mut last: i64) -> Result<Checkpoint, ReadError> {
        // Those that are divided then may begin before others.
        while let Some(row) = self.fetch(sqlx::query(DIVIDED).bind(last)).await?.first() {
            last = row.get::<i64, _>(0) - 1;
        }
        let rows = self.fetch(sqlx::query(LAST_WHOLE).bind(last)).await?;
        let incarnation = self.reader.incarnation;
        let Some(row) = rows.first() else { return Ok(Checkpoint::start(incarnation)) };
        let event_id = Some(EventId::stored(row.try_get(1).map_err(read_error)?));
        Ok(Checkpoint { incarnation, position: Position::stored(row.try_get(0).map_err(read_error)?), event_id })
    }

    async fn fetch(&self, query: Query<'_>) -> Result<Vec<PgRow>, ReadError> {
        self.reader.connection_in(&self.run, None).await?.fetch_all(query).await.map_err(read_error)
    }
}

#[async_trait]
impl MarkedLog for InRun<'_> {
    async fn stored_marks(&self) -> Result<Vec<Mark>, ReadError> {
        self.fetch(sqlx::query(STORED_MARKS)).await?.iter().map(mark).collect()
    }

    async fn store_marks(&self, marks: &[Mark]) -> Result<(), ReadError> {
        let query = sqlx::query(STORE_MARKS)
            .bind(marks.iter().map(|mark| mark.position).collect::<Vec<_>>())
            .bind(marks.iter().map(|mark| mark.event_id).collect::<Vec<_>>())
            .bind(marks.iter().map(|mark| mark.latest).collect::<Vec<_>>());
        self.fetch(query).await.map(drop)
    }

    async fn event_at(&self, position: i64) -> Result<Option<Uuid>, ReadError> {
        let rows = self.fetch(sqlx::query(EVENT_AT).bind(position)).await?;
        rows.first().map(|row| row.try_get(0).map_err(read_error)).transpose()
    }

    async fn next_marks(&self, after: i64, upto: i64) -> Result<Vec<Mark>, ReadError> {
        let query = sqlx::query(NEXT_MARKS).bind(after).bind(upto).bind(EVENTS_PER_LOOK).bind(EVENTS_PER_MARK);
        self.fetch(query).await?.iter().map(mark).collect()
    }

    async fn first_between(&self, after: i64, upto: i64, time: i64) -> Result<Option<i64>, ReadError> {
        let query = sqlx::query(FIRST_BETWEEN).bind(after).bind(upto).bind(time);
        let rows = self.fetch(query).await?;
        rows.first().map(|row| row.try_get(0).map_err(read_error)).transpose()
    }
}

fn mark(row: &PgRow) -> Result<Mark, ReadError> {
    let read = |row: &PgRow| Ok(Mark { position: row.try_get(0)?, event_id: row.try_get(1)?, latest: row.try_get(2)? });
    read(row).map_err(read_error)
}

fn writers_are_open() -> ReadError {
    let why = format!("transactions that have appended were open for more than {MAX_WAIT_FOR_WRITERS:?}; end them");
    ReadError::Unavailable { source: BackendError::new(why) }
}

/// The statements that read events, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("DIVIDED", DIVIDED, "(100)"),
        ("LAST_WHOLE", LAST_WHOLE, "(100)"),
        ("NEXT_MARKS", NEXT_MARKS, "(100, 15000, 10000, 1000)"),
        ("FIRST_BETWEEN", FIRST_BETWEEN, "(100, 15000, 0)"),
    ]
}
