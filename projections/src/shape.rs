//! What a projection declares, as text: kept with the checkpoint, so that a changed declaration is noticed.

use annals_eventstore::Tenant;

use crate::column::ColumnType;
use crate::database::Model;
use crate::error::StartError;
use crate::read_model::{ColumnSpec, TableSpec};

/// The shape of a version: what its rows were built as, and from which events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The table as one line, `daily(day text, cents integer, note text null; key day)` say. Indexes do not count, as
    /// they can change without a rebuild.
    pub(crate) table: String,
    /// The stored names of the events that it wants, sorted, a line each, with their aggregate type behind a tab where only those of
    /// one are wanted. No name holds a control character.
    pub(crate) events: String,
    /// The only tenant whose events it wants.
    pub(crate) tenant: Option<String>,
    /// Into how many slots it is split; 1 if it is not.
    pub(crate) slots: u32,
}

impl Shape {
    pub(crate) fn of(table: &TableSpec, events: Vec<impl Into<String>>, tenant: Option<&Tenant>) -> Self {
        let mut events: Vec<String> = events.into_iter().map(Into::into).collect();
        events.sort_unstable();
        events.dedup();
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        Self { table: line(table), events: events.join("\n"), tenant, slots: 1 }
    }

    /// Checks that a version which was begun with the shape `stored` is still declared so.
    pub(crate) fn check(&self, model: &Model, stored: &Self) -> Result<(), StartError> {
        let Model { projection, version, .. } = *model;
        if self.table != stored.table {
            let (stored, declared) = (stored.table.clone(), self.table.clone());
            return Err(StartError::ShapeChanged { projection, version, stored, declared });
        }
        if self.events != stored.events {
            let only_in = |one: &Self, other: &Self| {
                one.events
                    .lines()
                    .filter(|name| !other.events.lines().any(|n| n == *name))
                    .map(|name| name.replace('\t', " of "))
                    .collect()
            };
            let (new, missing) = (only_in(self, stored), only_in(stored, self));
            return Err(StartError::EventsChanged { projection, version, new, missing });
        }
        if self.tenant != stored.tenant {
            let (stored, declared) = (stored.tenant.clone(), self.tenant.clone());
            return Err(StartError::TenantChanged { projection, version, stored, declared });
        }
        if self.slots != stored.slots {
            let (stored, declared) = (stored.slots, self.slots);
            return Err(StartError::SlotsChanged { projection, version, stored, declared });
        }
        Ok(())
    }
}

/// What rows of `table` need and a table of the shape `shown` has not, or has as something else.
pub(crate) fn unfit_columns(shown: &str, table: &TableSpec) -> Vec<String> {
    let (columns, key) = shown.split_once('(').and_then(|(_, rest)| rest.split_once("; ")).unwrap_or_default();
    let there = |name: &str| columns.split(", ").filter_map(|column| column.split_once(' ')).find(|(n, _)| *n == name);
    let unfit = |column: &ColumnSpec| {
        let here = kind_of(column);
        match there(column.name) {
            None => Some(format!("it has no column `{}`", column.name)),
            // A row whose field may be null can be read from a column that may not.
            Some((_, kind)) if kind == here || here.strip_suffix(" null") == Some(kind) => None,
            Some((_, kind)) => Some(format!("`{}` is {kind} there and {here} here", column.name)),
        }
    };
    let mut unfit: Vec<String> = table.columns.iter().filter_map(unfit).collect();
    let here = format!("key {})", table.key.join(", "));
    if key != here {
        let key = key.trim_start_matches("key ").trim_end_matches(')');
        unfit.push(format!("its key is `{key}` there and `{}` here", table.key.join(", ")));
    }
    unfit
}

/// What queries find in a table of the shape `shown` and would not find in `table`, or find as something else.
pub(crate) fn lost_columns(shown: &str, table: &TableSpec) -> Vec<String> {
    let columns = shown.split_once('(').and_then(|(_, rest)| rest.split_once(';'));
    let columns = columns.map_or("", |(columns, _)| columns);
    let lost = |shown: &str| {
        let (name, kind) = shown.split_once(' ')?;
        let Some(now) = table.columns.iter().find(|column| column.name == name) else {
            return Some(format!("`{name}` is gone"));
        };
        let now = kind_of(now);
        // A query that reads a column that may be null can read one that may not.
        let same = kind == now || kind.strip_suffix(" null") == Some(now.as_str());
        (!same).then(|| format!("`{name}` was {kind} and is {now}"))
    };
    columns.split(", ").filter_map(lost).collect()
}

fn line(table: &TableSpec) -> String {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("{} {}", column.name, kind_of(column))).collect();
    format!("{}({}; key {})", table.name, columns.join(", "), table.key.join(", "))
}

fn kind_of(column: &ColumnSpec) -> String {
    let null = if column.nullable { " null" } else { "" };
    format!("{}{null}", type_word(column.column_type))
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
