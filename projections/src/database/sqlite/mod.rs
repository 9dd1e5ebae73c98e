//! Read models in a SQLite file.

mod lease;
mod parked;
mod prepare;
mod query;
mod reactors;
mod statements;
#[cfg(test)]
mod tests;
mod transaction;
mod values;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::{
    BackendError, Checkpoint, DatabaseError, EventId, Incarnation, Position, SqliteDatabase, StreamId,
};
use annals_migrations::SQLITE_PROJECTIONS;
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use crate::changes::{Changes, of_one_length};
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
use statements::Statements;
pub(crate) use transaction::execute;
use values::{bind_all, bind_checkpoint, bind_place, query, read_row};

/// That of the slot which is furthest behind.
const CHECKPOINT: &str = "
    SELECT incarnation, position, event_id
    FROM annals_checkpoints
    WHERE projection = ?1 AND version = ?2
    ORDER BY position, slot
    LIMIT 1
";

/// All of them, as they are few.
const PLACES: &str = "
    SELECT projection, version, slot, owner_epoch, incarnation, position, event_id
    FROM annals_checkpoints
    ORDER BY projection, version, slot
";

/// Nothing is updated if the checkpoint is elsewhere, or belongs to another owner.
const MOVE_CHECKPOINT: &str = "
    UPDATE annals_checkpoints
    SET incarnation = ?8, position = ?9, event_id = ?10, updated_at = ?11
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND owner_epoch = ?4
      AND incarnation = ?5 AND position = ?6 AND event_id IS ?7
";

/// What some names show, which come as a JSON array.
const SHOWN: &str = "
    SELECT n.read_model, n.version, c.slot, c.incarnation, c.position, c.event_id, c.updated_at
    FROM json_each(?1) AS wanted
    JOIN annals_read_models AS n ON n.read_model = wanted.value
    JOIN annals_checkpoints AS c ON c.projection = n.projection AND c.version = n.version
    ORDER BY n.read_model, c.slot
";

/// The read models of one SQLite file.
pub(crate) struct SqliteReadModels {
    database: SqliteDatabase,
    /// The text of every statement, made once per table.
    statements: Mutex<HashMap<(&'static str, u32), Arc<Statements>>>,
}

impl SqliteReadModels {
    pub(crate) fn new(database: SqliteDatabase) -> Self {
        Self { database, statements: Mutex::default() }
    }

    fn statements(&self, model: &Model) -> Arc<Statements> {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        let made = statements.entry((model.table.name, model.version));
        Arc::clone(made.or_insert_with(|| Arc::new(Statements::of(model))))
    }

    fn sql_fault(&self, error: sqlx::Error) -> Fault {
        fault(self.database.fault(error))
    }
}

/// A fault that may pass by itself: locks, a full disk, and a commit whose outcome the next try finds out, because it
/// compares the checkpoint. Everything else would fail again.
fn fault(error: DatabaseError) -> Fault {
    let transient = error.is_transient() || matches!(error, DatabaseError::OutcomeUnknown { .. });
    Fault { transient, blocked: false, part: None, source: BackendError::new(error) }
}

#[async_trait]
impl ReadModels for SqliteReadModels {
    async fn migrate(&self) -> Result<(), StartError> {
        self.database.migrate(SQLITE_PROJECTIONS).await.map_err(StartError::Migrate)
    }

    async fn prepare(
        &self,
        model: &Model,
        shape: &Shape,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        prepare::prepare(&self.database, model, shape, &self.statements(model), incarnation, now).await
    }

    async fn prepare_transaction(
        &self,
        model: &Model,
        shape: &Shape,
        projection: &dyn AnyTransaction,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        transaction::prepare(&self.database, model, shape, projection, incarnation, now).await
    }

    async fn begin_applying(&self, model: &Model, from: &Place) -> Result<Option<Box<dyn Applying>>, Fault> {
        transaction::begin(&self.database, model, from).await
    }

    async fn places(&self, units: &[UnitId]) -> Result<Vec<Option<Place>>, Fault> {
        let mut reader = self.database.read_for(None).await.map_err(fault)?;
        let rows = sqlx::query(PLACES).fetch_all(&mut *reader).await.map_err(|e| self.sql_fault(e))?;
        let of = |unit: &UnitId| {
            let is_its_own = |row: &&SqliteRow| {
                let (projection, version, slot): (&str, u32, u32) =
                    (row.get("projection"), row.get("version"), row.get("slot"));
                (projection, version, slot) == (unit.projection, unit.version, unit.slot)
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
        let statements = self.statements(model);
        let mut reader = self.database.read_for(None).await.map_err(fault)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (sql, keys) in statements.load.padded(keys) {
            let loading = bind_all(bind_place(query(sql), model, from), keys);
            let mut found = loading.fetch(&mut *reader);
            let mut is_there = false;
            while let Some(row) = found.try_next().await.map_err(|e| self.sql_fault(e))? {
                if row.get(model.table.columns.len()) {
                    is_there = true;
                    continue;
                }
                let refused = |source| Fault { transient: false, blocked: false, part: None, source };
                let row = read_row(model.table, &row).map_err(refused)?;
                bytes += row.iter().map(ColumnValue::bytes).sum::<usize>();
                rows.push(row);
                if bytes >= most {
                    return Ok(Some(rows));
                }
            }
            if !is_there {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    }

    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault> {
        let mut transaction = self.database.begin().await.map_err(fault)?;
        let mut moved = Vec::with_capacity(work.len());
        for (part, work) in work.iter().enumerate() {
            let done = self.write(&mut transaction, work, now).await;
            moved.push(done.map_err(|e| Fault { part: Some(part), ..self.sql_fault(e) })?);
        }
        if moved.contains(&Moved::Done) {
            transaction.commit().await.map_err(fault)?;
        } else {
            transaction.rollback().await.map_err(fault)?;
        }
        Ok(moved)
    }

    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault> {
        // It holds the file's write lock, so nothing else moves meanwhile.
        let mut transaction = self.database.begin().await.map_err(fault)?;
        let name = view::stored_name(&mut transaction, model).await.map_err(|e| self.sql_fault(e))?;
        if let Some(name) = name {
            let own = stored_checkpoint(&mut transaction, model).await.map_err(|e| self.sql_fault(e))?;
            if let Some(shows) = name.decide(model, switch, own)? {
                return Ok(shows);
            }
        }
        view::show(&mut transaction, model, &self.statements(model)).await.map_err(|e| self.sql_fault(e))?;
        transaction.commit().await.map_err(fault)?;
        Ok(Shows::This)
    }

    async fn reactor_checkpoint(&self, reactor: &'static str) -> Result<Option<Checkpoint>, StartError> {
        reactors::stored(&self.database, reactor).await
    }

    async fn prepare_reactor(&self, opening: &Opening) -> Result<(), StartError> {
        reactors::prepare(&self.database, opening).await
    }

    async fn open_reactor(&self, opening: Opening) -> Result<Opened, StartError> {
        reactors::open(&self.database, opening).await
    }

    async fn failing(&self, reactor: &'static str, only_asked: bool) -> Result<Vec<Failing>, Fault> {
        reactors::failing(&self.database, reactor, only_asked).await.map_err(fault)
    }

    async fn ask_again(&self, reactor: &'static str, stream: &StreamId) -> Result<bool, Fault> {
        reactors::ask_again(&self.database, reactor, stream).await.map_err(fault)
    }

    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault> {
        // Names are identifiers, so they stand in JSON as they are.
        let names: Vec<String> = models.iter().map(|model| format!("\"{}\"", model.table.name)).collect();
        let mut reader = self.database.read_for(None).await.map_err(fault)?;
        let query = sqlx::query(SHOWN).bind(format!("[{}]", names.join(",")));
        let rows = query.fetch_all(&mut *reader).await.map_err(|e| self.sql_fault(e))?;
        let mut shown = HashMap::with_capacity(rows.len());
        for row in &rows {
            let name: String = row.try_get("read_model").map_err(|e| self.sql_fault(e))?;
            add_shown(&mut shown, name, shown_of(row).map_err(|e| self.sql_fault(e))?);
        }
        Ok(models.iter().map(|model| shown.get(model.table.name).cloned()).collect())
    }

    async fn survey(&self, runner: &Runner, lease: Duration) -> Result<Survey, Fault> {
        lease::survey(&self.database, runner, lease).await.map_err(fault)
    }

    async fn claim(&self, runner: &Runner, units: &[UnitId], lease: Duration) -> Result<Vec<Claimed>, Fault> {
        lease::claim(&self.database, runner, units, lease).await.map_err(fault)
    }

    async fn release(&self, held: &[(UnitId, i64)]) -> Result<(), Fault> {
        lease::release(&self.database, held).await.map_err(fault)
    }

    async fn begin_try(&self, unit: UnitId, epoch: i64, position: Position) -> Result<Option<u32>, Fault> {
        lease::begin_try(&self.database, &unit, epoch, position).await.map_err(fault)
    }

    async fn forget_tries(&self, projection: &str) -> Result<(), Fault> {
        lease::forget_tries(&self.database, projection).await.map_err(fault)
    }

    async fn seize(
        &self,
        unit: UnitId,
        owner: Uuid,
        held: Option<i64>,
        lease: Duration,
    ) -> Result<Option<Place>, Fault> {
        lease::seize(&self.database, &unit, owner, held, lease).await.map_err(fault)
    }

    async fn parked(&self, unit: UnitId) -> Result<Vec<ParkedStream>, Fault> {
        parked::parked(&self.database, &unit).await.map_err(fault)
    }

    async fn leave(&self, runner: &Runner) -> Result<(), Fault> {
        lease::leave(&self.database, runner).await.map_err(fault)
    }

    async fn pause(&self, projection: &str, by: &str, now: Timestamp) -> Result<Option<Paused>, Fault> {
        lease::pause(&self.database, projection, by, now).await.map_err(fault)
    }

    async fn resume(&self, projection: &str) -> Result<bool, Fault> {
        lease::resume(&self.database, projection).await.map_err(fault)
    }

    async fn name(&self, model: &Model) -> Result<Option<StoredName>, DatabaseError> {
        let mut reader = self.database.read_for(None).await?;
        view::stored_name(&mut reader, model).await.map_err(|e| self.database.fault(e))
    }

    async fn query(
        &self,
        model: &Model,
        shown: u32,
        query: &Query<'_>,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
        query::run(&self.database, &self.statements(model), model, shown, query).await
    }
}

impl SqliteReadModels {
    async fn write(
        &self,
        connection: &mut SqliteConnection,
        work: &Work,
        now: Timestamp,
    ) -> Result<Moved, sqlx::Error> {
        let moving = bind_place(sqlx::query(MOVE_CHECKPOINT), &work.model, &work.from);
        let updated = bind_checkpoint(moving, &work.to).bind(now.as_microsecond()).execute(&mut *connection).await?;
        if updated.rows_affected() != 1 {
            return Ok(Moved::Overtaken);
        }
        if work.model.is_in_transaction() {
            return Ok(Moved::Done);
        }
        let statements = self.statements(&work.model);
        let Changes { written, removed_prefixes, removed } = &work.changes;
        for prefixes in of_one_length(removed_prefixes) {
            let statements = &statements.remove_by_prefix[prefixes[0].len() - 1];
            for (sql, prefixes) in statements.padded(prefixes) {
                bind_all(query(sql), prefixes).execute(&mut *connection).await?;
            }
        }
        for (sql, rows) in statements.write.exact(written) {
            bind_all(query(sql), rows).execute(&mut *connection).await?;
        }
        for (sql, keys) in statements.remove.padded(removed) {
            bind_all(query(sql), keys).execute(&mut *connection).await?;
        }
        if !work.parking.is_empty() {
            parked::write(connection, work, now).await?;
        }
        Ok(Moved::Done)
    }
}

async fn stored_checkpoint(
    connection: &mut SqliteConnection,
    model: &Model,
) -> Result<Option<Checkpoint>, sqlx::Error> {
    let query = sqlx::query(CHECKPOINT).bind(model.projection).bind(model.version);
    query.fetch_optional(connection).await?.as_ref().map(checkpoint_of).transpose()
}

fn checkpoint_of(row: &SqliteRow) -> Result<Checkpoint, sqlx::Error> {
    let damaged = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
    let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).map_err(|e| damaged(e.into()));
    let incarnation = Incarnation(uuid(row.try_get("incarnation")?)?);
    let position = Position::new(row.try_get("position")?).map_err(|e| damaged(e.into()))?;
    let event_id = match row.try_get::<Option<&[u8]>, _>("event_id")? {
        Some(bytes) => Some(EventId::new(uuid(bytes)?).map_err(|e| damaged(e.into()))?),
        None => None,
    };
    Ok(Checkpoint { incarnation, position, event_id })
}

fn shown_of(row: &SqliteRow) -> Result<Shown, sqlx::Error> {
    let moved_at =
        Timestamp::from_microsecond(row.try_get("updated_at")?).map_err(|e| sqlx::Error::Decode(e.into()))?;
    let places = vec![(row.try_get("slot")?, checkpoint_of(row)?)];
    Ok(Shown { version: row.try_get("version")?, places, moved_at })
}

fn place_of(row: &SqliteRow) -> Result<Place, sqlx::Error> {
    let (slot, epoch) = (row.try_get("slot")?, row.try_get("owner_epoch")?);
    Ok(Place { slot, epoch, checkpoint: checkpoint_of(row)? })
}
