//! The indexes of a table: made with it, or later beside those that write to it.

use annals_eventstore::{Backoff, DatabaseError, PostgresDatabase};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::time::sleep;

use super::schema::ModelSchema;
use super::statements::{Index, index_prefix};
use crate::database::Model;
use crate::database::sql::{is_our_index, undeclared};

/// Each index of a table, and whether it is finished.
const INDEXES: &str = "
    SELECT i.relname::text, x.indisvalid
    FROM pg_index AS x
    JOIN pg_class AS i ON i.oid = x.indexrelid
    JOIN pg_class AS c ON c.oid = x.indrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    ORDER BY 1
";

/// The keys are `annl` and `indx` in ASCII. A process that has to wait asks again: if it waited in the server, the one that makes an
/// index would wait for it, as for every transaction that has begun before.
const TAKE_TURN: &str = "SELECT pg_try_advisory_lock(1634627180, 1768842360)";
/// Who has the turn, and whether that account may run projections.
const HOLDERS: &str = "
    SELECT a.usename::text, a.pid, has_table_privilege(a.usesysid, 'annals.checkpoints', 'UPDATE') AS may_write
    FROM pg_locks AS l
    JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 1634627180 AND l.objid = 1768842360 AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY a.pid
";
const END_TURN: &str = "SELECT pg_advisory_unlock(1634627180, 1768842360)";

/// Names of the table's indexes, and whether each is finished.
async fn there(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<Vec<(String, bool)>, sqlx::Error> {
    let query = schema.once(INDEXES).bind(schema.schema()).bind(model.table_name());
    Ok(query.fetch_all(connection).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Whether indexes are missing or unfinished. One of ours that is declared no longer stays: a build that declares it may still run.
pub(super) async fn are_missing(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<bool, sqlx::Error> {
    let (there, prefix) = (there(connection, schema, model).await?, index_prefix(model));
    let indexes = &schema.statements(model).indexes;
    for (index, _) in there.iter().filter(|(name, _)| is_our_index(name, &prefix)) {
        if !indexes.iter().any(|declared| declared.name == *index) {
            undeclared(model, index);
        }
    }
    Ok(indexes.iter().any(|index| !there.contains(&(index.name.clone(), true))))
}

/// Makes those that are missing in the transaction of the connection. Nobody writes to the table until it ends.
pub(super) async fn make(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<(), sqlx::Error> {
    let there = there(connection, schema, model).await?;
    for index in &schema.statements(model).indexes {
        if !there.iter().any(|(name, _)| *name == index.name) {
            sqlx::raw_sql(AssertSqlSafe(index.create.clone())).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Makes those that are missing or unfinished while others write to the table.
pub(super) async fn make_beside(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    model: &Model,
) -> Result<(), DatabaseError> {
    let (mut backoff, mut is_said) = (Backoff::default(), false);
    let mut connection = loop {
        // Others need the connections meanwhile: another process may be at it for an hour.
        let mut connection = database.read().await?;
        if take_turn(schema, &mut connection).await.map_err(|e| database.fault(e))? {
            break connection;
        }
        if let Some((holder, may_write)) = holder(schema, &mut connection).await.map_err(|e| database.fault(e))? {
            if !may_write {
                tracing::warn!(
                    projection = model.projection,
                    holder,
                    "an account that runs no projections has the lock for indexes"
                );
                break connection;
            }
            if !std::mem::replace(&mut is_said, true) {
                tracing::info!(
                    projection = model.projection,
                    holder,
                    "indexes are made when those of another process are"
                );
            }
        }
        drop(connection);
        sleep(backoff.next_wait()).await;
    };
    // If this is dropped, the connection gives the turn back.
    let made = make_in_turn(&mut connection, schema, model).await;
    let ended = schema.once(END_TURN).execute(&mut connection).await;
    made.and(ended.map(drop)).map_err(|e| database.fault(e))
}

async fn take_turn(schema: &ModelSchema, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    Ok(schema.once(TAKE_TURN).fetch_one(connection).await?.get(0))
}

/// The first who has the turn, by account and backend, and whether that account may run projections.
async fn holder(schema: &ModelSchema, connection: &mut PgConnection) -> Result<Option<(String, bool)>, sqlx::Error> {
    let rows = schema.once(HOLDERS).fetch_all(connection).await?;
    let holder = |row: &PgRow| (format!("{} (backend {})", row.get::<String, _>(0), row.get::<i32, _>(1)), row.get(2));
    Ok(rows.first().map(holder))
}

async fn make_in_turn(connection: &mut PgConnection, schema: &ModelSchema, model: &Model) -> Result<(), sqlx::Error> {
    let there = there(connection, schema, model).await?;
    for Index { name, create_beside, drop_beside, .. } in &schema.statements(model).indexes {
        let found = there.iter().find(|(there, _)| there == name);
        // A process that ended meanwhile has left it.
        if let Some((_, false)) = found {
            sqlx::raw_sql(AssertSqlSafe(drop_beside.clone())).execute(&mut *connection).await?;
        }
        if !found.is_some_and(|(_, finished)| *finished) {
            tracing::info!(projection = model.projection, version = model.version, index = name, "an index is made");
            sqlx::raw_sql(AssertSqlSafe(create_beside.clone())).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
