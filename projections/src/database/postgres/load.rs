//! Loading rows by their keys.

use std::sync::Arc;

use annals_eventstore::BackendError;
use futures::TryStreamExt;
use sqlx::{PgConnection, Row};

use super::lock_timeout;
use super::schema::ModelSchema;
use super::values::{bind_keys, read_row};
use crate::column::ColumnValue;
use crate::database::{Model, Place};

/// Plans of statements are kept by each connection, so one that was made while the table was small would read all of it
/// when it is large. Where whole tables are not read at all, the primary key is the only way to a row.
const BY_KEY_ONLY: &str = concat!("SET LOCAL enable_seqscan = off; SET LOCAL ", lock_timeout!());

/// How many keys go into one statement at most.
const MOST_KEYS: usize = 10_000;

/// Why rows could not be loaded.
pub(super) enum Error {
    Sql(sqlx::Error),
    /// A stored row is not what its table can hold.
    Row(BackendError),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// For the rest of the transaction, no statement reads a whole table, or waits long for a lock.
pub(super) async fn seek_by_key(schema: &ModelSchema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    schema.run(connection, BY_KEY_ONLY).await
}

/// The rows that there are of these keys, if the checkpoint is `from`. The connection is inside of a transaction.
pub(super) async fn load(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
    from: &Place,
    keys: &[Vec<ColumnValue>],
    most: usize,
) -> Result<Option<Vec<Vec<ColumnValue>>>, Error> {
    seek_by_key(schema, connection).await?;
    let statements = schema.statements(model);
    let (mut found, mut bytes) = (Vec::new(), 0);
    for keys in keys.chunks(MOST_KEYS) {
        let query = bind_keys(schema.query(Arc::clone(&statements.load)), model.table, keys);
        let query = schema.bind_place(query, model, from);
        // Each statement sees the tables at a moment of its own, so each compares the checkpoint.
        let mut is_there = false;
        let mut rows = query.fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            if row.get(model.table.columns.len()) {
                is_there = true;
                continue;
            }
            let row = read_row(model.table, &row).map_err(Error::Row)?;
            bytes += row.iter().map(ColumnValue::bytes).sum::<usize>();
            found.push(row);
            if bytes >= most {
                return Ok(Some(found));
            }
        }
        if !is_there {
            return Ok(None);
        }
    }
    Ok(Some(found))
}
