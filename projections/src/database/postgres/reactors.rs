//! Reactors in a PostgreSQL database: where each is, which run has it, and the events that streams cannot get past.

use std::sync::Arc;

use annals_eventstore::__private::Micros;
use annals_eventstore::{
    Checkpoint, Clock, DatabaseError, Position, PostgresDatabase, PostgresTransaction, StreamId, StreamVersion, Tenant,
};
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::checkpoint_of;
use super::fault::fault;
use super::schema::ModelSchema;
use super::values::Query;
use crate::database::Fault;
use crate::error::{EventPlace, StartError};
use crate::reactor::{ASKED, Failing, Kept, Opened, Opening, ReactorKeeper, check_tenant, checkpoint_name};

const STORED: &str = "
    SELECT incarnation, position, event_id, tenant
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2 AND version = 1
    ORDER BY projection
";

/// Another process may be faster; then its row is read again.
const BEGIN: &str = "
    INSERT INTO annals.checkpoints (read_schema, projection, version, read_model, shape, events, tenant, incarnation,
                                    position, event_id, updated_at)
    VALUES ($1, $2, 1, '', 'reactor', $3, $4, $5, $6, $7, $8)
    ON CONFLICT (read_schema, projection, version, slot) DO NOTHING
";

const TAKE: &str = "
    INSERT INTO annals.reactors AS r (read_schema, reactor, owner, unclean)
    VALUES ($1, $2, $3, 1)
    ON CONFLICT (read_schema, reactor) DO UPDATE
    SET owner = excluded.owner, unclean = r.unclean + 1
    RETURNING unclean
";

/// Nobody takes the reactor before the transaction ends.
const IS_OWN: &str = "
    SELECT 1
    FROM annals.reactors
    WHERE read_schema = $1 AND reactor = $2 AND owner = $3
    ORDER BY reactor
    FOR UPDATE
";

const IS_CLEAN: &str = "
    UPDATE annals.reactors
    SET unclean = 0
    WHERE read_schema = $1 AND reactor = $2 AND unclean > 0
";

/// Nothing is updated if the checkpoint is elsewhere; if it is where it is to be moved, an answer was lost.
const MOVE_CHECKPOINT: &str = "
    UPDATE annals.checkpoints
    SET incarnation = $6, position = $7, event_id = $8, updated_at = $9
    WHERE read_schema = $1 AND projection = $2 AND version = 1
      AND (incarnation = $3 AND position = $4 AND event_id IS NOT DISTINCT FROM $5
           OR incarnation = $6 AND position = $7 AND event_id IS NOT DISTINCT FROM $8)
";

const FORGET_UP_TO: &str = "
    DELETE FROM annals.reactor_failures
    WHERE read_schema = $1 AND reactor = $2 AND position <= $3 AND NOT parked
";

const FORGET: &str = "
    DELETE FROM annals.reactor_failures
    WHERE read_schema = $1 AND reactor = $2 AND tenant = $3 AND aggregate_type = $4 AND aggregate_id = $5
";

const KEEP: &str = "
    INSERT INTO annals.reactor_failures (read_schema, reactor, tenant, aggregate_type, aggregate_id, position, version, event_type,
                                         tries, unfinished, parked, error, next_try_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (read_schema, reactor, tenant, aggregate_type, aggregate_id) DO UPDATE
    SET position = excluded.position, version = excluded.version, event_type = excluded.event_type, tries = excluded.tries,
        unfinished = excluded.unfinished, parked = excluded.parked, error = excluded.error,
        next_try_at = excluded.next_try_at
";

const FAILING: &str = "
    SELECT tenant, aggregate_type, aggregate_id, position, version, event_type, tries, unfinished, parked, error, next_try_at
    FROM annals.reactor_failures
    WHERE read_schema = $1 AND reactor = $2 AND (NOT $3 OR parked AND next_try_at = $4)
    ORDER BY position
";

const ASK_AGAIN: &str = "
    UPDATE annals.reactor_failures
    SET next_try_at = $6
    WHERE read_schema = $1 AND reactor = $2 AND tenant = $3 AND aggregate_type = $4 AND aggregate_id = $5 AND parked
";

pub(super) async fn stored(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    reactor: &'static str,
) -> Result<Option<Checkpoint>, StartError> {
    let refused = |source| StartError::Database { projection: reactor, source };
    let mut transaction = database.begin().await.map_err(refused)?;
    let row = at(schema, STORED, &checkpoint_name(reactor)).fetch_optional(&mut transaction).await;
    let stored = row.and_then(|row| row.as_ref().map(checkpoint_of).transpose());
    stored.map_err(|error| refused(database.fault(error)))
}

/// A statement with what every row of a reactor begins with.
fn at(schema: &ModelSchema, text: &'static str, name: &str) -> Query {
    schema.once(text).bind(schema.schema().to_owned()).bind(name.to_owned())
}

fn bind_checkpoint(query: Query, checkpoint: &Checkpoint) -> Query {
    query.bind(checkpoint.incarnation.0).bind(checkpoint.position.get()).bind(checkpoint.event_id.map(|id| id.get()))
}

pub(super) async fn prepare(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    opening: &Opening,
) -> Result<(), StartError> {
    let refused = |source| StartError::Database { projection: opening.reactor, source };
    let mut transaction = database.begin().await.map_err(refused)?;
    begin(&mut transaction, database, schema, opening).await?;
    transaction.commit().await.map_err(refused)
}

/// Stores where a reactor begins, unless something is stored; gives what is.
async fn begin(
    connection: &mut PgConnection,
    database: &PostgresDatabase,
    schema: &ModelSchema,
    opening: &Opening,
) -> Result<Checkpoint, StartError> {
    let Opening { reactor, events, tenant, start, clock, .. } = opening;
    let failed = |error| StartError::Database { projection: reactor, source: database.fault(error) };
    let tenant = tenant.as_ref().map(|tenant| tenant.as_str().to_owned());
    let name = checkpoint_name(reactor);
    let begin = at(schema, BEGIN, &name).bind(events.clone()).bind(tenant.clone());
    let begin = bind_checkpoint(begin, start).bind(Micros::of(clock.now()));
    begin.execute(&mut *connection).await.map_err(failed)?;
    let row = at(schema, STORED, &name).fetch_one(&mut *connection).await.map_err(failed)?;
    check_tenant(reactor, row.try_get("tenant").map_err(failed)?, tenant)?;
    checkpoint_of(&row).map_err(failed)
}

pub(super) async fn open(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    opening: Opening,
) -> Result<Opened, StartError> {
    let Opening { reactor, owner, .. } = opening;
    let refused = |source| StartError::Database { projection: reactor, source };
    let failed = |error| refused(database.fault(error));
    let mut transaction = database.begin().await.map_err(refused)?;
    // Calls of the run before this one are over when this is answered, so what is read behind it is the last.
    let take = at(schema, TAKE, reactor).bind(owner);
    let unclean: i64 = take.fetch_one(&mut transaction).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    let checkpoint = begin(&mut transaction, database, schema, &opening).await?;
    let failing = failing_in(&mut transaction, schema, reactor, false).await.map_err(failed)?;
    transaction.commit().await.map_err(refused)?;
    let schema = schema.schema().to_owned();
    let keeper = Arc::new(Keeper { database: database.clone(), schema, reactor, owner, clock: opening.clock });
    Ok(Opened { keeper, checkpoint, unclean: count(unclean).saturating_sub(1), failing })
}

pub(super) async fn failing(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    reactor: &'static str,
    only_asked: bool,
) -> Result<Vec<Failing>, DatabaseError> {
    let mut transaction = database.begin().await?;
    failing_in(&mut transaction, schema, reactor, only_asked).await.map_err(|error| database.fault(error))
}

async fn failing_in(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    reactor: &'static str,
    only_asked: bool,
) -> Result<Vec<Failing>, sqlx::Error> {
    let query = at(schema, FAILING, reactor).bind(only_asked).bind(Micros::of(ASKED));
    query.fetch_all(connection).await?.iter().map(failing_of).collect()
}

pub(super) async fn ask_again(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    reactor: &'static str,
    stream: &StreamId,
) -> Result<bool, DatabaseError> {
    let mut transaction = database.begin().await?;
    let query = of_stream(at(schema, ASK_AGAIN, reactor), stream).bind(Micros::of(ASKED));
    let asked = query.execute(&mut transaction).await.map_err(|error| database.fault(error))?;
    transaction.commit().await?;
    Ok(asked.rows_affected() == 1)
}

/// Binds the name of a stream.
fn of_stream(query: Query, stream: &StreamId) -> Query {
    query
        .bind(stream.tenant().as_str().to_owned())
        .bind(stream.aggregate_type().to_owned())
        .bind(stream.aggregate_id().to_owned())
}

/// A number that is too large for its type is as good as the largest.
fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn failing_of(row: &PgRow) -> Result<Failing, sqlx::Error> {
    let damaged = |error: annals_eventstore::Invalid| sqlx::Error::Decode(error.into());
    let tenant = Tenant::new(row.try_get::<&str, _>("tenant")?).map_err(damaged)?;
    let (kind, id): (&str, &str) = (row.try_get("aggregate_type")?, row.try_get("aggregate_id")?);
    let next_try_at: Micros = row.try_get("next_try_at")?;
    Ok(Failing {
        place: EventPlace {
            position: Position::new(row.try_get("position")?).map_err(damaged)?,
            stream: StreamId::new(tenant, kind, id).map_err(damaged)?,
            version: StreamVersion::new(row.try_get("version")?).map_err(damaged)?,
            name: row.try_get::<&str, _>("event_type")?.into(),
        },
        tries: count(row.try_get("tries")?),
        unfinished: count(row.try_get("unfinished")?),
        parked: row.try_get("parked")?,
        error: row.try_get("error")?,
        next_try_at: Timestamp::from_microsecond(next_try_at.0).map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

struct Keeper {
    database: PostgresDatabase,
    schema: String,
    reactor: &'static str,
    owner: Uuid,
    clock: Arc<dyn Clock>,
}

impl Keeper {
    /// A transaction in which the reactor is this run's; `None` if it is not.
    async fn begin(&self) -> Result<Option<PostgresTransaction>, Fault> {
        let mut transaction = self.database.begin().await.map_err(fault)?;
        let query = self.query(IS_OWN, self.reactor).bind(self.owner);
        let own = query.fetch_optional(&mut transaction).await.map_err(|e| self.sql_fault(e))?;
        Ok(own.map(|_| transaction))
    }

    async fn run(&self, query: Query) -> Result<Kept, Fault> {
        let Some(mut transaction) = self.begin().await? else { return Ok(Kept::Lost) };
        query.execute(&mut transaction).await.map_err(|e| self.sql_fault(e))?;
        transaction.commit().await.map_err(fault)?;
        Ok(Kept::Done)
    }

    fn query(&self, text: &'static str, name: &str) -> Query {
        Query::of(&self.database, text).bind(self.schema.clone()).bind(name.to_owned())
    }

    fn stream(&self, text: &'static str, stream: &StreamId) -> Query {
        of_stream(self.query(text, self.reactor), stream)
    }

    fn sql_fault(&self, error: sqlx::Error) -> Fault {
        fault(self.database.fault(error))
    }
}

#[async_trait]
impl ReactorKeeper for Keeper {
    async fn save(&self, from: &Checkpoint, to: &Checkpoint) -> Result<Kept, Fault> {
        let Some(mut transaction) = self.begin().await? else { return Ok(Kept::Lost) };
        let moving = bind_checkpoint(self.query(MOVE_CHECKPOINT, &checkpoint_name(self.reactor)), from);
        let moving = bind_checkpoint(moving, to).bind(Micros::of(self.clock.now()));
        let moved = moving.execute(&mut transaction).await.map_err(|e| self.sql_fault(e))?;
        if moved.rows_affected() != 1 {
            return Ok(Kept::Lost);
        }
        let forget = self.query(FORGET_UP_TO, self.reactor).bind(to.position.get());
        for query in [self.query(IS_CLEAN, self.reactor), forget] {
            query.execute(&mut transaction).await.map_err(|e| self.sql_fault(e))?;
        }
        transaction.commit().await.map_err(fault)?;
        Ok(Kept::Done)
    }

    async fn keep(&self, failing: &Failing) -> Result<Kept, Fault> {
        let Failing { place, tries, unfinished, parked, error, next_try_at } = failing;
        let query = self.stream(KEEP, &place.stream);
        let query = query.bind(place.position.get()).bind(place.version.get()).bind(place.name.to_string());
        let query = query.bind(i64::from(*tries)).bind(i64::from(*unfinished)).bind(*parked).bind(error.clone());
        self.run(query.bind(Micros::of(*next_try_at))).await
    }

    async fn forget(&self, stream: &StreamId) -> Result<Kept, Fault> {
        self.run(self.stream(FORGET, stream)).await
    }

    async fn release(&self) -> Result<Kept, Fault> {
        self.run(self.query(IS_CLEAN, self.reactor)).await
    }
}
