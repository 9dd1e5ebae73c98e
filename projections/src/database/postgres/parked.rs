//! Parked streams in PostgreSQL. They are written by the transaction that moves the checkpoint.

use annals_eventstore::__private::Micros;
use annals_eventstore::{DatabaseError, PostgresDatabase, StreamId};
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::schema::{ModelSchema, stored_slot};
use super::values::Query;
use crate::database::parked::{self, ParkedStream, ParkingChanges, parts};
use crate::database::{UnitId, Work};

const PARKED: &str = "
    SELECT tenant, aggregate_type, aggregate_id, position, stream_version, event_name, reason,
           (extract(epoch FROM parked_at) * 1000000)::bigint AS parked_at, waiting
    FROM annals.parked_streams
    WHERE read_schema = $1 AND projection = $2 AND version = $3 AND slot = $4
    ORDER BY tenant, aggregate_type, aggregate_id
";

const REOPEN: &str = "
    DELETE FROM annals.parked_streams
    WHERE read_schema = $1 AND projection = $2 AND version = $3 AND slot = $4
      AND tenant = $5 AND aggregate_type = $6 AND aggregate_id = $7
";

const DROP: &str = "
    INSERT INTO annals.dropped_events (read_schema, projection, version, tenant, aggregate_type, aggregate_id,
                                       from_position, to_position, dropped_by, reason, dropped_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (read_schema, projection, version, tenant, aggregate_type, aggregate_id, from_position) DO UPDATE
    SET to_position = excluded.to_position, dropped_by = excluded.dropped_by, reason = excluded.reason,
        dropped_at = excluded.dropped_at
";

const PARK: &str = "
    INSERT INTO annals.parked_streams (read_schema, projection, version, slot, tenant, aggregate_type, aggregate_id,
                                       position, stream_version, event_name, reason, parked_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
";

const PASS_OVER: &str = "
    UPDATE annals.parked_streams AS p
    SET waiting = p.waiting + o.events
    FROM unnest($5::text[], $6::text[], $7::text[], $8::bigint[]) AS o (tenant, aggregate_type, aggregate_id, events)
    WHERE p.read_schema = $1 AND p.projection = $2 AND p.version = $3 AND p.slot = $4
      AND (p.tenant, p.aggregate_type, p.aggregate_id) = (o.tenant, o.aggregate_type, o.aggregate_id)
";

/// What is parked in a slot.
pub(super) async fn parked(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    unit: &UnitId,
) -> Result<Vec<ParkedStream>, DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = schema.once(PARKED).bind(schema.schema()).bind(unit.projection).bind(i64::from(unit.version));
    let rows = query.bind(stored_slot(unit.slot)).fetch_all(&mut transaction).await;
    let rows = rows.map_err(|e| database.fault(e))?;
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|e| database.fault(e))
}

/// Writes what a part of a commit does to parked streams. The connection is in the transaction that has moved the checkpoint.
pub(super) async fn write(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    work: &Work,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let ParkingChanges { reopen, drop, park, passed_over } = &work.parking;
    let slot = stored_slot(work.from.slot);
    let version = |query: Query| {
        let query = query.bind(schema.schema().to_owned()).bind(work.model.projection);
        query.bind(i64::from(work.model.version))
    };
    if let Some(stream) = reopen {
        bind_stream(version(schema.query(REOPEN)).bind(slot), stream).execute(&mut *connection).await?;
    }
    if let Some(dropped) = drop {
        let query = bind_stream(version(schema.query(DROP)), &dropped.stream);
        let query = query.bind(dropped.from.get()).bind(work.to.position.get());
        let query = query.bind(dropped.by.clone()).bind(dropped.why.clone()).bind(Micros::of(now));
        query.execute(&mut *connection).await?;
    }
    for (event, reason) in park {
        let query = bind_stream(version(schema.query(PARK)).bind(slot), &event.stream);
        let query = query.bind(event.position.get()).bind(event.version.get()).bind(event.name.to_string());
        query.bind(parked::storable(reason)).bind(Micros::of(now)).execute(&mut *connection).await?;
    }
    if !passed_over.is_empty() {
        let streams: Vec<[String; 3]> = passed_over.iter().map(|over| parts(&over.stream)).collect();
        let part = |at: usize| streams.iter().map(|parts| parts[at].clone()).collect::<Vec<String>>();
        let events: Vec<i64> = passed_over.iter().map(|over| i64::try_from(over.events).unwrap_or(i64::MAX)).collect();
        let query = version(schema.query(PASS_OVER)).bind(slot).bind(part(0)).bind(part(1)).bind(part(2));
        query.bind(events).execute(&mut *connection).await?;
    }
    Ok(())
}

fn bind_stream(query: Query, stream: &StreamId) -> Query {
    let [tenant, aggregate_type, aggregate_id] = parts(stream);
    query.bind(tenant).bind(aggregate_type).bind(aggregate_id)
}

fn read(row: &PgRow) -> Result<ParkedStream, sqlx::Error> {
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
