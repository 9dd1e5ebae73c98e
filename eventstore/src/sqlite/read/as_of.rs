//! The log as of a position or a time.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use tokio::time::sleep;
use uuid::Uuid;

use crate::as_of::{AsOf, beyond_log, not_of_the_log, not_over};
use crate::clock::micros_up_to;
use crate::database_error::DatabaseError;
use crate::error::{Invalid, ReadError};
use crate::event::EventId;
use crate::position::{Checkpoint, Position};
use crate::spawned::Spawned;
use crate::sqlite::append::direct::DirectWriter;
use crate::sqlite::store::SqliteStore;
use crate::store::EventStore;
use crate::time_marks::{EVENTS_PER_LOOK, EVENTS_PER_MARK, Mark, MarkedLog};

/// The last event up to `?1`, unless the event after `?1` is of the same append: then the last one before that append, whose
/// events follow each other. The value that stands for no append has another length than any.
const LAST_WHOLE: &str = "
    SELECT position, event_id
    FROM events
    WHERE position <= ?1 AND append_id IS NOT coalesce(
        (SELECT append_id
         FROM events
         WHERE position > ?1
         ORDER BY position
         LIMIT 1), x'00')
    ORDER BY position DESC
    LIMIT 1
";

const STORED_MARKS: &str = "
    SELECT m.position, m.event_id, m.latest
    FROM annals_time_marks AS m
    CROSS JOIN events AS e ON e.position = m.position AND e.event_id = m.event_id AND e.recorded_at <= m.latest
    ORDER BY m.position
";

const STORE_MARKS: &str = "
    INSERT OR REPLACE INTO annals_time_marks (position, event_id, latest)
    SELECT value ->> 0, unhex(value ->> 1), value ->> 2
    FROM json_each(?1)
    WHERE true
";

const EVENT_AT: &str = "
    SELECT event_id
    FROM events
    WHERE position = ?1
    ORDER BY position
";

const NEXT_MARKS: &str = "
    SELECT position, event_id, latest
    FROM (SELECT position, event_id, max(recorded_at) OVER in_order AS latest, row_number() OVER in_order AS number
          FROM (SELECT position, event_id, recorded_at
                FROM events
                WHERE position > ?1 AND position <= ?2
                ORDER BY position
                LIMIT ?3 + 0)
          WINDOW in_order AS (ORDER BY position))
    WHERE number % ?4 = 0
    ORDER BY position
";

const FIRST_BETWEEN: &str = "
    SELECT position
    FROM events
    WHERE position > ?1 AND position <= ?2 AND recorded_at > ?3
    ORDER BY position
    LIMIT 1
";

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

impl SqliteStore {
    pub(crate) async fn read_as_of(&self, as_of: AsOf) -> Result<Checkpoint, ReadError> {
        let head = self.head().await?;
        let last = match as_of {
            AsOf::Version(version) => return Err(not_of_the_log(version)),
            AsOf::Position(position) if position > head.position => return Err(beyond_log(position, head.position)),
            AsOf::Position(position) => position.get(),
            AsOf::Time(time) => self.last_before(time, head).await?,
        };
        let rows = self.fetched(sqlx::query(LAST_WHOLE).bind(last)).await?;
        let Some(row) = rows.first() else { return Ok(Checkpoint::start(head.incarnation)) };
        let (position, event_id) = (Position::stored(row.get(0)), Some(EventId::stored(id(row, 1)?)));
        Ok(Checkpoint { incarnation: head.incarnation, position, event_id })
    }

    /// The last position before the first event that was recorded after `time`.
    async fn last_before(&self, time: Timestamp, head: Checkpoint) -> Result<i64, ReadError> {
        let micros = micros_up_to(time);
        if let Some(after) = self.marks().first_after(self, micros, head.position.get()).await? {
            return Ok(after - 1);
        }
        // Nothing later is stored yet. What is stored from now on must not be recorded at `time` or before.
        loop {
            let now = self.time_after_writers(time).await?;
            if now.as_microsecond() <= micros {
                return Err(not_over(time, now));
            }
            // By the machine's clock, a lone append is recorded at the beginning of the millisecond in which it took the lock,
            // or later: see `append/lone.rs`.
            let is_over = now.as_microsecond().div_euclid(1_000) > micros.div_euclid(1_000);
            if !self.database().has_system_clock() || is_over {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let head = self.head().await?.position.get();
        let after = self.marks().first_after(self, micros, head).await?;
        Ok(after.map_or(head, |after| after - 1))
    }

    /// The time of the clock when no append was running: appends read it under the write lock of the file, so every append
    /// that is committed later is recorded at this time or later, but for a lone append, which is recorded in its millisecond or
    /// later.
    async fn time_after_writers(&self, time: Timestamp) -> Result<Timestamp, ReadError> {
        if self.database().is_read_only() {
            let problem = format!("is {time}, and no later event is stored");
            let fix = "a handle that was opened with `read_only` cannot wait for writers: ask for a position";
            return Err(Invalid::new("time", problem, fix).into());
        }
        // In a task of its own, as a caller that polls no more must not keep the lock from writers.
        let store = self.clone();
        let now = Spawned::begin(async move { store.time_of_writer().await }).await;
        now.unwrap_or_else(|source| Err(ReadError::Unavailable { source }))
    }

    async fn time_of_writer(&self) -> Result<Timestamp, ReadError> {
        let (database, failed) = (self.database(), DatabaseError::into_read);
        let mut writer = DirectWriter::around(database, database.writer().await.map_err(failed)?);
        writer.set_unclean(true);
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(writer.connection().map_err(failed)?).await;
        begun.map_err(|e| failed(database.fault(e)))?;
        let now = self.group().now();
        database.clean(&mut writer).await.map_err(failed)?;
        Ok(now)
    }

    async fn fetched(&self, query: Query<'_>) -> Result<Vec<SqliteRow>, ReadError> {
        let database = self.database();
        let mut reader = database.held_reader(None).await.map_err(DatabaseError::into_read)?;
        let rows = query.fetch_all(&mut *reader).await.map_err(|e| database.fault(e).into_read());
        reader.release();
        rows
    }
}

#[async_trait]
impl MarkedLog for SqliteStore {
    async fn stored_marks(&self) -> Result<Vec<Mark>, ReadError> {
        self.fetched(sqlx::query(STORED_MARKS)).await?.iter().map(mark).collect()
    }

    async fn store_marks(&self, marks: &[Mark]) -> Result<(), ReadError> {
        // A writer that is busy is not waited for.
        let Some(mut writer) = DirectWriter::of(self.database()).filter(|_| !self.database().is_read_only()) else {
            return Ok(());
        };
        let rows = marks.iter().map(|mark| (mark.position, mark.event_id.simple().to_string(), mark.latest));
        let rows = serde_json::json!(rows.collect::<Vec<_>>()).to_string();
        let connection = writer.connection().map_err(DatabaseError::into_read)?;
        let stored = sqlx::query(STORE_MARKS).bind(rows).execute(connection).await;
        stored.map(|_| ()).map_err(|e| self.database().fault(e).into_read())
    }

    async fn event_at(&self, position: i64) -> Result<Option<Uuid>, ReadError> {
        self.fetched(sqlx::query(EVENT_AT).bind(position)).await?.first().map(|row| id(row, 0)).transpose()
    }

    async fn next_marks(&self, after: i64, upto: i64) -> Result<Vec<Mark>, ReadError> {
        let query = sqlx::query(NEXT_MARKS).bind(after).bind(upto).bind(EVENTS_PER_LOOK).bind(EVENTS_PER_MARK);
        self.fetched(query).await?.iter().map(mark).collect()
    }

    async fn first_between(&self, after: i64, upto: i64, time: i64) -> Result<Option<i64>, ReadError> {
        let query = sqlx::query(FIRST_BETWEEN).bind(after).bind(upto).bind(time);
        Ok(self.fetched(query).await?.first().map(|row| row.get(0)))
    }
}

fn mark(row: &SqliteRow) -> Result<Mark, ReadError> {
    Ok(Mark { position: row.get(0), event_id: id(row, 1)?, latest: row.get(2) })
}

fn id(row: &SqliteRow, column: usize) -> Result<Uuid, ReadError> {
    Uuid::from_slice(row.get::<&[u8], _>(column)).map_err(|e| ReadError::Damaged {
        position: Position::START,
        what: format!("an event id of the log, or of `annals_time_marks`, is no UUID: {e}"),
    })
}

/// The reads that must never scan, for the golden file of their plans.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str)> {
    vec![
        ("LAST_WHOLE", LAST_WHOLE),
        ("STORED_MARKS", STORED_MARKS),
        ("NEXT_MARKS", NEXT_MARKS),
        ("FIRST_BETWEEN", FIRST_BETWEEN),
    ]
}
