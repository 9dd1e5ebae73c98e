//! Transactions of transaction projections in PostgreSQL. Each locks its checkpoint, so nobody moves it meanwhile.

use annals_eventstore::__private::Micros;
use annals_eventstore::{Checkpoint, DatabaseError, Incarnation, PostgresDatabase, PostgresTransaction};
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::fault::fault;
use super::prepare::{TAKE_TURN, begin_checkpoint, places, stored_shape};
use super::schema::{ModelSchema, bind_place};
use super::stored_checkpoint;
use super::values::{Query, bind};
use crate::column::{ColumnType, ColumnValue};
use crate::database::own_sql::{not_set_up, statement_has_ended, transient};
use crate::database::{Applying, Fault, Model, Place, Prepared};
use crate::error::StartError;
use crate::shape::Shape;
use crate::transaction::{AnyTransaction, Connection, ProjectionTransaction};

/// Nobody changes it, or takes the projection over, before the transaction ends.
const LOCK: &str = "
    SELECT 1
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2 AND version = $3 AND slot = $4 AND owner_epoch = $5
      AND incarnation = $6 AND position = $7 AND event_id IS NOT DISTINCT FROM $8
    ORDER BY slot
    FOR UPDATE
";

/// Only in the transaction that was begun, which carries a mark: a COMMIT or ROLLBACK of the projection's own ends that one.
const MOVE_CHECKPOINT: &str = "
    UPDATE annals.checkpoints
    SET incarnation = $9, position = $10, event_id = $11, updated_at = $12
    WHERE read_schema = $1 AND projection = $2 AND version = $3 AND slot = $4 AND owner_epoch = $5
      AND incarnation = $6 AND position = $7 AND event_id IS NOT DISTINCT FROM $8
      AND current_setting('annals.transaction', true) = 'open'
";

const IS_OPEN: &str = "
    SELECT coalesce(current_setting('annals.transaction', true), '') = 'open'
    ORDER BY 1
";

pub(super) async fn prepare(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    model: &Model,
    shape: &Shape,
    projection: &dyn AnyTransaction,
    incarnation: Incarnation,
    now: Timestamp,
) -> Result<Prepared, StartError> {
    let refused = |source| StartError::Database { projection: model.projection, source };
    let failed = |error| refused(database.fault(error));
    let mut transaction = database.begin().await.map_err(refused)?;
    schema.once(TAKE_TURN).without_limit().execute(&mut transaction).await.map_err(failed)?;
    if stored_checkpoint(&mut transaction, schema, model).await.map_err(failed)?.is_some() {
        shape.check(model, &stored_shape(&mut transaction, schema, model).await.map_err(failed)?)?;
    } else {
        let mut own = ProjectionTransaction::over(Connection::Postgres(database, &mut transaction));
        let made = projection.set_up(&mut own).await;
        made.map_err(|error| not_set_up(model, error, |error| database.fault(error)))?;
        let is_open = schema.once(IS_OPEN).fetch_one(&mut transaction).await.map_err(failed)?;
        if !is_open.get::<bool, _>(0) {
            return Err(statement_has_ended(model));
        }
        begin_checkpoint(&mut transaction, schema, model, shape, incarnation, now).await.map_err(failed)?;
    }
    let places = places(&mut transaction, schema, model).await.map_err(failed)?;
    transaction.commit().await.map_err(refused)?;
    Ok(Prepared { places, shown: true })
}

pub(super) async fn begin(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    model: &Model,
    from: &Place,
) -> Result<Option<Box<dyn Applying>>, Fault> {
    let mut transaction = database.begin().await.map_err(fault)?;
    let locking = schema.bind_place(schema.query(LOCK), model, from);
    let locked = locking.fetch_optional(&mut transaction).await.map_err(|e| fault(database.fault(e)))?;
    if locked.is_none() {
        return Ok(None);
    }
    let schema = schema.schema().to_owned();
    Ok(Some(Box::new(InDatabase { database: database.clone(), schema, transaction, model: *model, from: *from })))
}

struct InDatabase {
    database: PostgresDatabase,
    schema: String,
    transaction: PostgresTransaction,
    model: Model,
    from: Place,
}

#[async_trait]
impl Applying for InDatabase {
    fn connection(&mut self) -> ProjectionTransaction<'_> {
        ProjectionTransaction::over(Connection::Postgres(&self.database, &mut self.transaction))
    }

    /// Only the server knows. It is asked by the statement that moves the checkpoint.
    fn is_ended(&self) -> bool {
        false
    }

    /// A transaction that was aborted by an error refuses the question, and stores nothing.
    async fn may_have_stored(&mut self) -> bool {
        let is_open = Query::of(&self.database, IS_OPEN).once().fetch_one(&mut self.transaction).await;
        is_open.is_ok_and(|row| !row.get::<bool, _>(0))
    }

    fn may_pass(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        transient(error, |error| self.database.may_pass(error), DatabaseError::is_transient)
    }

    async fn commit(mut self: Box<Self>, to: &Checkpoint, now: Timestamp) -> Result<bool, Fault> {
        let moving = Query::of(&self.database, MOVE_CHECKPOINT);
        let moving = bind_place(moving, &self.schema, &self.model, &self.from)
            .bind(to.incarnation.0)
            .bind(to.position.get())
            .bind(to.event_id.map(|id| id.get()))
            .bind(Micros::of(now));
        let moved = moving.execute(&mut self.transaction).await.map_err(|e| fault(self.database.fault(e)))?;
        if moved.rows_affected() != 1 {
            return Ok(false);
        }
        self.transaction.commit().await.map_err(fault)?;
        Ok(true)
    }
}

/// Runs a statement of the user's own, which may take any time.
pub(crate) async fn execute(
    database: &PostgresDatabase,
    connection: &mut PgConnection,
    sql: &'static str,
    values: &[(ColumnType, ColumnValue)],
) -> Result<u64, DatabaseError> {
    let query = Query::of(database, sql).without_limit();
    let done = values.iter().fold(query, bind).execute(connection).await.map_err(|e| database.fault(e))?;
    Ok(done.rows_affected())
}
