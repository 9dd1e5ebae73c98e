//! What a fold made of a batch, as values for a table, checked to be what the table can hold.

use std::cmp::Ordering;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_eventstore::ErrorFamily;

use crate::column::{ColumnError, ColumnType, ColumnValue};
use crate::fold::panic_text;
use crate::key_order::KeyOrder;
use crate::read_model::{ReadModel, TableSpec};

/// The rows of one table to write and the keys of those to remove. No key occurs in `written` and `removed` twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes {
    /// Whole rows, each in the order of the table's columns.
    pub(crate) written: Vec<Vec<ColumnValue>>,
    /// Beginnings of keys, each shorter than a key, the shortest first: all rows with such a key are removed before others are
    /// written.
    pub(crate) removed_prefixes: Vec<Vec<ColumnValue>>,
    /// Keys, each in the order of the table's key columns.
    pub(crate) removed: Vec<Vec<ColumnValue>>,
}

impl Changes {
    /// Puts the lists into the order of their keys: neighbours in the list are neighbours in the table's tree, and two
    /// writers meet rows in one order.
    pub(crate) fn sort(&mut self, table: &TableSpec) {
        let key = table.key_places();
        self.written.sort_unstable_by(|a, b| {
            key.iter().map(|&at| compare(&a[at], &b[at])).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        self.removed.sort_by_cached_key(|key| KeyOrder::of(key.clone()));
        self.removed_prefixes.sort_by_cached_key(|prefix| (prefix.len(), KeyOrder::of(prefix.clone())));
    }
}

/// Pieces of the sorted beginnings of keys, each of one length.
pub(crate) fn of_one_length(prefixes: &[Vec<ColumnValue>]) -> impl Iterator<Item = &[Vec<ColumnValue>]> {
    prefixes.chunk_by(|a, b| a.len() == b.len())
}

/// The order of two values of one key column, as SQLite and PostgreSQL's `COLLATE "C"` have it.
pub(crate) fn compare(a: &ColumnValue, b: &ColumnValue) -> Ordering {
    match (a, b) {
        (ColumnValue::Integer(a), ColumnValue::Integer(b)) => a.cmp(b),
        (ColumnValue::Real(a), ColumnValue::Real(b)) => a.total_cmp(b),
        (ColumnValue::Text(a), ColumnValue::Text(b)) | (ColumnValue::Json(a), ColumnValue::Json(b)) => a.cmp(b),
        (ColumnValue::Bool(a), ColumnValue::Bool(b)) => a.cmp(b),
        (ColumnValue::Timestamp(a), ColumnValue::Timestamp(b)) => a.cmp(b),
        (ColumnValue::Uuid(a), ColumnValue::Uuid(b)) => a.cmp(b),
        (ColumnValue::Bytes(a), ColumnValue::Bytes(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// The key of a row, as [`RowError`] has it. It may hold what must not be in a log, such as a name or an address, so neither the
/// message of an error nor its `Debug` shows it: ask for it by [`KeyText::as_str`].
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

impl KeyText {
    fn of(key: &[ColumnValue]) -> Self {
        Self(show(key))
    }

    /// The beginning of each of its values, up to 100 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyText({} bytes)", self.0.len())
    }
}

/// Why a row cannot be kept in its table. The error of a projection that stops names the event too; the key of the row, which
/// its variants have, is not in the message.
///
/// ```
/// use annals_projections::{RowError, StopCause, Stopped};
///
/// /// For a person who may see it.
/// fn key_of(stopped: &Stopped) -> Option<&str> {
///     match &*stopped.cause {
///         StopCause::Row(RowError::Missing { key, .. } | RowError::Value { key, .. }) => Some(key.as_str()),
///         _ => None,
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A value is not one that the column can hold. Fix the fold, or the row's type.
    #[error("a row of `{table}`: column `{column}` {problem}")]
    Value {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: KeyText,
        /// The column.
        column: String,
        /// What is wrong with the value.
        problem: String,
    },
    /// The fold changed the key of a row it was given. Remove the old row and upsert the new one instead.
    #[error("a row of `{table}` was given another key; remove the old row and upsert the new one")]
    KeyChanged {
        /// The table.
        table: &'static str,
        /// The key under which the row was looked up.
        key: KeyText,
        /// The key that it has now.
        found: KeyText,
    },
    /// The fold of a stream projection inserted a row with another key than that of the event's stream. Make its key of the stream.
    #[error(
        "a row with another key than that of its stream was inserted into `{table}`; take the key from `StreamRow::key`"
    )]
    OfAnotherStream {
        /// The table.
        table: &'static str,
        /// The key of the stream's row.
        key: KeyText,
        /// The key of the row.
        found: KeyText,
    },
    /// There is no row that [`Rows::require`](crate::Rows::require) asked for. Fix the fold, or what wrote the events.
    #[error("`{table}` has no row with the key that was asked for")]
    Missing {
        /// The table.
        table: &'static str,
        /// The key.
        key: KeyText,
    },
    /// The table gave a row that nobody asked for: the key's type does not come back from the database as it went in.
    #[error("`{table}` holds a row that was not asked for; its key must come back from the database unchanged")]
    Foreign {
        /// The table.
        table: &'static str,
        /// The key of the row.
        key: KeyText,
    },
    /// A stored row is not one of this type; somebody else has written it. Rebuild the read model under a raised `VERSION`.
    #[error("a row of `{table}` cannot be read; rebuild the read model under a raised `VERSION`")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The column, and what it holds.
        source: ColumnError,
    },
    /// The code of a type that writes or reads columns panicked: a [`Column`](crate::Column), serde's, or that of the row. Fix it.
    #[error("a conversion of a row of `{table}` panicked: {text}; fix how its columns are written and read")]
    Panicked {
        /// The table.
        table: &'static str,
        /// What the panic said.
        text: String,
    },
}

impl RowError {
    /// Which of the five families the error belongs to: *invalid* if the fold made the row, *broken* if the table holds it, or should.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Value { .. } | Self::KeyChanged { .. } | Self::OfAnotherStream { .. } => ErrorFamily::Invalid,
            Self::Missing { .. } | Self::Foreign { .. } | Self::Unreadable { .. } | Self::Panicked { .. } => {
                ErrorFamily::Broken
            }
        }
    }

    /// Whether the same call may work later without any change: never.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }

    pub(crate) fn missing<R: ReadModel>(key: &[ColumnValue]) -> Self {
        Self::Missing { table: R::TABLE.name, key: KeyText::of(key) }
    }

    pub(crate) fn foreign<R: ReadModel>(key: &[ColumnValue]) -> Self {
        Self::Foreign { table: R::TABLE.name, key: KeyText::of(key) }
    }

    pub(crate) fn key_changed<R: ReadModel>(key: &[ColumnValue], found: &[ColumnValue]) -> Self {
        Self::KeyChanged { table: R::TABLE.name, key: KeyText::of(key), found: KeyText::of(found) }
    }

    pub(crate) fn of_another_stream<R: ReadModel>(key: &[ColumnValue], found: &[ColumnValue]) -> Self {
        Self::OfAnotherStream { table: R::TABLE.name, key: KeyText::of(key), found: KeyText::of(found) }
    }

    /// The row can be stored, but what the table gives back is not a row.
    pub(crate) fn lost<R: ReadModel>(key: &[ColumnValue], error: &ColumnError) -> Self {
        let ColumnError { column, expected, found } = error;
        let problem =
            format!("could not be read back: it should be {expected}, but is {found}; fix how its type is read");
        Self::value::<R>(key, column, problem)
    }

    fn value<R: ReadModel>(key: &[ColumnValue], column: &str, problem: impl Into<String>) -> Self {
        Self::Value { table: R::TABLE.name, key: KeyText::of(key), column: column.to_owned(), problem: problem.into() }
    }
}

/// Runs code of the user's that writes or reads rows; a panic is an error like any other.
pub(crate) fn guarded<R: ReadModel, T>(run: impl FnOnce() -> Result<T, RowError>) -> Result<T, RowError> {
    // What a panic leaves half-done is thrown away with the batch, or with the event.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(RowError::Panicked { table: R::TABLE.name, text: panic_text(panic.as_ref()) }))
}

/// A key as text: the beginning of each value.
fn show(key: &[ColumnValue]) -> String {
    let value = |value: &ColumnValue| {
        let text = value.to_string();
        match text.char_indices().nth(LONGEST_SHOWN) {
            Some((end, _)) => format!("{}..", &text[..end]),
            None => text,
        }
    };
    key.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// The most characters of a key's value.
const LONGEST_SHOWN: usize = 100;

/// Checks the values of a row against its table.
pub(crate) fn check_columns<R: ReadModel>(key: &[ColumnValue], columns: &[ColumnValue]) -> Result<(), RowError> {
    if columns.len() != R::TABLE.columns.len() {
        let (found, columns) = (columns.len(), R::TABLE.columns.len());
        let problem = format!("and the rest have {found} values for {columns} columns; fix `to_columns` of the row");
        return Err(RowError::value::<R>(key, R::TABLE.columns[0].name, problem));
    }
    for (spec, value) in R::TABLE.columns.iter().zip(columns) {
        check_value(spec.column_type, spec.nullable, value)
            .map_err(|problem| RowError::value::<R>(key, spec.name, problem))?;
    }
    check_key::<R>(key.to_vec())?;
    check_indexes::<R>(key, columns)
}

/// Checks that the values of a row are not too long for the indexes of its table.
pub(crate) fn check_indexes<R: ReadModel>(key: &[ColumnValue], columns: &[ColumnValue]) -> Result<(), RowError> {
    for index in R::TABLE.indexes {
        let value = |name: &&'static str| {
            let value = R::TABLE.columns.iter().zip(columns).find(|(column, _)| column.name == *name);
            value.map(|(_, value)| (*name, value))
        };
        check_length("index", index.columns.iter().filter_map(value))
            .map_err(|(column, problem)| RowError::value::<R>(key, column, problem))?;
    }
    Ok(())
}

/// Checks the length of what is in a key or an index; otherwise gives its longest column and what is wrong.
pub(crate) fn check_length<'a>(
    what: &str,
    values: impl Iterator<Item = (&'static str, &'a ColumnValue)>,
) -> Result<(), (&'static str, String)> {
    let sizes: Vec<(&'static str, usize)> = values.map(|(name, value)| (name, indexed_bytes(value))).collect();
    let further = sizes.len().saturating_sub(1) * BYTES_PER_FURTHER_COLUMN;
    let bytes = sizes.iter().map(|(_, size)| size).sum::<usize>() + further;
    let most = TableSpec::MAX_INDEXED_BYTES;
    let Some((longest, _)) = sizes.iter().max_by_key(|(_, size)| size).filter(|_| bytes > most) else { return Ok(()) };
    let names: Vec<String> = sizes.iter().map(|(name, _)| format!("`{name}`")).collect();
    let names = names.join(", ");
    Err((
        longest,
        format!(
            "is too long for the {what} on {names}, which has {bytes} bytes of at most {most}; shorten it, or keep a digest of it there"
        ),
    ))
}

/// What PostgreSQL adds to a column, at most: the header of a long value, and the bytes that align it.
const BYTES_PER_FURTHER_COLUMN: usize = 8;

/// The bytes of a value in an index of PostgreSQL, at most, without what is added to every column.
fn indexed_bytes(value: &ColumnValue) -> usize {
    match value {
        ColumnValue::Null | ColumnValue::Refused(_) => 0,
        ColumnValue::Text(text) => text.len(),
        ColumnValue::Bytes(bytes) => bytes.len(),
        // A bracket or a digit may take four bytes of `jsonb` for each of its text.
        ColumnValue::Json(_) => match value.clone().normal() {
            ColumnValue::Json(json) => json.len() * 4,
            _ => 0,
        },
        _ => 16,
    }
}

/// Checks the values of a key against its table.
pub(crate) fn check_key<R: ReadModel>(key: Vec<ColumnValue>) -> Result<Vec<ColumnValue>, RowError> {
    if key.len() != R::TABLE.key.len() {
        let (found, columns) = (key.len(), R::TABLE.key.len());
        let problem = format!("and the rest have {found} values for {columns} key columns; fix the type of the key");
        return Err(RowError::value::<R>(&key, R::TABLE.key[0], problem));
    }
    check_key_values::<R>(&key)?;
    Ok(key)
}

/// Checks what keys begin with: the values of a tenant, if there is one, and of at least one more column, but not of all.
pub(crate) fn check_prefix<R: ReadModel>(prefix: &[ColumnValue]) -> Result<(), RowError> {
    let (found, columns) = (prefix.len(), R::TABLE.key.len());
    if found <= usize::from(R::TABLE.per_tenant) || found >= columns {
        let problem =
            format!("and the rest begin with {found} values, of {columns} key columns; fix the type of the prefix");
        return Err(RowError::value::<R>(prefix, R::TABLE.key[0], problem));
    }
    check_key_values::<R>(prefix)
}

/// Checks the values of the first key columns.
fn check_key_values<R: ReadModel>(key: &[ColumnValue]) -> Result<(), RowError> {
    for (name, value) in R::TABLE.key.iter().zip(key) {
        let checked = match (R::TABLE.columns.iter().find(|column| column.name == *name), value) {
            // Two keys that differ in their nanoseconds only would be two rows here and one in the database.
            (_, ColumnValue::Timestamp(time)) if time.subsec_nanosecond() % 1_000 != 0 => {
                Err("is finer than the microseconds a key can have; round it".to_owned())
            }
            (Some(column), value) => check_value(column.column_type, false, value),
            (None, _) => Err("is no column of the table; fix the key of the table".to_owned()),
        };
        checked.map_err(|problem| RowError::value::<R>(key, name, problem))?;
    }
    check_length("key", R::TABLE.key.iter().copied().zip(key))
        .map_err(|(column, problem)| RowError::value::<R>(key, column, problem))
}

/// The first microsecond of PostgreSQL's `timestamptz`, counted from 1970.
pub(crate) const FIRST_MOMENT: i64 = -210_866_803_200_000_000;

/// What is wrong with text that holds U+0000: PostgreSQL has none, so SQLite does not take it either.
pub(crate) const NO_NUL: &str = "holds the character U+0000, which PostgreSQL cannot store; remove it";

/// What is wrong with a value for a column, as the rest of a sentence that begins with the column's name.
pub(crate) fn check_value(column_type: ColumnType, nullable: bool, value: &ColumnValue) -> Result<(), String> {
    match (column_type, value) {
        (_, ColumnValue::Refused(why)) => Err(why.to_string()),
        (_, ColumnValue::Null) if nullable => Ok(()),
        (_, ColumnValue::Null) => Err("is null, but not declared so; use an `Option`".to_owned()),
        (ColumnType::Text, ColumnValue::Text(text)) if text.contains('\0') => Err(NO_NUL.to_owned()),
        // What no database holds is refused by all, so that a read model can move from one to the other.
        (ColumnType::Timestamp, ColumnValue::Timestamp(time)) if time.as_microsecond() < FIRST_MOMENT => {
            Err("is before PostgreSQL's times begin, in the year -4713; use an `Option`, or text".to_owned())
        }
        (ColumnType::Integer, ColumnValue::Integer(_))
        | (ColumnType::Real, ColumnValue::Real(_))
        | (ColumnType::Text, ColumnValue::Text(_))
        | (ColumnType::Bool, ColumnValue::Bool(_))
        | (ColumnType::Timestamp, ColumnValue::Timestamp(_))
        | (ColumnType::Uuid, ColumnValue::Uuid(_))
        | (ColumnType::Bytes, ColumnValue::Bytes(_))
        | (ColumnType::Json, ColumnValue::Json(_)) => Ok(()),
        (expected, found) => {
            Err(format!("is declared {expected:?}, but the row gives {}; fix one of them", found.kind()))
        }
    }
}
