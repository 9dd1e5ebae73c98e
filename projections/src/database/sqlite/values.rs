//! Values on their way into SQLite and out of it.

use std::sync::Arc;

use annals_eventstore::{BackendError, Checkpoint};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row, Sqlite};
use uuid::Uuid;

use crate::column::{ColumnError, ColumnType, ColumnValue};
use crate::column_types::moment;
use crate::database::{Model, Place};
use crate::read_model::{ColumnSpec, TableSpec};

pub(super) type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// A statement whose text is ours: made from checked identifiers and `?` alone.
pub(super) fn query(sql: Arc<str>) -> Query {
    sqlx::query(AssertSqlSafe(sql))
}

/// Binds the values of some rows, one after the other.
pub(super) fn bind_all(query: Query, rows: Vec<&[ColumnValue]>) -> Query {
    rows.into_iter().flatten().fold(query, bind)
}

/// Binds a model and the place at which its checkpoint must be.
pub(super) fn bind_place(query: Query, model: &Model, from: &Place) -> Query {
    let query = query.bind(model.projection).bind(model.version).bind(from.slot).bind(from.epoch);
    bind_checkpoint(query, &from.checkpoint)
}

/// Binds incarnation, position and event id.
pub(super) fn bind_checkpoint(query: Query, checkpoint: &Checkpoint) -> Query {
    query
        .bind(checkpoint.incarnation.0.as_bytes().to_vec())
        .bind(checkpoint.position.get())
        .bind(checkpoint.event_id.map(|id| id.get().as_bytes().to_vec()))
}

pub(super) fn bind(query: Query, value: &ColumnValue) -> Query {
    match value {
        ColumnValue::Null | ColumnValue::Refused(_) => query.bind(None::<i64>),
        ColumnValue::Integer(n) => query.bind(*n),
        ColumnValue::Real(n) => query.bind(*n),
        ColumnValue::Text(text) | ColumnValue::Json(text) => query.bind(Arc::clone(text)),
        ColumnValue::Bool(b) => query.bind(i64::from(*b)),
        ColumnValue::Timestamp(time) => query.bind(time.as_microsecond()),
        ColumnValue::Uuid(id) => query.bind(id.as_bytes().to_vec()),
        ColumnValue::Bytes(bytes) => query.bind(bytes.to_vec()),
    }
}

/// The values of a row, in the order of the table's columns.
pub(super) fn read_row(table: &TableSpec, row: &SqliteRow) -> Result<Vec<ColumnValue>, BackendError> {
    table.columns.iter().enumerate().map(|(at, column)| read(column, row, at)).collect()
}

fn read(column: &ColumnSpec, row: &SqliteRow, at: usize) -> Result<ColumnValue, BackendError> {
    let wrong =
        |expected: &str, found: String| BackendError::new(ColumnError::new(expected, found).in_column(column.name));
    // STRICT tables hold nothing but the declared types, so the type of each single value need not be looked at.
    macro_rules! get {
        ($type:ty) => {
            match row.try_get_unchecked::<Option<$type>, _>(at).map_err(BackendError::new)? {
                Some(value) => value,
                None => return Ok(ColumnValue::Null),
            }
        };
    }
    Ok(match column.column_type {
        ColumnType::Integer => ColumnValue::Integer(get!(i64)),
        ColumnType::Real => ColumnValue::Real(get!(f64)),
        ColumnType::Text => ColumnValue::Text(get!(&str).into()),
        ColumnType::Json => ColumnValue::Json(get!(&str).into()),
        ColumnType::Bytes => ColumnValue::Bytes(get!(&[u8]).into()),
        ColumnType::Bool => match get!(i64) {
            0 => ColumnValue::Bool(false),
            1 => ColumnValue::Bool(true),
            other => return Err(wrong("0 or 1", other.to_string())),
        },
        ColumnType::Timestamp => {
            let micros = get!(i64);
            ColumnValue::Timestamp(moment(micros).ok_or_else(|| wrong("microseconds since 1970", micros.to_string()))?)
        }
        ColumnType::Uuid => {
            let bytes = get!(&[u8]);
            let id = Uuid::from_slice(bytes);
            ColumnValue::Uuid(id.map_err(|_| wrong("the 16 bytes of a UUID", format!("{} bytes", bytes.len())))?)
        }
    })
}
