//! Values of a query.

use crate::changes::check_value;
use crate::column::{Column, ColumnType, ColumnValue};
use crate::column_types::text;

/// A value of a query by [`Projections::select`](crate::Projections::select): every [`Column`] type, and `&str`.
///
/// References to values of different types make one list: `&[&Status::Paid, &500, &"ann"]`. Where there is a reference already,
/// it is given itself: `&[status]`.
#[diagnostic::on_unimplemented(
    message = "the type `{Self}` cannot be a value of a query",
    label = "no type of a value",
    note = "values are those that columns hold; for an id or a plain enum write `annals::projections::text_column!({Self});`",
    note = "of a reference give no reference: `&[id]`, not `&[&id]`",
    note = "integers of a database have 64 bits with a sign: use `i64` or `u32` for `u64` and `usize`"
)]
pub trait QueryValue: Sync {
    /// What a column of this type holds.
    fn column_type(&self) -> ColumnType;

    /// The value for the database.
    fn to_value(&self) -> ColumnValue;
}

impl<T: Column + Sync> QueryValue for T {
    fn column_type(&self) -> ColumnType {
        T::TYPE
    }

    fn to_value(&self) -> ColumnValue {
        self.to_column()
    }
}

impl QueryValue for &str {
    fn column_type(&self) -> ColumnType {
        ColumnType::Text
    }

    fn to_value(&self) -> ColumnValue {
        text((*self).into())
    }
}

/// The values with their types, as a database holds them; else what is wrong with which.
pub(crate) fn checked(values: &[&dyn QueryValue]) -> Result<Vec<(ColumnType, ColumnValue)>, (usize, String)> {
    let checked = |(at, value): (usize, &&dyn QueryValue)| {
        let (column_type, value) = (value.column_type(), value.to_value());
        match check_value(column_type, true, &value) {
            Ok(()) => Ok((column_type, value.normal())),
            Err(problem) => Err((at + 1, problem)),
        }
    };
    values.iter().enumerate().map(checked).collect()
}
