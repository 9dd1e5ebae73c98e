//! Leases in PostgreSQL. No statement waits for a checkpoint that is being moved, and none keeps anything in its session, so
//! a pooler may stand in between.

use std::time::Duration;

use annals_eventstore::__private::Micros;
use annals_eventstore::{DatabaseError, Position, PostgresDatabase};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::prepare::TAKE_TURN;
use super::schema::{ModelSchema, stored_slot};
use super::{checkpoint_of, place_of, slot_of, version_of};
use crate::database::{Claimed, LeaseState, Paused, Place, Runner, RunnerState, Survey, UnitId};

/// Those that have been dead for long are forgotten. The process itself comes first, so that it sees itself.
const I_AM_ALIVE: &str = "
    INSERT INTO annals.runners (read_schema, runner, name, projections, alive_until)
    VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
    ON CONFLICT (read_schema, runner) DO UPDATE
    SET name = excluded.name, projections = excluded.projections, alive_until = excluded.alive_until
";

const FORGET_THE_DEAD: &str = "
    DELETE FROM annals.runners
    WHERE read_schema = $1 AND alive_until < clock_timestamp() - interval '1 hour'
";

/// A checkpoint that is locked is being moved by its owner, who renews the lease the next time.
const RENEW: &str = "
    UPDATE annals.checkpoints AS c
    SET leased_until = clock_timestamp() + make_interval(secs => $3)
    FROM (SELECT read_schema, projection, version, slot
          FROM annals.checkpoints
          WHERE read_schema = $1 AND owner = $2
          ORDER BY projection, version, slot
          FOR UPDATE SKIP LOCKED) AS mine
    WHERE (c.read_schema, c.projection, c.version, c.slot) = (mine.read_schema, mine.projection, mine.version, mine.slot)
";

const UNITS: &str = "
    SELECT projection, version, slot, owner_epoch, incarnation, position, event_id,
           CASE WHEN leased_until > clock_timestamp() THEN owner END AS owner,
           (extract(epoch FROM paused_at) * 1000000)::bigint AS paused_at, paused_by
    FROM annals.checkpoints
    WHERE read_schema = $1
    ORDER BY projection, version, slot
";

const RUNNERS: &str = "
    SELECT runner, name, projections
    FROM annals.runners
    WHERE read_schema = $1 AND alive_until > clock_timestamp()
    ORDER BY runner
";

const CLAIM: &str = "
    UPDATE annals.checkpoints AS c
    SET owner = $2, owner_epoch = c.owner_epoch + 1, leased_until = clock_timestamp() + make_interval(secs => $3)
    FROM (SELECT read_schema, projection, version, slot,
                 owner IS NOT NULL OR (trying IS NOT NULL AND trying > position) AS suspect
          FROM annals.checkpoints
          JOIN unnest($4::text[], $5::bigint[], $6::int[]) AS wanted (projection, version, slot)
          USING (projection, version, slot)
          WHERE read_schema = $1 AND paused_at IS NULL AND (owner IS NULL OR leased_until <= clock_timestamp())
          ORDER BY projection, version, slot
          FOR UPDATE OF checkpoints SKIP LOCKED) AS free
    WHERE (c.read_schema, c.projection, c.version, c.slot) = (free.read_schema, free.projection, free.version, free.slot)
    RETURNING c.projection, c.version, c.slot, c.owner_epoch, c.incarnation, c.position, c.event_id, free.suspect
";

const BEGIN_TRY: &str = "
    UPDATE annals.checkpoints
    SET trying = $6, tries = CASE WHEN trying = $6 THEN tries + 1 ELSE 1 END
    WHERE read_schema = $1 AND projection = $2 AND version = $3 AND slot = $4 AND owner_epoch = $5
    RETURNING tries
";

const FORGET_TRIES: &str = "
    UPDATE annals.checkpoints
    SET trying = NULL, tries = 0
    WHERE read_schema = $1 AND projection = $2 AND trying IS NOT NULL
";

const SEIZE: &str = "
    UPDATE annals.checkpoints
    SET owner = $5, owner_epoch = owner_epoch + 1, leased_until = clock_timestamp() + make_interval(secs => $6)
    WHERE read_schema = $1 AND projection = $2 AND version = $3 AND slot = $4 AND paused_at IS NULL
      AND ($7::bigint IS NULL OR owner_epoch = $7)
    RETURNING slot, owner_epoch, incarnation, position, event_id
";

const RELEASE: &str = "
    UPDATE annals.checkpoints AS c
    SET owner = NULL, leased_until = NULL
    FROM unnest($2::text[], $3::bigint[], $4::int[], $5::bigint[]) AS held (projection, version, slot, owner_epoch)
    WHERE c.read_schema = $1
      AND (c.projection, c.version, c.slot, c.owner_epoch)
          = (held.projection, held.version, held.slot, held.owner_epoch)
";

const LEAVE: &str = "
    DELETE FROM annals.runners
    WHERE read_schema = $1 AND runner = $2
";

/// The new epoch makes whatever an owner commits later an attempt of somebody who owns nothing.
const PAUSE: &str = "
    UPDATE annals.checkpoints
    SET paused_at = $4, paused_by = $3, owner = NULL, leased_until = NULL, owner_epoch = owner_epoch + 1
    WHERE read_schema = $1 AND projection = $2 AND paused_at IS NULL
";

const PAUSED: &str = "
    SELECT (extract(epoch FROM paused_at) * 1000000)::bigint AS paused_at, paused_by
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2
    ORDER BY version, slot
    LIMIT 1
";

const RESUME: &str = "
    UPDATE annals.checkpoints
    SET paused_at = NULL, paused_by = NULL
    WHERE read_schema = $1 AND projection = $2 AND paused_at IS NOT NULL
";

pub(super) async fn survey(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    runner: &Runner,
    lease: Duration,
) -> Result<Survey, DatabaseError> {
    let failed = |e| database.fault(e);
    let mut transaction = database.begin().await?;
    let alive =
        schema.once(I_AM_ALIVE).bind(schema.schema()).bind(runner.id).bind(&runner.name).bind(runner.runs_as_text());
    alive.bind(lease.as_secs_f64()).execute(&mut transaction).await.map_err(failed)?;
    schema.once(FORGET_THE_DEAD).bind(schema.schema()).execute(&mut transaction).await.map_err(failed)?;
    let renew = schema.once(RENEW).bind(schema.schema()).bind(runner.id).bind(lease.as_secs_f64());
    renew.execute(&mut transaction).await.map_err(failed)?;
    let units = schema.once(UNITS).bind(schema.schema()).fetch_all(&mut transaction).await.map_err(failed)?;
    let runners = schema.once(RUNNERS).bind(schema.schema()).fetch_all(&mut transaction).await.map_err(failed)?;
    transaction.commit().await?;
    let owners = units.iter().filter_map(|row| row.try_get("owner").transpose()).collect::<Result<Vec<Uuid>, _>>();
    let units = units.iter().filter_map(|row| lease_state(runner, row).transpose()).collect::<Result<_, _>>();
    let runners = runners.iter().map(|row| runner_state(runner, row)).collect::<Result<_, _>>();
    Ok(Survey::new(units.map_err(failed)?, runners.map_err(failed)?, &owners.map_err(failed)?))
}

pub(super) async fn claim(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    runner: &Runner,
    units: &[UnitId],
    lease: Duration,
) -> Result<Vec<Claimed>, DatabaseError> {
    let failed = |e| database.fault(e);
    let (projections, versions, slots) = columns(units);
    let mut transaction = database.begin().await?;
    let query = schema.once(CLAIM).bind(schema.schema()).bind(runner.id).bind(lease.as_secs_f64());
    let query = query.bind(projections).bind(versions).bind(slots);
    let rows = query.fetch_all(&mut transaction).await.map_err(failed)?;
    transaction.commit().await?;
    let claimed = rows.iter().filter_map(|row| claimed(runner, row).transpose());
    claimed.collect::<Result<_, _>>().map_err(failed)
}

pub(super) async fn begin_try(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    unit: &UnitId,
    epoch: i64,
    position: Position,
) -> Result<Option<u32>, DatabaseError> {
    let failed = |e| database.fault(e);
    let mut transaction = database.begin().await?;
    let query = schema.once(BEGIN_TRY).bind(schema.schema()).bind(unit.projection).bind(i64::from(unit.version));
    let query = query.bind(stored_slot(unit.slot)).bind(epoch).bind(position.get());
    let row = query.fetch_optional(&mut transaction).await.map_err(failed)?;
    transaction.commit().await?;
    let tries = row.map(|row| row.try_get::<i32, _>("tries")).transpose().map_err(failed)?;
    Ok(tries.map(|tries| u32::try_from(tries).unwrap_or_default()))
}

pub(super) async fn forget_tries(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    projection: &str,
) -> Result<(), DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = schema.once(FORGET_TRIES).bind(schema.schema()).bind(projection);
    query.execute(&mut transaction).await.map_err(|e| database.fault(e))?;
    transaction.commit().await
}

pub(super) async fn seize(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    unit: &UnitId,
    owner: Uuid,
    held: Option<i64>,
    lease: Duration,
) -> Result<Option<Place>, DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = schema.once(SEIZE).bind(schema.schema()).bind(unit.projection).bind(i64::from(unit.version));
    let query = query.bind(stored_slot(unit.slot)).bind(owner).bind(lease.as_secs_f64()).bind(held);
    let row = query.fetch_optional(&mut transaction).await.map_err(|e| database.fault(e))?;
    transaction.commit().await?;
    row.as_ref().map(place_of).transpose().map_err(|e| database.fault(e))
}

pub(super) async fn release(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    held: &[(UnitId, i64)],
) -> Result<(), DatabaseError> {
    let units: Vec<UnitId> = held.iter().map(|(unit, _)| *unit).collect();
    let epochs: Vec<i64> = held.iter().map(|(_, epoch)| *epoch).collect();
    let (projections, versions, slots) = columns(&units);
    let mut transaction = database.begin().await?;
    let query = schema.once(RELEASE).bind(schema.schema()).bind(projections).bind(versions).bind(slots).bind(epochs);
    query.execute(&mut transaction).await.map_err(|e| database.fault(e))?;
    transaction.commit().await
}

pub(super) async fn leave(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    runner: &Runner,
) -> Result<(), DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = schema.once(LEAVE).bind(schema.schema()).bind(runner.id);
    query.execute(&mut transaction).await.map_err(|e| database.fault(e))?;
    transaction.commit().await
}

pub(super) async fn pause(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    projection: &str,
    by: &str,
    now: Timestamp,
) -> Result<Option<Paused>, DatabaseError> {
    let failed = |e| database.fault(e);
    let mut transaction = database.begin().await?;
    // A version that is prepared at the same time begins paused, or is paused here.
    schema.once(TAKE_TURN).execute(&mut transaction).await.map_err(failed)?;
    let query = schema.once(PAUSE).bind(schema.schema()).bind(projection).bind(by).bind(Micros::of(now));
    query.execute(&mut transaction).await.map_err(failed)?;
    let query = schema.once(PAUSED).bind(schema.schema()).bind(projection);
    let row = query.fetch_optional(&mut transaction).await.map_err(failed)?;
    transaction.commit().await?;
    row.map_or(Ok(None), |row| paused(&row)).map_err(failed)
}

pub(super) async fn resume(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    projection: &str,
) -> Result<bool, DatabaseError> {
    let failed = |e| database.fault(e);
    let mut transaction = database.begin().await?;
    schema.once(TAKE_TURN).execute(&mut transaction).await.map_err(failed)?;
    let query = schema.once(RESUME).bind(schema.schema()).bind(projection);
    let resumed = query.execute(&mut transaction).await.map_err(failed)?;
    transaction.commit().await?;
    Ok(resumed.rows_affected() > 0)
}

fn columns(units: &[UnitId]) -> (Vec<&'static str>, Vec<i64>, Vec<i32>) {
    let projections = units.iter().map(|unit| unit.projection).collect();
    let versions = units.iter().map(|unit| i64::from(unit.version)).collect();
    (projections, versions, units.iter().map(|unit| stored_slot(unit.slot)).collect())
}

/// The unit of a row, if the runner runs it.
fn unit_of(runner: &Runner, row: &PgRow) -> Result<Option<UnitId>, sqlx::Error> {
    Ok(runner.unit(row.try_get("projection")?, version_of(row, "version")?, slot_of(row)?))
}

fn lease_state(runner: &Runner, row: &PgRow) -> Result<Option<LeaseState>, sqlx::Error> {
    let Some(unit) = unit_of(runner, row)? else { return Ok(None) };
    let (checkpoint, epoch) = (checkpoint_of(row)?, row.try_get("owner_epoch")?);
    Ok(Some(LeaseState { unit, checkpoint, epoch, owner: row.try_get("owner")?, paused: paused(row)? }))
}

fn claimed(runner: &Runner, row: &PgRow) -> Result<Option<Claimed>, sqlx::Error> {
    let Some(unit) = unit_of(runner, row)? else { return Ok(None) };
    let (epoch, suspect) = (row.try_get("owner_epoch")?, row.try_get("suspect")?);
    Ok(Some(Claimed { unit, epoch, checkpoint: checkpoint_of(row)?, suspect }))
}

fn runner_state(asking: &Runner, row: &PgRow) -> Result<RunnerState, sqlx::Error> {
    Ok(asking.beside(row.try_get("runner")?, row.try_get("name")?, row.try_get("projections")?))
}

fn paused(row: &PgRow) -> Result<Option<Paused>, sqlx::Error> {
    let Some(since) = row.try_get::<Option<i64>, _>("paused_at")? else { return Ok(None) };
    let since = Timestamp::from_microsecond(since).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(Some(Paused { by: row.try_get::<Option<String>, _>("paused_by")?.unwrap_or_default(), since }))
}
