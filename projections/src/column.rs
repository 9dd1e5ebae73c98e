//! Columns: what one field of a row is in a database, whichever engine it is.

use std::fmt;
use std::sync::Arc;

use annals_eventstore::Payload;
use jiff::Timestamp;
use uuid::Uuid;

use crate::changes::check_value;
use crate::column_types::moment;

/// A type that a column of a read model can hold.
///
/// Implemented for `i16`, `i32`, `i64`, `u8`, `u16`, `u32`, `bool`, `f64`, `String`, `Arc<str>`, [`Timestamp`],
/// [`jiff::civil::Date`], [`Uuid`], `Vec<u8>`, and for an `Option` of each, which makes the column nullable. For an id or an
/// enum of your own that serde writes as text, use [`text_column!`](crate::text_column).
///
/// # Obligations on the implementer
/// `from_column(value.to_column())` gives an equal value, and `to_column` gives a value of [`Column::TYPE`], or
/// [`ColumnValue::Null`] if [`Column::NULLABLE`], or [`ColumnValue::Refused`] for what no database can hold. Equal values
/// have equal columns.
///
/// Text, bytes and JSON may be of any length, but not in a key or an index:
/// [`TableSpec::MAX_INDEXED_BYTES`](crate::TableSpec::MAX_INDEXED_BYTES).
///
/// ```
/// use annals_projections::{Column, ColumnError, ColumnType, ColumnValue};
///
/// #[derive(Debug, PartialEq)]
/// struct Cents(i64);
///
/// impl Column for Cents {
///     const TYPE: ColumnType = ColumnType::Integer;
///
///     fn to_column(&self) -> ColumnValue {
///         self.0.to_column()
///     }
///
///     fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
///         i64::from_column(value).map(Self)
///     }
/// }
///
/// assert_eq!(Cents::from_column(Cents(450).to_column()), Ok(Cents(450)));
/// let wrong = Cents::from_column(ColumnValue::Bool(true)).unwrap_err();
/// assert_eq!((wrong.expected.as_str(), wrong.found.as_str()), ("an integer", "a bool"));
/// ```
#[diagnostic::on_unimplemented(
    message = "a column cannot hold the type `{Self}`",
    label = "no type of a column",
    note = "for `u64` and `usize` use `i64` or `u32`, as integers of a database have 64 bits with a sign; for `f32` use `f64`, for `char` use `String`",
    note = "a type that serde writes as a string, as ids and plain enums: `#[column(text)]` on a field that is not in the key; or, if the type is your own, `annals::projections::text_column!(..)`",
    note = "anything else that serde writes: `#[column(json)]` on a field that is not in the key"
)]
pub trait Column: Sized {
    /// What the column holds.
    const TYPE: ColumnType;
    /// Whether the column may be null; only an `Option` is, unless said otherwise.
    const NULLABLE: bool = false;

    /// The value for the database.
    fn to_column(&self) -> ColumnValue;

    /// Reads the value back.
    ///
    /// # Errors
    /// [`ColumnError`] if the value is not of this type or out of its range.
    fn from_column(value: ColumnValue) -> Result<Self, ColumnError>;

    /// Makes the value the one that a table gives back for it, a time in whole microseconds say. An event finds a row that an
    /// earlier one has changed in this form, so that it does not matter whether the row was stored in between.
    ///
    /// The provided method takes the way through [`ColumnValue`]; a type may take a shorter one to the same value.
    ///
    /// # Errors
    /// [`ColumnError`] if no table can hold the value, or it cannot be read back.
    fn normalize(&mut self) -> Result<(), ColumnError> {
        let value = self.to_column();
        check_value(Self::TYPE, Self::NULLABLE, &value).map_err(ColumnError::unfit)?;
        *self = Self::from_column(value.normal())?;
        Ok(())
    }
}

/// What a column holds. In brackets: SQLite, PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnType {
    /// A whole number of 64 bits (`INTEGER`, `bigint`).
    Integer,
    /// A floating point number of 64 bits, never NaN, and with one zero (`REAL`, `double precision`).
    Real,
    /// Text without U+0000, compared byte for byte (`TEXT`, `text`).
    Text,
    /// True or false (`INTEGER` 1 or 0, `boolean`).
    Bool,
    /// A moment in whole microseconds (`INTEGER` since 1970, `timestamptz`). Finer parts are cut off; moments before the year
    /// -4713 are refused.
    Timestamp,
    /// A UUID (`BLOB` of 16 bytes, `uuid`).
    Uuid,
    /// Bytes (`BLOB`, `bytea`).
    Bytes,
    /// JSON text under the rules of event payloads, written as PostgreSQL writes `jsonb` (`TEXT`, `jsonb`).
    Json,
}

/// One value on its way into a database or out of it. Cloning is cheap. Two are equal if a database would keep the
/// same.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ColumnValue {
    /// No value.
    Null,
    /// Of [`ColumnType::Integer`].
    Integer(i64),
    /// Of [`ColumnType::Real`].
    Real(f64),
    /// Of [`ColumnType::Text`].
    Text(Arc<str>),
    /// Of [`ColumnType::Bool`].
    Bool(bool),
    /// Of [`ColumnType::Timestamp`].
    Timestamp(Timestamp),
    /// Of [`ColumnType::Uuid`].
    Uuid(Uuid),
    /// Of [`ColumnType::Bytes`].
    Bytes(Arc<[u8]>),
    /// Of [`ColumnType::Json`]: the JSON text.
    Json(Arc<str>),
    /// What no database can hold, and why. A row with such a value is not written; its projection stops with the reason.
    Refused(Arc<str>),
}

impl ColumnValue {
    /// A value that cannot be stored; `why` is the rest of a sentence that begins with the column's name.
    pub fn refused(why: impl Into<Arc<str>>) -> Self {
        Self::Refused(why.into())
    }

    /// The value as every database gives it back.
    pub(crate) fn normal(self) -> Self {
        match self {
            Self::Timestamp(time) => Self::Timestamp(moment(time.as_microsecond()).unwrap_or(time)),
            // SQLite keeps whole reals as integers and so loses the sign of zero.
            Self::Real(0.0) => Self::Real(0.0),
            // A payload has the text that PostgreSQL's `jsonb` writes; what is none is refused elsewhere.
            Self::Json(json) => match Payload::from_json(&json) {
                Ok(normal) if normal.as_str() != &*json => Self::Json(normal.as_str().into()),
                _ => Self::Json(json),
            },
            value => value,
        }
    }

    /// About how many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 16,
        }
    }

    /// What the value is, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real number",
            Self::Text(_) => "text",
            Self::Bool(_) => "a bool",
            Self::Timestamp(_) => "a timestamp",
            Self::Uuid(_) => "a UUID",
            Self::Bytes(_) => "bytes",
            Self::Json(_) => "JSON",
            Self::Refused(_) => "a refused value",
        }
    }
}

/// About how many bytes rows have.
pub(crate) fn bytes_of(rows: &[Vec<ColumnValue>]) -> usize {
    rows.iter().flatten().map(ColumnValue::bytes).sum()
}

/// Two values are equal if a database would keep the same; numbers are compared by their bits, so that every value equals
/// itself.
impl PartialEq for ColumnValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) | (Self::Json(a), Self::Json(b)) | (Self::Refused(a), Self::Refused(b)) => {
                a == b
            }
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a.as_microsecond() == b.as_microsecond(),
            (Self::Uuid(a), Self::Uuid(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for ColumnValue {}

/// Shown in error messages: text in quotes, bytes by their number.
impl fmt::Display for ColumnValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Integer(n) => n.fmt(f),
            Self::Real(n) => n.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bool(b) => b.fmt(f),
            Self::Timestamp(t) => t.fmt(f),
            Self::Uuid(id) => id.fmt(f),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Json(json) => json.fmt(f),
            Self::Refused(why) => write!(f, "(refused: {why})"),
        }
    }
}

/// Why a value from a database is not what the row's field holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` should be {expected}, but is {found}")]
pub struct ColumnError {
    /// The column; empty until the row's type has named it.
    pub column: String,
    /// What the field's type needs.
    pub expected: String,
    /// What the database gave.
    pub found: String,
}

impl ColumnError {
    /// A value that is not `expected` but `found`; both are ends of a sentence, `an integer` say.
    pub fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { column: String::new(), expected: expected.into(), found: found.into() }
    }

    /// A value of another kind than `expected`. Its content is not shown.
    #[must_use]
    pub fn mismatch(expected: impl Into<String>, found: &ColumnValue) -> Self {
        Self::new(expected, found.kind())
    }

    /// A value that no table can hold.
    pub(crate) fn unfit(problem: impl Into<String>) -> Self {
        Self::new("a value that a table can hold", problem)
    }

    /// The same error about the column called `column`.
    #[must_use]
    pub fn in_column(mut self, column: &str) -> Self {
        column.clone_into(&mut self.column);
        self
    }
}

/// The next value of a row, for the field whose column is called `column`.
///
/// # Errors
/// [`ColumnError`] if the row has no more values.
pub fn next_column(columns: &mut dyn Iterator<Item = ColumnValue>, column: &str) -> Result<ColumnValue, ColumnError> {
    columns.next().ok_or_else(|| ColumnError::new("a value", "missing").in_column(column))
}
