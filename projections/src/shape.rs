//! What a table looks like, as text: kept with the checkpoint, so that a changed declaration is noticed.

use crate::column::ColumnType;
use crate::read_model::{ColumnSpec, TableSpec};

/// The table as one line, `daily(day text, cents integer, note text null; key day)` say. Indexes do not count, as they can
/// change without a rebuild.
pub(crate) fn shape(table: &TableSpec) -> String {
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    format!("{}({}; key {})", table.name, columns.join(", "), table.key.join(", "))
}

fn column(column: &ColumnSpec) -> String {
    let null = if column.nullable { " null" } else { "" };
    format!("{} {}{null}", column.name, type_word(column.column_type))
}

/// These words are stored; they never change.
fn type_word(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Integer => "integer",
        ColumnType::Real => "real",
        ColumnType::Text => "text",
        ColumnType::Bool => "bool",
        ColumnType::Timestamp => "timestamp",
        ColumnType::Uuid => "uuid",
        ColumnType::Bytes => "bytes",
        ColumnType::Json => "json",
    }
}
