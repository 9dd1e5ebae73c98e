//! Read models in a PostgreSQL database.

mod commit;
mod fault;
mod indexes;
mod lease;
mod load;
mod parked;
mod prepare;
mod query;
mod reactors;
mod schema;
mod statements;
#[cfg(test)]
mod tests;
mod transaction;
mod values;
mod view;

use std::collections::HashMap;
use std::time::Duration;

use annals_eventstore::{Checkpoint, DatabaseError, EventId, Incarnation, Position, PostgresDatabase, StreamId};
use annals_migrations::POSTGRES_PROJECTIONS;
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::column::ColumnValue;
use crate::database::name::add_shown;
use crate::database::{
    Applying, Claimed, Fault, Model, Moved, ParkedStream, Paused, Place, Prepared, QueryFault, ReadModels, Runner,
    Shown, Shows, StoredName, Survey, Switch, UnitId, Work,
};
use crate::error::StartError;
use crate::reactor::{Failing, Opened, Opening};
use crate::reads::Query;
use crate::shape::Shape;
use crate::transaction::AnyTransaction;
use fault::{fault, statement_fault};
use schema::{ModelSchema, stored_slot};
pub(crate) use transaction::execute;

/// How long a commit or a load waits for the lock of a table or a row that others hold. After that it can be cancelled, its projection
/// says that it is blocked, and others go on without it.
macro_rules! lock_timeout {
    () => {
        "lock_timeout = '1s'"
    };
}
use lock_timeout;

/// That of the slot which is furthest behind.
const CHECKPOINT: &str = "
    SELECT incarnation, position, event_id
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2 AND version = $3
    ORDER BY position, slot
    LIMIT 1
";

/// All of them, as they are few.
const PLACES: &str = "
    SELECT projection, version, slot, owner_epoch, incarnation, position, event_id
    FROM annals.checkpoints
    WHERE read_schema = $1
    ORDER BY projection, version, slot
";

const SHOWN: &str = "
    SELECT n.read_model, n.version, c.slot, c.incarnation, c.position, c.event_id,
           (extract(epoch FROM c.updated_at) * 1000000)::bigint AS moved_at
    FROM annals.read_models AS n
    JOIN annals.checkpoints AS c USING (read_schema, projection, version)
    WHERE n.read_schema = $1 AND n.read_model = ANY ($2)
    ORDER BY n.read_model, c.slot
";

/// The read models of one PostgreSQL database, in the first schema of the search path.
pub(crate) struct PostgresReadModels {
    database: PostgresDatabase,
    schema: OnceCell<ModelSchema>,
}

impl PostgresReadModels {
    pub(crate) fn new(database: PostgresDatabase) -> Self {
        Self { database, schema: OnceCell::new() }
    }

    /// Where the tables are; asked once.
    async fn schema(&self) -> Result<&ModelSchema, DatabaseError> {
        self.schema.get_or_try_init(|| ModelSchema::find(&self.database)).await
    }

    fn sql_fault(&self, error: sqlx::Error) -> Fault {
        statement_fault(&self.database, error)
    }
}

#[async_trait]
impl ReadModels for PostgresReadModels {
    async fn migrate(&self) -> Result<(), StartError> {
        self.database.migrate(POSTGRES_PROJECTIONS).await.map_err(StartError::Migrate)?;
        self.schema().await.map_err(|e| StartError::Migrate(e.into_open(self.database.name())))?;
        Ok(())
    }

    async fn prepare(
        &self,
        model: &Model,
        shape: &Shape,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        let refused = |source| StartError::Database { projection: model.projection, source };
        prepare::prepare(&self.database, self.schema().await.map_err(refused)?, model, shape, incarnation, now).await
    }

    async fn prepare_transaction(
        &self,
        model: &Model,
        shape: &Shape,
        projection: &dyn AnyTransaction,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        let refused = |source| StartError::Database { projection: model.projection, source };
        let schema = self.schema().await.map_err(refused)?;
        transaction::prepare(&self.database, schema, model, shape, projection, incarnation, now).await
    }

    async fn begin_applying(&self, model: &Model, from: &Place) -> Result<Option<Box<dyn Applying>>, Fault> {
        transaction::begin(&self.database, self.schema().await.map_err(fault)?, model, from).await
    }

    async fn places(&self, units: &[UnitId]) -> Result<Vec<Option<Place>>, Fault> {
        let schema = self.schema().await.map_err(fault)?;
        let query = schema.query(PLACES).bind(schema.schema().to_owned());
        let rows = match self.database.is_pooled() {
            false => query.fetch_all(&mut *self.database.read().await.map_err(fault)?).await,
            true => query.fetch_all(&mut *self.database.begin().await.map_err(fault)?).await,
        };
        let rows = rows.map_err(|e| self.sql_fault(e))?;
        let of = |unit: &UnitId| {
            let is_its_own = |row: &&PgRow| {
                let (projection, version): (&str, i64) = (row.get("projection"), row.get("version"));
                let slot: i32 = row.get("slot");
                (projection, version, slot) == (unit.projection, i64::from(unit.version), stored_slot(unit.slot))
            };
            rows.iter().find(is_its_own).map(place_of).transpose()
        };
        units.iter().map(of).collect::<Result<_, _>>().map_err(|e| self.sql_fault(e))
    }

    async fn load(
        &self,
        model: &Model,
        from: &Place,
        keys: &[Vec<ColumnValue>],
        most: usize,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, Fault> {
        let schema = self.schema().await.map_err(fault)?;
        let mut transaction = self.database.begin().await.map_err(fault)?;
        load::load(&mut transaction, schema, model, from, keys, most).await.map_err(|e| match e {
            load::Error::Sql(error) => self.sql_fault(error),
            load::Error::Row(source) => Fault { transient: false, blocked: false, part: None, source },
        })
        // Dropping the transaction ends it; nobody has to wait for that.
    }

    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault> {
        let schema = self.schema().await.map_err(fault)?;
        commit::commit(&self.database, schema, work, now).await
    }

    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault> {
        view::switch(&self.database, self.schema().await.map_err(fault)?, model, switch).await
    }

    async fn reactor_checkpoint(&self, reactor: &'static str) -> Result<Option<Checkpoint>, StartError> {
        let refused = |source| StartError::Database { projection: reactor, source };
        reactors::stored(&self.database, self.schema().await.map_err(refused)?, reactor).await
    }

    async fn prepare_reactor(&self, opening: &Opening) -> Result<(), StartError> {
        let refused = |source| StartError::Database { projection: opening.reactor, source };
        reactors::prepare(&self.database, self.schema().await.map_err(refused)?, opening).await
    }

    async fn open_reactor(&self, opening: Opening) -> Result<Opened, StartError> {
        let refused = |source| StartError::Database { projection: opening.reactor, source };
        let schema = self.schema().await.map_err(refused)?;
        reactors::open(&self.database, schema, opening).await
    }

    async fn failing(&self, reactor: &'static str, only_asked: bool) -> Result<Vec<Failing>, Fault> {
        reactors::failing(&self.database, self.schema().await.map_err(fault)?, reactor, only_asked).await.map_err(fault)
    }

    async fn ask_again(&self, reactor: &'static str, stream: &StreamId) -> Result<bool, Fault> {
        reactors::ask_again(&self.database, self.schema().await.map_err(fault)?, reactor, stream).await.map_err(fault)
    }

    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault> {
        let schema = self.schema().await.map_err(fault)?;
        let names: Vec<&str> = models.iter().map(|model| model.table.name).collect();
        let query = schema.query(SHOWN).bind(schema.schema().to_owned()).bind(names);
        let rows = match self.database.is_pooled() {
            false => query.fetch_all(&mut *self.database.read().await.map_err(fault)?).await,
            true => query.fetch_all(&mut *self.database.begin().await.map_err(fault)?).await,
        };
        let mut shown = HashMap::new();
        for row in rows.map_err(|e| self.sql_fault(e))? {
            let name: String = row.try_get("read_model").map_err(|e| self.sql_fault(e))?;
            add_shown(&mut shown, name, shown_of(&row).map_err(|e| self.sql_fault(e))?);
        }
        Ok(models.iter().map(|model| shown.get(model.table.name).cloned()).collect())
    }

    async fn survey(&self, runner: &Runner, lease: Duration) -> Result<Survey, Fault> {
        lease::survey(&self.database, self.schema().await.map_err(fault)?, runner, lease).await.map_err(fault)
    }

    async fn claim(&self, runner: &Runner, units: &[UnitId], lease: Duration) -> Result<Vec<Claimed>, Fault> {
        lease::claim(&self.database, self.schema().await.map_err(fault)?, runner, units, lease).await.map_err(fault)
    }

    async fn release(&self, held: &[(UnitId, i64)]) -> Result<(), Fault> {
        lease::release(&self.database, self.schema().await.map_err(fault)?, held).await.map_err(fault)
    }

    async fn begin_try(&self, unit: UnitId, epoch: i64, position: Position) -> Result<Option<u32>, Fault> {
        let schema = self.schema().await.map_err(fault)?;
        lease::begin_try(&self.database, schema, &unit, epoch, position).await.map_err(fault)
    }

    async fn forget_tries(&self, projection: &str) -> Result<(), Fault> {
        lease::forget_tries(&self.database, self.schema().await.map_err(fault)?, projection).await.map_err(fault)
    }

    async fn seize(
        &self,
        unit: UnitId,
        owner: Uuid,
        held: Option<i64>,
        lease: Duration,
    ) -> Result<Option<Place>, Fault> {
        let schema = self.schema().await.map_err(fault)?;
        lease::seize(&self.database, schema, &unit, owner, held, lease).await.map_err(fault)
    }

    async fn parked(&self, unit: UnitId) -> Result<Vec<ParkedStream>, Fault> {
        parked::parked(&self.database, self.schema().await.map_err(fault)?, &unit).await.map_err(fault)
    }

    async fn leave(&self, runner: &Runner) -> Result<(), Fault> {
        lease::leave(&self.database, self.schema().await.map_err(fault)?, runner).await.map_err(fault)
    }

    async fn pause(&self, projection: &str, by: &str, now: Timestamp) -> Result<Option<Paused>, Fault> {
        let schema = self.schema().await.map_err(fault)?;
        lease::pause(&self.database, schema, projection, by, now).await.map_err(fault)
    }

    async fn resume(&self, projection: &str) -> Result<bool, Fault> {
        lease::resume(&self.database, self.schema().await.map_err(fault)?, projection).await.map_err(fault)
    }

    async fn name(&self, model: &Model) -> Result<Option<StoredName>, DatabaseError> {
        let schema = self.schema().await?;
        let mut transaction = self.database.begin().await?;
        view::stored_name(&mut transaction, schema, model).await.map_err(|e| self.database.fault(e))
    }

    async fn query(
        &self,
        model: &Model,
        shown: u32,
        query: &Query<'_>,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
        query::run(&self.database, self.schema().await?, model, shown, query).await
    }
}

async fn stored_checkpoint(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<Option<Checkpoint>, sqlx::Error> {
    let query = schema.once(CHECKPOINT).bind(schema.schema()).bind(model.projection).bind(i64::from(model.version));
    query.fetch_optional(connection).await?.as_ref().map(checkpoint_of).transpose()
}

fn checkpoint_of(row: &PgRow) -> Result<Checkpoint, sqlx::Error> {
    let damaged = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
    let position = Position::new(row.try_get("position")?).map_err(|e| damaged(e.into()))?;
    let event_id = match row.try_get("event_id")? {
        Some(id) => Some(EventId::new(id).map_err(|e| damaged(e.into()))?),
        None => None,
    };
    Ok(Checkpoint { incarnation: Incarnation(row.try_get("incarnation")?), position, event_id })
}

fn shown_of(row: &PgRow) -> Result<Shown, sqlx::Error> {
    let moved_at = Timestamp::from_microsecond(row.try_get("moved_at")?).map_err(|e| sqlx::Error::Decode(e.into()))?;
    let places = vec![(slot_of(row)?, checkpoint_of(row)?)];
    Ok(Shown { version: version_of(row, "version")?, places, moved_at })
}

fn slot_of(row: &PgRow) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i32, _>("slot")?).map_err(|e| sqlx::Error::Decode(e.into()))
}

fn place_of(row: &PgRow) -> Result<Place, sqlx::Error> {
    Ok(Place { slot: slot_of(row)?, epoch: row.try_get("owner_epoch")?, checkpoint: checkpoint_of(row)? })
}

fn version_of(row: &PgRow, column: &str) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// The locks of the database are waited for this long and no longer: a query that waits for a lock on a table or a view
/// keeps all others waiting behind it.
async fn wait_briefly(schema: &ModelSchema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    schema.run(connection, "SET LOCAL lock_timeout = '250ms'").await
}
