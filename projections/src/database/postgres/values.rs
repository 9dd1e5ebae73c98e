//! Values on their way into PostgreSQL and out of it.

use annals_eventstore::BackendError;
use jiff::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row, Type};
use uuid::Uuid;

use crate::column::{ColumnError, ColumnType, ColumnValue};
use crate::column_types::moment;
use crate::read_model::{ColumnSpec, TableSpec};

pub(super) type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

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

/// A `timestamptz` as microseconds since 1970. sqlx knows times of other crates only, by features that would change the types
/// inferred in users' own queries.
pub(super) struct Micros(i64);

/// PostgreSQL counts from the year 2000.
const EPOCH: i64 = 946_684_800_000_000;

impl Micros {
    pub(super) fn of(time: Timestamp) -> Self {
        Self(time.as_microsecond())
    }
}

/// The numbers of `timestamptz` and of arrays of it; the same in every database.
const TIMESTAMPTZ: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));
const TIMESTAMPTZ_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1185));

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        TIMESTAMPTZ_ARRAY
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // Every time that a row can hold fits: the year -9999 is far from the end of the numbers.
        buffer.extend_from_slice(&self.0.saturating_sub(EPOCH).to_be_bytes());
        Ok(IsNull::No)
    }
}

impl<'r> Decode<'r, Postgres> for Micros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let since_2000 = i64::from_be_bytes(value.as_bytes()?.try_into()?);
                Ok(Self(since_2000.checked_add(EPOCH).ok_or("the time is infinite")?))
            }
            PgValueFormat::Text => Err("times are read by prepared statements only".into()),
        }
    }
}
