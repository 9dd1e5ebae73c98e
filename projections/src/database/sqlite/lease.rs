//! Leases in a SQLite file, which several processes of one machine may share. Each call holds the file's write lock.

use std::time::Duration;

use annals_eventstore::{DatabaseError, Position, SqliteDatabase};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::{checkpoint_of, place_of};
use crate::database::{Claimed, LeaseState, Paused, Place, Runner, RunnerState, Survey, UnitId};

const I_AM_ALIVE: &str = "
    INSERT INTO annals_runners (runner, name, projections, alive_until)
    VALUES (?1, ?2, ?3, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?4)
    ON CONFLICT (runner) DO UPDATE
    SET name = excluded.name, projections = excluded.projections, alive_until = excluded.alive_until
";

const FORGET_THE_DEAD: &str = "
    DELETE FROM annals_runners
    WHERE alive_until < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - 3600000000
";

const RENEW: &str = "
    UPDATE annals_checkpoints
    SET leased_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?2
    WHERE owner = ?1
";

const UNITS: &str = "
    SELECT projection, version, slot, owner_epoch, incarnation, position, event_id,
           CASE WHEN leased_until > CAST(unixepoch('subsec') * 1000000 AS INTEGER) THEN owner END AS owner,
           paused_at, paused_by
    FROM annals_checkpoints
    ORDER BY projection, version, slot
";

const RUNNERS: &str = "
    SELECT runner, name, projections
    FROM annals_runners
    WHERE alive_until > CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    ORDER BY runner
";

/// Whether the owner before has not ended its lease, or an event was being applied alone.
const IS_SUSPECT: &str = "
    SELECT owner IS NOT NULL OR (trying IS NOT NULL AND trying > position)
    FROM annals_checkpoints
    WHERE projection = ?1 AND version = ?2 AND slot = ?3
    ORDER BY slot
";

const CLAIM: &str = "
    UPDATE annals_checkpoints
    SET owner = ?1, owner_epoch = owner_epoch + 1,
        leased_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?2
    WHERE projection = ?3 AND version = ?4 AND slot = ?5 AND paused_at IS NULL
      AND (owner IS NULL OR leased_until <= CAST(unixepoch('subsec') * 1000000 AS INTEGER))
    RETURNING slot, owner_epoch, incarnation, position, event_id
";

const BEGIN_TRY: &str = "
    UPDATE annals_checkpoints
    SET trying = ?5, tries = CASE WHEN trying = ?5 THEN tries + 1 ELSE 1 END
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND owner_epoch = ?4
    RETURNING tries
";

const FORGET_TRIES: &str = "
    UPDATE annals_checkpoints
    SET trying = NULL, tries = 0
    WHERE projection = ?1 AND trying IS NOT NULL
";

const SEIZE: &str = "
    UPDATE annals_checkpoints
    SET owner = ?4, owner_epoch = owner_epoch + 1,
        leased_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?5
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND paused_at IS NULL AND (?6 IS NULL OR owner_epoch = ?6)
    RETURNING slot, owner_epoch, incarnation, position, event_id
";

const RELEASE: &str = "
    UPDATE annals_checkpoints
    SET owner = NULL, leased_until = NULL
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND owner_epoch = ?4
";

const LEAVE: &str = "
    DELETE FROM annals_runners
    WHERE runner = ?1
";

/// The new epoch makes whatever an owner commits later an attempt of somebody who owns nothing.
const PAUSE: &str = "
    UPDATE annals_checkpoints
    SET paused_at = ?3, paused_by = ?2, owner = NULL, leased_until = NULL, owner_epoch = owner_epoch + 1
    WHERE projection = ?1 AND paused_at IS NULL
";

const PAUSED: &str = "
    SELECT paused_at, paused_by
    FROM annals_checkpoints
    WHERE projection = ?1
    ORDER BY version, slot
    LIMIT 1
";

const RESUME: &str = "
    UPDATE annals_checkpoints
    SET paused_at = NULL, paused_by = NULL
    WHERE projection = ?1 AND paused_at IS NOT NULL
";

pub(super) async fn survey(
    database: &SqliteDatabase,
    runner: &Runner,
    lease: Duration,
) -> Result<Survey, DatabaseError> {
    let mut transaction = database.begin().await?;
    let survey = look(&mut transaction, runner, lease).await.map_err(|e| database.fault(e))?;
    transaction.commit().await?;
    Ok(survey)
}

async fn look(connection: &mut SqliteConnection, runner: &Runner, lease: Duration) -> Result<Survey, sqlx::Error> {
    let alive = sqlx::query(I_AM_ALIVE).bind(bytes(runner.id)).bind(&runner.name).bind(runner.runs_as_text());
    alive.bind(micros(lease)).execute(&mut *connection).await?;
    sqlx::query(FORGET_THE_DEAD).execute(&mut *connection).await?;
    sqlx::query(RENEW).bind(bytes(runner.id)).bind(micros(lease)).execute(&mut *connection).await?;
    let units = sqlx::query(UNITS).fetch_all(&mut *connection).await?;
    let runners = sqlx::query(RUNNERS).fetch_all(&mut *connection).await?;
    let owners = units.iter().filter_map(|row| owner_of(row).transpose()).collect::<Result<Vec<_>, _>>()?;
    let units = units.iter().filter_map(|row| lease_state(runner, row).transpose()).collect::<Result<_, _>>()?;
    let runners = runners.iter().map(|row| runner_state(runner, row)).collect::<Result<_, _>>()?;
    Ok(Survey::new(units, runners, &owners))
}

pub(super) async fn claim(
    database: &SqliteDatabase,
    runner: &Runner,
    units: &[UnitId],
    lease: Duration,
) -> Result<Vec<Claimed>, DatabaseError> {
    let mut transaction = database.begin().await?;
    let mut all = Vec::new();
    for unit in units {
        let query = sqlx::query(IS_SUSPECT).bind(unit.projection).bind(unit.version).bind(unit.slot);
        let row = query.fetch_optional(&mut *transaction).await.map_err(|e| database.fault(e))?;
        let suspect = row.is_some_and(|row| row.get(0));
        let query = sqlx::query(CLAIM).bind(bytes(runner.id)).bind(micros(lease));
        let query = query.bind(unit.projection).bind(unit.version).bind(unit.slot);
        let row = query.fetch_optional(&mut *transaction).await.map_err(|e| database.fault(e))?;
        if let Some(place) = row.as_ref().map(place_of).transpose().map_err(|e| database.fault(e))? {
            all.push(Claimed { unit: *unit, epoch: place.epoch, checkpoint: place.checkpoint, suspect });
        }
    }
    transaction.commit().await?;
    Ok(all)
}

pub(super) async fn begin_try(
    database: &SqliteDatabase,
    unit: &UnitId,
    epoch: i64,
    position: Position,
) -> Result<Option<u32>, DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = sqlx::query(BEGIN_TRY).bind(unit.projection).bind(unit.version).bind(unit.slot);
    let row = query.bind(epoch).bind(position.get()).fetch_optional(&mut *transaction).await;
    let tries = row.and_then(|row| row.map(|row| row.try_get("tries")).transpose()).map_err(|e| database.fault(e))?;
    transaction.commit().await?;
    Ok(tries)
}

pub(super) async fn forget_tries(database: &SqliteDatabase, projection: &str) -> Result<(), DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = sqlx::query(FORGET_TRIES).bind(projection);
    query.execute(&mut *transaction).await.map_err(|e| database.fault(e))?;
    transaction.commit().await
}

pub(super) async fn seize(
    database: &SqliteDatabase,
    unit: &UnitId,
    owner: Uuid,
    held: Option<i64>,
    lease: Duration,
) -> Result<Option<Place>, DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = sqlx::query(SEIZE).bind(unit.projection).bind(unit.version).bind(unit.slot);
    let query = query.bind(bytes(owner)).bind(micros(lease)).bind(held);
    let row = query.fetch_optional(&mut *transaction).await.map_err(|e| database.fault(e))?;
    let place = row.as_ref().map(place_of).transpose().map_err(|e| database.fault(e))?;
    transaction.commit().await?;
    Ok(place)
}

pub(super) async fn release(database: &SqliteDatabase, held: &[(UnitId, i64)]) -> Result<(), DatabaseError> {
    let mut transaction = database.begin().await?;
    for (unit, epoch) in held {
        let query = sqlx::query(RELEASE).bind(unit.projection).bind(unit.version).bind(unit.slot).bind(epoch);
        query.execute(&mut *transaction).await.map_err(|e| database.fault(e))?;
    }
    transaction.commit().await
}

pub(super) async fn leave(database: &SqliteDatabase, runner: &Runner) -> Result<(), DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = sqlx::query(LEAVE).bind(bytes(runner.id));
    query.execute(&mut *transaction).await.map_err(|e| database.fault(e))?;
    transaction.commit().await
}

pub(super) async fn pause(
    database: &SqliteDatabase,
    projection: &str,
    by: &str,
    now: Timestamp,
) -> Result<Option<Paused>, DatabaseError> {
    let failed = |e| database.fault(e);
    let mut transaction = database.begin().await?;
    let query = sqlx::query(PAUSE).bind(projection).bind(by).bind(now.as_microsecond());
    query.execute(&mut *transaction).await.map_err(failed)?;
    let row = sqlx::query(PAUSED).bind(projection).fetch_optional(&mut *transaction).await.map_err(failed)?;
    let paused = row.map_or(Ok(None), |row| paused(&row)).map_err(failed)?;
    transaction.commit().await?;
    Ok(paused)
}

pub(super) async fn resume(database: &SqliteDatabase, projection: &str) -> Result<bool, DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = sqlx::query(RESUME).bind(projection);
    let resumed = query.execute(&mut *transaction).await.map_err(|e| database.fault(e))?;
    transaction.commit().await?;
    Ok(resumed.rows_affected() > 0)
}

fn bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn lease_state(runner: &Runner, row: &SqliteRow) -> Result<Option<LeaseState>, sqlx::Error> {
    let unit = runner.unit(row.try_get("projection")?, row.try_get("version")?, row.try_get("slot")?);
    let Some(unit) = unit else { return Ok(None) };
    let (checkpoint, epoch) = (checkpoint_of(row)?, row.try_get("owner_epoch")?);
    Ok(Some(LeaseState { unit, checkpoint, epoch, owner: owner_of(row)?, paused: paused(row)? }))
}

fn owner_of(row: &SqliteRow) -> Result<Option<Uuid>, sqlx::Error> {
    row.try_get::<Option<&[u8]>, _>("owner")?.map(uuid).transpose()
}

fn runner_state(asking: &Runner, row: &SqliteRow) -> Result<RunnerState, sqlx::Error> {
    Ok(asking.beside(uuid(row.try_get("runner")?)?, row.try_get("name")?, row.try_get("projections")?))
}

fn paused(row: &SqliteRow) -> Result<Option<Paused>, sqlx::Error> {
    let Some(since) = row.try_get::<Option<i64>, _>("paused_at")? else { return Ok(None) };
    let since = Timestamp::from_microsecond(since).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(Some(Paused { by: row.try_get::<Option<String>, _>("paused_by")?.unwrap_or_default(), since }))
}

fn uuid(bytes: &[u8]) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(bytes).map_err(|e| sqlx::Error::Decode(e.into()))
}
