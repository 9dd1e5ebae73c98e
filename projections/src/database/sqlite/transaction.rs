//! Transactions of transaction projections in a SQLite file. Each holds the file's write lock, so nobody moves the checkpoint meanwhile.

use annals_eventstore::{BackendError, Checkpoint, DatabaseError, Incarnation, SqliteDatabase, SqliteTransaction};
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::prepare::{begin_checkpoint, places, stored_shape};
use super::values::{bind, bind_checkpoint, bind_place};
use super::{fault, stored_checkpoint};
use crate::column::{ColumnType, ColumnValue};
use crate::database::own_sql::{not_set_up, statement_has_ended, transient};
use crate::database::{Applying, Fault, Model, Place, Prepared};
use crate::error::StartError;
use crate::shape::Shape;
use crate::transaction::{AnyTransaction, Connection, ProjectionTransaction};

const IS_THERE: &str = "
    SELECT 1
    FROM main.annals_checkpoints
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND owner_epoch = ?4
      AND incarnation = ?5 AND position = ?6 AND event_id IS ?7
    ORDER BY slot
";

/// In the main database, whatever the projection has made in the temporary one.
const MOVE_CHECKPOINT: &str = "
    UPDATE main.annals_checkpoints
    SET incarnation = ?8, position = ?9, event_id = ?10, updated_at = ?11
    WHERE projection = ?1 AND version = ?2 AND slot = ?3 AND owner_epoch = ?4
      AND incarnation = ?5 AND position = ?6 AND event_id IS ?7
";

pub(super) async fn prepare(
    database: &SqliteDatabase,
    model: &Model,
    shape: &Shape,
    projection: &dyn AnyTransaction,
    incarnation: Incarnation,
    now: Timestamp,
) -> Result<Prepared, StartError> {
    let refused = |source| StartError::Database { projection: model.projection, source };
    let failed = |error| refused(database.fault(error));
    let mut transaction = database.begin().await.map_err(refused)?;
    if stored_checkpoint(&mut transaction, model).await.map_err(failed)?.is_some() {
        shape.check(model, &stored_shape(&mut transaction, model).await.map_err(failed)?)?;
    } else {
        transaction.refuse_commit_by_sql();
        let mut own = ProjectionTransaction::over(Connection::Sqlite(database, &mut transaction));
        let made = projection.set_up(&mut own).await;
        if transaction.is_ended() {
            return Err(statement_has_ended(model));
        }
        made.map_err(|error| not_set_up(model, error, |error| database.fault(error)))?;
        check_own(&mut transaction).await.map_err(refused)?;
        begin_checkpoint(&mut transaction, model, shape, incarnation, now).await.map_err(failed)?;
    }
    let places = places(&mut transaction, model).await.map_err(failed)?;
    transaction.commit().await.map_err(refused)?;
    Ok(Prepared { places, shown: true })
}

/// Refuses what the projection has made that takes the place of a table of annals.
async fn check_own(transaction: &mut SqliteTransaction) -> Result<(), DatabaseError> {
    match transaction.intercepting().await? {
        None => Ok(()),
        Some(what) => {
            let why = format!("a temporary {what} of the projection takes what is meant for annals; rename or drop it");
            Err(DatabaseError::Failed { source: BackendError::new(why) })
        }
    }
}

pub(super) async fn begin(
    database: &SqliteDatabase,
    model: &Model,
    from: &Place,
) -> Result<Option<Box<dyn Applying>>, Fault> {
    let mut transaction = database.begin().await.map_err(fault)?;
    let is_there = bind_place(sqlx::query(IS_THERE), model, from).fetch_optional(&mut *transaction).await;
    if is_there.map_err(|e| fault(database.fault(e)))?.is_none() {
        return Ok(None);
    }
    transaction.refuse_commit_by_sql();
    Ok(Some(Box::new(InFile { database: database.clone(), transaction, model: *model, from: *from })))
}

struct InFile {
    database: SqliteDatabase,
    transaction: SqliteTransaction,
    model: Model,
    from: Place,
}

#[async_trait]
impl Applying for InFile {
    fn connection(&mut self) -> ProjectionTransaction<'_> {
        ProjectionTransaction::over(Connection::Sqlite(&self.database, &mut self.transaction))
    }

    fn is_ended(&self) -> bool {
        self.transaction.is_ended()
    }

    /// SQLite has refused to.
    async fn may_have_stored(&mut self) -> bool {
        false
    }

    fn may_pass(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        // SQLite is unavailable to nobody but those whose COMMIT was refused.
        let passes = |error: &DatabaseError| match error {
            DatabaseError::Unavailable { .. } => false,
            DatabaseError::OutcomeUnknown { .. } => true,
            other => other.is_transient(),
        };
        transient(error, |error| self.database.may_pass(error), passes)
    }

    async fn commit(mut self: Box<Self>, to: &Checkpoint, now: Timestamp) -> Result<bool, Fault> {
        if self.is_ended() {
            return Ok(false);
        }
        check_own(&mut self.transaction).await.map_err(fault)?;
        let moving = bind_place(sqlx::query(MOVE_CHECKPOINT), &self.model, &self.from);
        let moving = bind_checkpoint(moving, to).bind(now.as_microsecond());
        let moved = moving.execute(&mut *self.transaction).await.map_err(|e| fault(self.database.fault(e)))?;
        if moved.rows_affected() != 1 {
            return Ok(false);
        }
        self.transaction.commit().await.map_err(fault)?;
        Ok(true)
    }
}

/// Runs a statement of the user's own.
pub(crate) async fn execute(
    database: &SqliteDatabase,
    connection: &mut SqliteConnection,
    sql: &'static str,
    values: &[(ColumnType, ColumnValue)],
) -> Result<u64, DatabaseError> {
    let query = values.iter().map(|(_, value)| value).fold(sqlx::query(sql), bind);
    let done = query.execute(connection).await.map_err(|e| database.fault(e))?;
    Ok(done.rows_affected())
}
