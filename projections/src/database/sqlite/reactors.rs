//! Reactors in a SQLite file: where each is, which run has it, and the events that streams cannot get past.

use std::sync::Arc;

use annals_eventstore::{
    Checkpoint, Clock, DatabaseError, Position, SqliteDatabase, SqliteTransaction, StreamId, StreamVersion, Tenant,
};
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::values::bind_checkpoint;
use super::{checkpoint_of, fault};
use crate::database::Fault;
use crate::error::{EventPlace, StartError};
use crate::reactor::{ASKED, Failing, Kept, Opened, Opening, ReactorKeeper, check_tenant, checkpoint_name};

const STORED: &str = "
    SELECT incarnation, position, event_id, tenant
    FROM annals_checkpoints
    WHERE projection = ?1 AND version = 1
    ORDER BY projection
";

const BEGIN: &str = "
    INSERT INTO annals_checkpoints (projection, version, slot, slots, read_model, shape, events, tenant, incarnation,
                                    position, event_id, updated_at)
    VALUES (?1, 1, 0, 1, '', 'reactor', ?2, ?3, ?4, ?5, ?6, ?7)
";

const TAKE: &str = "
    INSERT INTO annals_reactors (reactor, owner, unclean)
    VALUES (?1, ?2, 1)
    ON CONFLICT (reactor) DO UPDATE
    SET owner = excluded.owner, unclean = unclean + 1
    RETURNING unclean
";

const IS_OWN: &str = "
    SELECT 1
    FROM annals_reactors
    WHERE reactor = ?1 AND owner = ?2
    ORDER BY reactor
";

const IS_CLEAN: &str = "
    UPDATE annals_reactors
    SET unclean = 0
    WHERE reactor = ?1 AND unclean > 0
";

/// Nothing is updated if the checkpoint is elsewhere; if it is where it is to be moved, an answer was lost.
const MOVE_CHECKPOINT: &str = "
    UPDATE annals_checkpoints
    SET incarnation = ?5, position = ?6, event_id = ?7, updated_at = ?8
    WHERE projection = ?1 AND version = 1
      AND (incarnation = ?2 AND position = ?3 AND event_id IS ?4 OR incarnation = ?5 AND position = ?6 AND event_id IS ?7)
";

const FORGET_UP_TO: &str = "
    DELETE FROM annals_reactor_failures
    WHERE reactor = ?1 AND position <= ?2 AND NOT parked
";

const FORGET: &str = "
    DELETE FROM annals_reactor_failures
    WHERE reactor = ?1 AND tenant = ?2 AND aggregate_type = ?3 AND aggregate_id = ?4
";

const KEEP: &str = "
    INSERT INTO annals_reactor_failures (reactor, tenant, aggregate_type, aggregate_id, position, version, event_type, tries,
                                         unfinished, parked, error, next_try_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    ON CONFLICT (reactor, tenant, aggregate_type, aggregate_id) DO UPDATE
    SET position = excluded.position, version = excluded.version, event_type = excluded.event_type, tries = excluded.tries,
        unfinished = excluded.unfinished, parked = excluded.parked, error = excluded.error,
        next_try_at = excluded.next_try_at
";

const FAILING: &str = "
    SELECT tenant, aggregate_type, aggregate_id, position, version, event_type, tries, unfinished, parked, error, next_try_at
    FROM annals_reactor_failures
    WHERE reactor = ?1 AND (NOT ?2 OR parked AND next_try_at = ?3)
    ORDER BY position
";

const ASK_AGAIN: &str = "
    UPDATE annals_reactor_failures
    SET next_try_at = ?5
    WHERE reactor = ?1 AND tenant = ?2 AND aggregate_type = ?3 AND aggregate_id = ?4 AND parked
";

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

pub(super) async fn stored(database: &SqliteDatabase, reactor: &'static str) -> Result<Option<Checkpoint>, StartError> {
    let refused = |source| StartError::Database { projection: reactor, source };
    let mut reader = database.read_for(None).await.map_err(refused)?;
    let row = sqlx::query(STORED).bind(checkpoint_name(reactor)).fetch_optional(&mut *reader).await;
    let stored = row.and_then(|row| row.as_ref().map(checkpoint_of).transpose());
    stored.map_err(|error| refused(database.fault(error)))
}

pub(super) async fn prepare(database: &SqliteDatabase, opening: &Opening) -> Result<(), StartError> {
    let refused = |source| StartError::Database { projection: opening.reactor, source };
    let mut transaction = database.begin().await.map_err(refused)?;
    begin(&mut transaction, database, opening).await?;
    transaction.commit().await.map_err(refused)
}

/// Stores where a reactor begins, unless something is stored; gives what is.
async fn begin(
    connection: &mut SqliteConnection,
    database: &SqliteDatabase,
    opening: &Opening,
) -> Result<Checkpoint, StartError> {
    let Opening { reactor, events, tenant, start, clock, .. } = opening;
    let failed = |error| StartError::Database { projection: reactor, source: database.fault(error) };
    let tenant = tenant.as_ref().map(|tenant| tenant.as_str().to_owned());
    let name = checkpoint_name(reactor);
    let row = sqlx::query(STORED).bind(name.clone()).fetch_optional(&mut *connection).await.map_err(failed)?;
    if let Some(row) = row {
        check_tenant(reactor, row.try_get("tenant").map_err(failed)?, tenant)?;
        return checkpoint_of(&row).map_err(failed);
    }
    let begin = bind_checkpoint(sqlx::query(BEGIN).bind(name).bind(events.clone()).bind(tenant), start);
    begin.bind(clock.now().as_microsecond()).execute(&mut *connection).await.map_err(failed)?;
    Ok(*start)
}

pub(super) async fn open(database: &SqliteDatabase, opening: Opening) -> Result<Opened, StartError> {
    let Opening { reactor, owner, .. } = opening;
    let refused = |source| StartError::Database { projection: reactor, source };
    let failed = |error| refused(database.fault(error));
    let mut transaction = database.begin().await.map_err(refused)?;
    let checkpoint = begin(&mut transaction, database, &opening).await?;
    let take = sqlx::query(TAKE).bind(reactor).bind(owner.as_bytes().to_vec());
    let unclean: u32 = take.fetch_one(&mut *transaction).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    let failing = failing_in(&mut transaction, reactor, false).await.map_err(failed)?;
    transaction.commit().await.map_err(refused)?;
    let keeper = Arc::new(Keeper { database: database.clone(), reactor, owner, clock: opening.clock });
    Ok(Opened { keeper, checkpoint, unclean: unclean.saturating_sub(1), failing })
}

pub(super) async fn failing(
    database: &SqliteDatabase,
    reactor: &'static str,
    only_asked: bool,
) -> Result<Vec<Failing>, DatabaseError> {
    let mut reader = database.read_for(None).await?;
    failing_in(&mut reader, reactor, only_asked).await.map_err(|error| database.fault(error))
}

async fn failing_in(
    connection: &mut SqliteConnection,
    reactor: &'static str,
    only_asked: bool,
) -> Result<Vec<Failing>, sqlx::Error> {
    let query = sqlx::query(FAILING).bind(reactor).bind(only_asked).bind(ASKED.as_microsecond());
    query.fetch_all(connection).await?.iter().map(failing_of).collect()
}

pub(super) async fn ask_again(
    database: &SqliteDatabase,
    reactor: &'static str,
    stream: &StreamId,
) -> Result<bool, DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = of_stream(ASK_AGAIN, reactor, stream).bind(ASKED.as_microsecond());
    let asked = query.execute(&mut *transaction).await.map_err(|error| database.fault(error))?;
    transaction.commit().await?;
    Ok(asked.rows_affected() == 1)
}

/// Binds what the row of a stream begins with.
fn of_stream(text: &'static str, reactor: &'static str, stream: &StreamId) -> Query {
    sqlx::query(text)
        .bind(reactor)
        .bind(stream.tenant().as_str().to_owned())
        .bind(stream.aggregate_type().to_owned())
        .bind(stream.aggregate_id().to_owned())
}

fn failing_of(row: &SqliteRow) -> Result<Failing, sqlx::Error> {
    let damaged = |error: annals_eventstore::Invalid| sqlx::Error::Decode(error.into());
    let tenant = Tenant::new(row.try_get::<&str, _>("tenant")?).map_err(damaged)?;
    let (kind, id): (&str, &str) = (row.try_get("aggregate_type")?, row.try_get("aggregate_id")?);
    Ok(Failing {
        place: EventPlace {
            position: Position::new(row.try_get("position")?).map_err(damaged)?,
            stream: StreamId::new(tenant, kind, id).map_err(damaged)?,
            version: StreamVersion::new(row.try_get("version")?).map_err(damaged)?,
            name: row.try_get::<&str, _>("event_type")?.into(),
        },
        tries: row.try_get("tries")?,
        unfinished: row.try_get("unfinished")?,
        parked: row.try_get("parked")?,
        error: row.try_get("error")?,
        next_try_at: Timestamp::from_microsecond(row.try_get("next_try_at")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

struct Keeper {
    database: SqliteDatabase,
    reactor: &'static str,
    owner: Uuid,
    clock: Arc<dyn Clock>,
}

impl Keeper {
    /// A transaction in which the reactor is this run's; `None` if it is not. It holds the file's write lock, so that nobody takes the reactor
    /// meanwhile.
    async fn begin(&self) -> Result<Option<SqliteTransaction>, Fault> {
        let mut transaction = self.database.begin().await.map_err(fault)?;
        let query = sqlx::query(IS_OWN).bind(self.reactor).bind(self.owner.as_bytes().to_vec());
        let own = query.fetch_optional(&mut *transaction).await.map_err(|e| self.sql_fault(e))?;
        Ok(own.map(|_| transaction))
    }

    async fn run(&self, query: Query) -> Result<Kept, Fault> {
        let Some(mut transaction) = self.begin().await? else { return Ok(Kept::Lost) };
        query.execute(&mut *transaction).await.map_err(|e| self.sql_fault(e))?;
        transaction.commit().await.map_err(fault)?;
        Ok(Kept::Done)
    }

    fn stream(&self, text: &'static str, stream: &StreamId) -> Query {
        of_stream(text, self.reactor, stream)
    }

    fn sql_fault(&self, error: sqlx::Error) -> Fault {
        fault(self.database.fault(error))
    }
}

#[async_trait]
impl ReactorKeeper for Keeper {
    async fn save(&self, from: &Checkpoint, to: &Checkpoint) -> Result<Kept, Fault> {
        let Some(mut transaction) = self.begin().await? else { return Ok(Kept::Lost) };
        let moving = bind_checkpoint(sqlx::query(MOVE_CHECKPOINT).bind(checkpoint_name(self.reactor)), from);
        let moving = bind_checkpoint(moving, to).bind(self.clock.now().as_microsecond());
        let moved = moving.execute(&mut *transaction).await.map_err(|e| self.sql_fault(e))?;
        if moved.rows_affected() != 1 {
            return Ok(Kept::Lost);
        }
        let clean = sqlx::query(IS_CLEAN).bind(self.reactor);
        let forget = sqlx::query(FORGET_UP_TO).bind(self.reactor).bind(to.position.get());
        for query in [clean, forget] {
            query.execute(&mut *transaction).await.map_err(|e| self.sql_fault(e))?;
        }
        transaction.commit().await.map_err(fault)?;
        Ok(Kept::Done)
    }

    async fn keep(&self, failing: &Failing) -> Result<Kept, Fault> {
        let Failing { place, tries, unfinished, parked, error, next_try_at } = failing;
        let query = self.stream(KEEP, &place.stream);
        let query = query.bind(place.position.get()).bind(place.version.get()).bind(place.name.to_string());
        let query = query.bind(*tries).bind(*unfinished).bind(*parked).bind(error.clone());
        self.run(query.bind(next_try_at.as_microsecond())).await
    }

    async fn forget(&self, stream: &StreamId) -> Result<Kept, Fault> {
        self.run(self.stream(FORGET, stream)).await
    }

    async fn release(&self) -> Result<Kept, Fault> {
        self.run(sqlx::query(IS_CLEAN).bind(self.reactor)).await
    }
}
