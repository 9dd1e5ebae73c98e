//! Values on their way into PostgreSQL and out of it.

use std::time::Duration;

use annals_eventstore::__private::{Micros, answer_within, next_within};
use annals_eventstore::{BackendError, PostgresDatabase};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow};
use sqlx::{Encode, PgConnection, Postgres, Row, SqlSafeStr, Type};
use uuid::Uuid;

use crate::column::{ColumnError, ColumnType, ColumnValue};
use crate::column_types::moment;
use crate::read_model::{ColumnSpec, TableSpec};

/// A statement, and how long the server may take to answer it, or between two of its rows; no limit is for what may take any time.
/// Without an answer the connection must be dropped, which closes it.
pub(super) struct Query {
    query: sqlx::query::Query<'static, Postgres, PgArguments>,
    max_wait: Duration,
}

impl Query {
    /// One that is run again and again: each connection keeps it prepared, unless there is a pooler in between, which would look
    /// for it on another connection.
    pub(super) fn of(database: &PostgresDatabase, text: impl SqlSafeStr) -> Self {
        let query = sqlx::query(text).persistent(!database.is_pooled());
        Self { query, max_wait: database.answer_timeout() }
    }

    /// One that is run now and then, and not kept prepared.
    pub(super) fn once(self) -> Self {
        Self { query: self.query.persistent(false), ..self }
    }

    /// One that takes as long as its work, or waits for such a one.
    pub(super) fn without_limit(self) -> Self {
        Self { max_wait: Duration::MAX, ..self }
    }

    pub(super) fn bind<'t, T: Encode<'t, Postgres> + Type<Postgres>>(self, value: T) -> Self {
        Self { query: self.query.bind(value), ..self }
    }

    pub(super) async fn execute(self, connection: &mut PgConnection) -> Result<PgQueryResult, sqlx::Error> {
        answer_within(self.max_wait, self.query.execute(connection)).await
    }

    pub(super) async fn fetch_all(self, connection: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        answer_within(self.max_wait, self.query.fetch_all(connection)).await
    }

    pub(super) async fn fetch_one(self, connection: &mut PgConnection) -> Result<PgRow, sqlx::Error> {
        answer_within(self.max_wait, self.query.fetch_one(connection)).await
    }

    pub(super) async fn fetch_optional(self, connection: &mut PgConnection) -> Result<Option<PgRow>, sqlx::Error> {
        answer_within(self.max_wait, self.query.fetch_optional(connection)).await
    }

    pub(super) fn fetch(self, connection: &mut PgConnection) -> BoxStream<'_, Result<PgRow, sqlx::Error>> {
        let (rows, max_wait) = (self.query.fetch(connection), self.max_wait);
        stream::try_unfold(rows, move |mut rows| async move {
            Ok(next_within(max_wait, &mut rows).await?.map(|row| (row, rows)))
        })
        .boxed()
    }
}

/// Binds whole rows, as one array per column.
pub(super) fn bind_rows(mut query: Query, table: &TableSpec, rows: &[Vec<ColumnValue>]) -> Query {
    for (at, column) in table.columns.iter().enumerate() {
        query = bind_column(query, column, rows, at);
    }
    query
}

/// Binds keys, as one array per key column.
pub(super) fn bind_keys(mut query: Query, table: &TableSpec, keys: &[Vec<ColumnValue>]) -> Query {
    let columns = keys.first().map_or(0, Vec::len);
    for (at, place) in table.key_places().into_iter().enumerate().take(columns) {
        query = bind_column(query, &table.columns[place], keys, at);
    }
    query
}

/// Binds one value of a query, as the type that its column would have.
pub(super) fn bind(query: Query, (column_type, value): &(ColumnType, ColumnValue)) -> Query {
    macro_rules! one {
        ($variant:ident($value:pat) => $sent:expr) => {
            query.bind(match value {
                ColumnValue::$variant($value) => Some($sent),
                _ => None,
            })
        };
    }
    match column_type {
        ColumnType::Integer => one!(Integer(n) => *n),
        ColumnType::Real => one!(Real(n) => *n),
        // JSON is no value of a query; see `reads::types`.
        ColumnType::Text | ColumnType::Json => one!(Text(text) => text.as_ref().to_owned()),
        ColumnType::Bool => one!(Bool(b) => *b),
        ColumnType::Timestamp => one!(Timestamp(time) => Micros::of(*time)),
        ColumnType::Uuid => one!(Uuid(id) => *id),
        ColumnType::Bytes => one!(Bytes(bytes) => bytes.to_vec()),
    }
}

/// Binds the values of `rows` at `at`. They were checked to be of the column's type, or null.
fn bind_column(query: Query, column: &ColumnSpec, rows: &[Vec<ColumnValue>], at: usize) -> Query {
    macro_rules! array {
        ($variant:ident($value:pat) => $sent:expr) => {
            query.bind(
                rows.iter()
                    .map(|row| match &row[at] {
                        ColumnValue::$variant($value) => Some($sent),
                        _ => None,
                    })
                    .collect::<Vec<_>>(),
            )
        };
    }
    match column.column_type {
        ColumnType::Integer => array!(Integer(n) => *n),
        // With one zero, as SQLite has it.
        ColumnType::Real => array!(Real(n) => *n + 0.0),
        ColumnType::Text => array!(Text(text) => &**text),
        ColumnType::Bool => array!(Bool(b) => *b),
        ColumnType::Timestamp => array!(Timestamp(time) => Micros::of(*time)),
        ColumnType::Uuid => array!(Uuid(id) => *id),
        ColumnType::Bytes => array!(Bytes(bytes) => &**bytes),
        ColumnType::Json => array!(Json(json) => &**json),
    }
}

/// The values of a row, in the order of the table's columns.
pub(super) fn read_row(table: &TableSpec, row: &PgRow) -> Result<Vec<ColumnValue>, BackendError> {
    table.columns.iter().enumerate().map(|(at, column)| read(column, row, at)).collect()
}

fn read(column: &ColumnSpec, row: &PgRow, at: usize) -> Result<ColumnValue, BackendError> {
    // The table was checked to have the declared types, so the type of each single value need not be looked at.
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
        ColumnType::Bool => ColumnValue::Bool(get!(bool)),
        ColumnType::Uuid => ColumnValue::Uuid(get!(Uuid)),
        ColumnType::Timestamp => {
            let Micros(micros) = get!(Micros);
            ColumnValue::Timestamp(moment(micros).ok_or_else(|| {
                let found = format!("{micros} microseconds after 1970");
                BackendError::new(ColumnError::new("a time before the year 10000", found).in_column(column.name))
            })?)
        }
    })
}
