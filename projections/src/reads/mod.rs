//! Reading rows of read models by their stable names, in the types of the rows.

mod find;
mod run;
mod select;
#[cfg(test)]
mod tests;
mod text;
mod tokens;
mod types;
mod value;

use annals_eventstore::Tenant;

use crate::column::{ColumnType, ColumnValue};
use crate::database::Model;
pub(crate) use find::{not_per_tenant, per_tenant};
pub(crate) use run::Reads;
pub use value::QueryValue;
pub(crate) use value::checked;

/// What is asked of a database.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Query<'a> {
    /// The rows of some keys, whose values are in the order of the table's key columns. There is at least one key, and
    /// none is there twice.
    Keys(&'a [Vec<ColumnValue>]),
    /// The rows that fit a condition.
    Select(&'a Select),
}

impl Query<'_> {
    /// Whose rows are asked for, where they are those of one tenant.
    pub(crate) fn tenant(&self, model: &Model) -> Option<Tenant> {
        match self {
            Self::Select(select) => select.tenant.clone(),
            // The key of a row of a tenant begins with it.
            Self::Keys(keys) if model.table.per_tenant => match keys.first()?.first()? {
                ColumnValue::Text(tenant) => Tenant::new(tenant.as_ref()).ok(),
                _ => None,
            },
            Self::Keys(_) => None,
        }
    }
}

/// A query by a condition. Its columns are those of `r`, which has the rows of the tenant alone, if there is one; its
/// values are `$1` and so on.
#[derive(Clone, Debug)]
pub(crate) struct Select {
    /// Empty if every row is wanted.
    pub(crate) condition: String,
    /// What follows `ORDER BY`.
    pub(crate) order: String,
    /// `LIMIT` with its number, and `OFFSET`.
    pub(crate) limit: String,
    pub(crate) values: Vec<(ColumnType, ColumnValue)>,
    pub(crate) tenant: Option<Tenant>,
}
