//! Parked streams in a SQLite file. They are written by the transaction that moves the checkpoint.

use annals_eventstore::{DatabaseError, SqliteDatabase, StreamId};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::values::Query;
use crate::database::parked::{self, ParkedStream, ParkingChanges, parts};
use crate::database::{UnitId, Work};

const PARKED: &str = "
    SELECT tenant, aggregate_type, aggregate_id, position, stream_version, event_name, reason, parked_at, waiting
    FROM annals_parked_streams
    WHERE projection = ?1 AND version = ?2 AND slot = ?3
    ORDER BY tenant, aggregate_type, aggregate_id
";

const REOPEN: &str = "
    DELETE FROM annals_parked_streams
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND tenant = ?4 AND aggregate_type = ?5 AND aggregate_id = ?6
";

const DROP: &str = "
    INSERT INTO annals_dropped_events (projection, version, tenant, aggregate_type, aggregate_id, from_position,
                                       to_position, dropped_by, reason, dropped_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT (projection, version, tenant, aggregate_type, aggregate_id, from_position) DO UPDATE
    SET to_position = excluded.to_position, dropped_by = excluded.dropped_by, reason = excluded.reason,
        dropped_at = excluded.dropped_at
";

const PARK: &str = "
    INSERT INTO annals_parked_streams (projection, version, slot, tenant, aggregate_type, aggregate_id, position,
                                       stream_version, event_name, reason, parked_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
";

const PASS_OVER: &str = "
    UPDATE annals_parked_streams
    SET waiting = waiting + ?7
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND tenant = ?4 AND aggregate_type = ?5 AND aggregate_id = ?6
";

/// What is parked in a slot.
pub(super) async fn parked(database: &SqliteDatabase, unit: &UnitId) -> Result<Vec<ParkedStream>, DatabaseError> {
    let mut reader = database.read_for(None).await?;
    let query = sqlx::query(PARKED).bind(unit.projection).bind(unit.version).bind(unit.slot);
    let rows = query.fetch_all(&mut *reader).await.map_err(|e| database.fault(e))?;
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|e| database.fault(e))
}

/// Writes what a part of a commit does to parked streams. The connection is in the transaction that has moved the checkpoint.
pub(super) async fn write(connection: &mut SqliteConnection, work: &Work, now: Timestamp) -> Result<(), sqlx::Error> {
    let ParkingChanges { reopen, drop, park, passed_over } = &work.parking;
    let of_version = |sql| sqlx::query(sql).bind(work.model.projection).bind(work.model.version);
    let of_slot = |sql| of_version(sql).bind(work.from.slot);
    if let Some(stream) = reopen {
        bind_stream(of_slot(REOPEN), stream).execute(&mut *connection).await?;
    }
    if let Some(dropped) = drop {
        let query = bind_stream(of_version(DROP), &dropped.stream);
        let query = query.bind(dropped.from.get()).bind(work.to.position.get());
        let query = query.bind(dropped.by.clone()).bind(dropped.why.clone()).bind(now.as_microsecond());
        query.execute(&mut *connection).await?;
    }
    for (event, reason) in park {
        let query = bind_stream(of_slot(PARK), &event.stream);
        let query = query.bind(event.position.get()).bind(event.version.get()).bind(event.name.to_string());
        query.bind(parked::storable(reason)).bind(now.as_microsecond()).execute(&mut *connection).await?;
    }
    for over in passed_over {
        let query = bind_stream(of_slot(PASS_OVER), &over.stream);
        query.bind(i64::try_from(over.events).unwrap_or(i64::MAX)).execute(&mut *connection).await?;
    }
    Ok(())
}

fn bind_stream(query: Query, stream: &StreamId) -> Query {
    let [tenant, aggregate_type, aggregate_id] = parts(stream);
    query.bind(tenant).bind(aggregate_type).bind(aggregate_id)
}

fn read(row: &SqliteRow) -> Result<ParkedStream, sqlx::Error> {
    let damaged = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
    let parked_at = Timestamp::from_microsecond(row.try_get("parked_at")?).map_err(|e| damaged(e.into()))?;
    let stored = parked::Row {
        stream: [row.try_get("tenant")?, row.try_get("aggregate_type")?, row.try_get("aggregate_id")?],
        position: row.try_get("position")?,
        stream_version: row.try_get("stream_version")?,
        event_name: row.try_get("event_name")?,
        reason: row.try_get("reason")?,
        parked_at,
        waiting: row.try_get("waiting")?,
    };
    stored.read().map_err(|e| damaged(e.into()))
}
