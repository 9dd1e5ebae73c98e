//! Queries by the stable names, in the types of the rows.

use annals_eventstore::SqliteDatabase;
use sqlx::Row;

use super::statements::Statements;
use super::values::{Query as Statement, bind, bind_all, query, read_row};
use crate::column::ColumnValue;
use crate::database::{Model, QueryFault};
use crate::reads::{Query, Select};

const SHOWN: &str = "
    SELECT version
    FROM annals_read_models
    WHERE read_model = ?1
    ORDER BY version
";

/// So that several statements see one moment.
const BEGIN: &str = "BEGIN";

/// What a query finds, if the stable name shows the version `shown`.
pub(super) async fn run(
    database: &SqliteDatabase,
    statements: &Statements,
    model: &Model,
    shown: u32,
    query: &Query<'_>,
) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
    let pieces: Vec<Statement> = match query {
        Query::Keys(keys) => {
            let pieces = statements.find.padded(keys).into_iter();
            pieces.map(|(sql, keys)| bind_all(self::query(sql), keys)).collect()
        }
        Query::Select(select) => vec![bind_select(model, select)],
    };
    let failed = |error| QueryFault::Database(database.fault(error));
    let tenant = query.tenant(model);
    let mut reader = database.read_for(tenant.as_ref()).await?;
    sqlx::query(BEGIN).execute(&mut *reader).await.map_err(failed)?;
    let mut rows = Vec::new();
    for piece in pieces {
        for row in piece.fetch_all(&mut *reader).await.map_err(failed)? {
            if row.try_get::<Option<u32>, _>(model.table.columns.len()).map_err(failed)? != Some(shown) {
                return Ok(None);
            }
            rows.push(read_row(model.table, &row).map_err(QueryFault::Row)?);
        }
    }
    if rows.is_empty() {
        let row = sqlx::query(SHOWN).bind(model.table.name).fetch_optional(&mut *reader).await.map_err(failed)?;
        let version = row.map(|row| row.try_get::<u32, _>("version")).transpose().map_err(failed)?;
        return Ok((version == Some(shown)).then_some(rows));
    }
    Ok(Some(rows))
    // Dropping the reader ends its transaction; nobody has to wait for that.
}

fn bind_select(model: &Model, select: &Select) -> Statement {
    let values = select.values.iter().map(|(_, value)| value);
    let query = values.fold(query(Statements::select(model, select)), bind);
    match &select.tenant {
        Some(tenant) => bind(query, &ColumnValue::Text(tenant.as_str().into())),
        None => query,
    }
}
