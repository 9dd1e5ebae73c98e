//! Queries by the stable names, in the types of the rows.

use std::sync::Arc;

use annals_eventstore::PostgresDatabase;
use futures::TryStreamExt;
use sqlx::Row;

use super::schema::ModelSchema;
use super::values::{Query as Statement, bind, bind_keys, read_row};
use super::version_of;
use crate::column::ColumnValue;
use crate::database::{Model, QueryFault};
use crate::reads::{Query, Select};

const SHOWN: &str = "
    SELECT version
    FROM annals.read_models
    WHERE read_schema = $1 AND read_model = $2
    ORDER BY version
";

/// What a query finds, if the stable name shows the version `shown`.
///
/// Its statement is planned each time, for its values and for the size that the table has now: a plan that a connection has
/// kept since the table was small would read all of it for each key.
pub(super) async fn run(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    model: &Model,
    shown: u32,
    query: &Query<'_>,
) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
    let statements = schema.statements(model);
    let statement = match query {
        Query::Keys(keys) => {
            let statement = schema.query(Arc::clone(&statements.find)).once();
            bind_keys(statement, model.table, keys).bind(schema.schema().to_owned())
        }
        Query::Select(select) => {
            let statement = schema.query(statements.select(select)).once();
            bind_select(statement, schema, select)
        }
    };
    // A transaction takes no more round trips than a connection without, as that is prepared for the statement too; and it is
    // begun again if the connection was lost meanwhile. Dropping it ends it.
    let mut transaction = database.begin_to_read(query.tenant(model).as_ref()).await?;
    let failed = |error| QueryFault::Database(database.fault(error));
    let mut rows = Vec::new();
    let mut is_shown = true;
    let mut found = statement.fetch(&mut transaction);
    while let Some(row) = found.try_next().await.map_err(failed)? {
        let version = row.try_get::<Option<i64>, _>(model.table.columns.len()).map_err(failed)?;
        // The columns of another version may have other types, so they are not looked at.
        is_shown &= version == Some(i64::from(shown));
        if is_shown {
            rows.push(read_row(model.table, &row).map_err(QueryFault::Row)?);
        }
    }
    drop(found);
    if rows.is_empty() && is_shown {
        let query = schema.once(SHOWN).bind(schema.schema()).bind(model.table.name);
        let row = query.fetch_optional(&mut transaction).await.map_err(failed)?;
        let version = row.map(|row| version_of(&row, "version")).transpose().map_err(failed)?;
        is_shown = version == Some(shown);
    }
    Ok(is_shown.then_some(rows))
}

fn bind_select(statement: Statement, schema: &ModelSchema, select: &Select) -> Statement {
    let statement = select.values.iter().fold(statement, bind).bind(schema.schema().to_owned());
    match &select.tenant {
        Some(tenant) => statement.bind(tenant.as_str().to_owned()),
        None => statement,
    }
}
