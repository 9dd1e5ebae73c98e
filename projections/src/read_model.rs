//! Read models: what a row is, and its table.

use std::hash::Hash;

use crate::changes::check_value;
use crate::column::{Column, ColumnError, ColumnType, ColumnValue};

/// A row of a read model. Derive it; `#[derive(ReadModel)]` has the words.
///
/// # Obligations on the implementer
/// `to_columns` gives one value per column of [`ReadModel::TABLE`], in their order; `from_columns` of them gives an equal
/// row; `key` gives the values of the key columns. All of them are pure. Where the table is per tenant, all three leave out
/// the column `tenant`.
///
/// Keys and indexed columns are short: a row with more than [`TableSpec::MAX_INDEXED_BYTES`] in its key or in the columns of
/// an index stops its projection, on every database.
///
/// ```
/// use annals_macros::ReadModel;
/// use annals_projections::{ColumnValue, ReadModel};
///
/// #[derive(ReadModel, Clone)]
/// #[read_model(table = "takings", key("shop", "till"))]
/// struct Takings {
///     shop: String,
///     till: u32,
///     cents: i64,
/// }
///
/// let row = Takings { shop: "north".into(), till: 2, cents: 4_50 };
/// assert_eq!(row.key(), ("north".to_owned(), 2));
/// assert_eq!(row.to_columns()[2], ColumnValue::Integer(450));
/// assert_eq!(Takings::TABLE.key, ["shop", "till"]);
/// ```
pub trait ReadModel: Clone + Send + Sync + 'static {
    /// What names one row: the type of the key column, or a tuple of their types in the order of the table's key.
    type Key: RowKey;
    /// The table.
    const TABLE: &'static TableSpec;

    /// The row's key.
    fn key(&self) -> Self::Key;

    /// The row's values, in the order of the table's columns.
    fn to_columns(&self) -> Vec<ColumnValue>;

    /// Reads a row from its values, in the order of the table's columns.
    ///
    /// # Errors
    /// [`ColumnError`] naming the column whose value does not fit.
    fn from_columns(columns: &mut dyn Iterator<Item = ColumnValue>) -> Result<Self, ColumnError>;

    /// Makes the row the one that its table gives back for it; see [`Column::normalize`]. The derive asks each field; the
    /// provided method takes the way through the values.
    ///
    /// # Errors
    /// [`ColumnError`] naming the column that cannot hold its value, or give it back.
    fn normalize(&mut self) -> Result<(), ColumnError> {
        let columns = self.to_columns();
        for (spec, value) in Self::TABLE.row_columns().iter().zip(&columns) {
            check_value(spec.column_type, spec.nullable, value)
                .map_err(|problem| ColumnError::unfit(problem).in_column(spec.name))?;
        }
        *self = Self::from_columns(&mut columns.into_iter().map(ColumnValue::normal))?;
        Ok(())
    }
}

/// What names one row of a read model: a [`Column`] type that is not nullable and can be compared and hashed, or a
/// tuple of two to six of them. It is implemented for all of these, and open to implement for a struct of yours that names
/// the parts of a key; `ReadModel` is then written by hand too.
///
/// # Obligations on the implementer
/// Equal keys give equal values and different keys different ones, none of them null. As many values of such types as the
/// table has key columns, in their order: the runner stops a projection whose key gives others.
#[diagnostic::on_unimplemented(
    message = "a row cannot be named by the type `{Self}`",
    label = "no type of a key",
    note = "the type of a key column implements `Column`, `Eq` and `Hash`; for an id or a plain enum of your own write `annals::projections::text_column!(..)`, for `u64` use `i64` or `u32`, for `char` use `String`"
)]
pub trait RowKey: Eq + Hash + Clone + Send + Sync + 'static {
    /// The key's values, in the order of the table's key columns.
    fn to_columns(&self) -> Vec<ColumnValue>;
}

impl<T: Column + Eq + Hash + Clone + Send + Sync + 'static> RowKey for T {
    fn to_columns(&self) -> Vec<ColumnValue> {
        vec![self.to_column()]
    }
}

/// What keys of the type `K` begin with: the first column of a tuple of several, or a tuple of its first two and so on;
/// [`Rows::remove_by_prefix`](crate::Rows::remove_by_prefix) has an example.
///
/// # Obligations on the implementer
/// The values are those which [`RowKey::to_columns`] of a key gives first.
#[diagnostic::on_unimplemented(
    message = "no key of the type `{K}` begins with the type `{Self}`",
    label = "not what such a key begins with",
    note = "it is the type of the first column of a key of several, or a tuple of the types of its first columns, but not of all"
)]
pub trait RowKeyPrefix<K: RowKey> {
    /// The values, in the order of the table's key columns.
    fn to_columns(&self) -> Vec<ColumnValue>;
}

macro_rules! key_prefix {
    ($($name:ident $index:tt),+; $($rest:ident),+) => {
        impl<$($name: Part,)+ $($rest: Part),+> RowKeyPrefix<($($name,)+ $($rest,)+)> for ($($name,)+) {
            fn to_columns(&self) -> Vec<ColumnValue> {
                vec![$(self.$index.to_column()),+]
            }
        }
    };
}

macro_rules! first_of_key {
    ($($rest:ident),+) => {
        impl<First: Part, $($rest: Part),+> RowKeyPrefix<(First, $($rest,)+)> for First {
            fn to_columns(&self) -> Vec<ColumnValue> {
                vec![self.to_column()]
            }
        }
    };
}

macro_rules! tuple_key {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Part),+> RowKey for ($($name,)+) {
            fn to_columns(&self) -> Vec<ColumnValue> {
                vec![$(self.$index.to_column()),+]
            }
        }
    };
}

/// What a key can be made of.
pub trait Part: Column + Eq + Hash + Clone + Send + Sync + 'static {}

impl<T: Column + Eq + Hash + Clone + Send + Sync + 'static> Part for T {}

tuple_key!(A 0, B 1);
tuple_key!(A 0, B 1, C 2);
tuple_key!(A 0, B 1, C 2, D 3);
tuple_key!(A 0, B 1, C 2, D 3, E 4);
tuple_key!(A 0, B 1, C 2, D 3, E 4, F 5);

first_of_key!(B);
first_of_key!(B, C);
first_of_key!(B, C, D);
first_of_key!(B, C, D, E);
first_of_key!(B, C, D, E, F);
key_prefix!(A 0, B 1; C);
key_prefix!(A 0, B 1; C, D);
key_prefix!(A 0, B 1; C, D, E);
key_prefix!(A 0, B 1; C, D, E, F);
key_prefix!(A 0, B 1, C 2; D);
key_prefix!(A 0, B 1, C 2; D, E);
key_prefix!(A 0, B 1, C 2; D, E, F);
key_prefix!(A 0, B 1, C 2, D 3; E);
key_prefix!(A 0, B 1, C 2, D 3; E, F);
key_prefix!(A 0, B 1, C 2, D 3, E 4; F);

/// The table of a read model. The derive makes it; [`ReadModel`] has an example.
///
/// Every name in it is made of lower-case letters, digits and `_`, begins with a letter and has at most
/// [`TableSpec::MAX_NAME`] characters; the derive checks that, and a runner checks it again before it builds any SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// The stable name under which users query it.
    pub name: &'static str,
    /// The columns, in the order in which they are created, written and read.
    pub columns: &'static [ColumnSpec],
    /// The columns that name a row: the primary key. Never nullable.
    pub key: &'static [&'static str],
    /// Further indexes. They may change without a new version of the projection.
    pub indexes: &'static [IndexSpec],
    /// Whether each row belongs to the tenant of the events that it was made of. The first column is then `tenant`, text
    /// and not null, and so is the first column of the key and of each index. It is no part of the row's type: the runner
    /// fills it from the event, and a fold sees the rows of that tenant alone.
    pub per_tenant: bool,
}

/// The column of a table per tenant that says whose its rows are.
pub(crate) const TENANT: &str = "tenant";

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
}

/// An index on some columns of a table, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    /// The columns.
    pub columns: &'static [&'static str],
}

/// Why a table cannot be created as it is declared. Fix the declaration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("table `{}`: {problem}", table.escape_debug())]
pub struct SpecError {
    /// The table.
    pub table: String,
    /// What is wrong, and what to do instead.
    pub problem: String,
}

impl TableSpec {
    /// The longest name of a table, column or projection, in characters: PostgreSQL cuts names at 63 bytes, and ours
    /// get suffixes.
    pub const MAX_NAME: usize = 48;
    /// The most columns of a table; a row must fit into one statement many times over.
    pub const MAX_COLUMNS: usize = 100;
    /// The most bytes of a key, and of the columns of each index, in one row: what PostgreSQL surely takes, so that no
    /// database takes more. Text and bytes count their length, JSON four times the length of its text, a null nothing, any
    /// other value 16; each column but the first counts 8 more.
    pub const MAX_INDEXED_BYTES: usize = 2_600;

    /// The columns of a row's type: without the tenant, if the table is per tenant.
    pub(crate) fn row_columns(&self) -> &'static [ColumnSpec] {
        if self.per_tenant { self.columns.get(1..).unwrap_or_default() } else { self.columns }
    }

    /// The places of the key columns among the columns, in the key's order.
    pub(crate) fn key_places(&self) -> Vec<usize> {
        self.key.iter().filter_map(|key| self.columns.iter().position(|column| column.name == *key)).collect()
    }

    /// Whether an index has a column whose values have no fixed length.
    pub(crate) fn indexes_vary(&self) -> bool {
        let varies = |name: &str| {
            let column = self.columns.iter().find(|column| column.name == name);
            column.is_some_and(|c| matches!(c.column_type, ColumnType::Text | ColumnType::Bytes | ColumnType::Json))
        };
        self.indexes.iter().any(|index| index.columns.iter().any(|name| varies(name)))
    }

    /// Checks that the declaration is whole and its names are safe in SQL.
    ///
    /// # Errors
    /// [`SpecError`] naming the first thing that is wrong, and what to do instead.
    pub fn check(&self) -> Result<(), SpecError> {
        let wrong = |problem: String| Err(SpecError { table: self.name.to_owned(), problem });
        if !is_identifier(self.name) {
            return wrong(format!("its name cannot be used in SQL; {NAME_RULE}"));
        }
        if let Some(taken) = ["sqlite_", "annals_", "pg_"].iter().find(|taken| self.name.starts_with(**taken)) {
            return wrong(format!("its name begins with `{taken}`, which is taken; choose another"));
        }
        if self.columns.is_empty() || self.columns.len() > Self::MAX_COLUMNS {
            return wrong(format!("has {} columns; declare 1 to {}", self.columns.len(), Self::MAX_COLUMNS));
        }
        for (at, column) in self.columns.iter().enumerate() {
            if !is_identifier(column.name) {
                let name = column.name.escape_debug();
                return wrong(format!("the column's name `{name}` cannot be used in SQL; {NAME_RULE}"));
            }
            if SYSTEM_COLUMNS.contains(&column.name) {
                let name = column.name;
                return wrong(format!(
                    "the column's name `{name}` is one that PostgreSQL adds to every table; rename it"
                ));
            }
            if self.columns[..at].iter().any(|earlier| earlier.name == column.name) {
                return wrong(format!("column `{}` is declared twice; rename one", column.name));
            }
        }
        if self.key.is_empty() {
            return wrong("has no key; name the column or columns that name a row".to_owned());
        }
        for (at, key) in self.key.iter().enumerate() {
            match self.columns.iter().find(|column| column.name == *key) {
                None => return wrong(format!("the key names `{key}`, which is no column; name a column")),
                Some(column) if column.nullable => {
                    return wrong(format!(
                        "the key column `{key}` may be null; keys need a type that is not an `Option`"
                    ));
                }
                Some(_) if self.key[..at].contains(key) => {
                    return wrong(format!("the key names `{key}` twice; name it once"));
                }
                Some(_) => {}
            }
        }
        if self.per_tenant {
            let tenant = ColumnSpec { name: TENANT, column_type: ColumnType::Text, nullable: false };
            let mut first = self.indexes.iter().map(|index| index.columns.first()).chain([self.key.first()]);
            if self.columns.first() != Some(&tenant) || first.any(|first| first != Some(&TENANT)) {
                return wrong(format!(
                    "is per tenant, but `{TENANT}`, text and never null, is not the first column of the table, of its key and of each index; put it there"
                ));
            }
            if self.columns.len() == 1 || self.key.len() == 1 {
                return wrong(format!(
                    "is per tenant, but has no key beside `{TENANT}`; name what names a row of one tenant"
                ));
            }
        }
        for index in self.indexes {
            if index.columns.is_empty() {
                return wrong("has an index on no column; name its columns".to_owned());
            }
            if let Some(name) = index.columns.iter().find(|name| !self.columns.iter().any(|c| c.name == **name)) {
                return wrong(format!("an index names `{name}`, which is no column; name a column"));
            }
        }
        Ok(())
    }
}

/// Columns that PostgreSQL adds to every table. So SQLite does not take them either.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// Whether `name` can be used in SQL of every engine, quoted or not by accident: `[a-z][a-z0-9_]*`, not too long.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.len() <= TableSpec::MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// What to do about a name that is not an identifier.
pub(crate) const NAME_RULE: &str =
    "use lower-case letters, digits and `_`, beginning with a letter, at most 48 characters";

const _: () = assert!(TableSpec::MAX_NAME == 48, "the rule says so");
