//! The text of a table's statements, made from identifiers that were checked before: one per size class, each made once.

use std::fmt::Write;
use std::sync::Arc;

use crate::column::{ColumnType, ColumnValue};
use crate::database::Model;
use crate::database::sql::{self, digest, list, quoted};
use crate::read_model::{ColumnSpec, IndexSpec, TableSpec};
use crate::reads::Select;

/// How many rows one statement carries at most: 2 to this power. A call costs a hop to SQLite's thread, so more rows a call
/// are better, until parsing and binding cost much more than the thread switch.
const LARGEST_CLASS: u32 = 8;

/// SQLite's limit on the `?` of a statement.
const MOST_VALUES: usize = 32_766;

/// Every statement of one table.
pub(super) struct Statements {
    pub(super) create_table: Arc<str>,
    /// Name and text of every index.
    pub(super) indexes: Vec<(String, Arc<str>)>,
    pub(super) drop_view: Arc<str>,
    pub(super) create_view: Arc<str>,
    /// The rows of some keys, and one more row if the checkpoint is where it must be: one statement sees both at one moment.
    /// The last column tells which.
    pub(super) load: SizedStatements,
    /// The rows of some keys as the stable name shows them. The last column is the version that it shows.
    pub(super) find: SizedStatements,
    pub(super) write: SizedStatements,
    pub(super) remove: SizedStatements,
    /// Removes the rows whose keys begin with the values of the key's first column, of its first two, and so on.
    pub(super) remove_by_prefix: Vec<SizedStatements>,
}

impl Statements {
    /// The caller has checked the table: every name in it is an identifier.
    pub(super) fn of(model: &Model) -> Self {
        let spec = model.table;
        let table = quoted(&model.table_name());
        let view = quoted(spec.name);
        let columns = list(spec.columns.iter().map(|column| column.name));
        let key = list(spec.key.iter().copied());
        let rest: Vec<String> = spec
            .columns
            .iter()
            .filter(|column| !spec.key.contains(&column.name))
            .map(|column| format!("{0} = excluded.{0}", quoted(column.name)))
            .collect();
        let update = match rest.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", rest.join(", ")),
        };
        // SQLite seeks each key of `IN` in the table's tree, for one column and for several. The rows go into a map, so
        // their order does not matter.
        let is_in = |columns: &[&str], n: usize| match columns {
            [column] => format!("{} IN ({})", quoted(column), repeated("?", n)),
            several => {
                let keys = repeated(&row_of(several.len()), n);
                format!("({}) IN (VALUES {keys})", list(several.iter().copied()))
            }
        };
        let remove = |columns: usize| {
            let key = &spec.key[..columns];
            SizedStatements::of(columns, |n| format!("DELETE FROM {table} WHERE {}", is_in(key, n)))
        };
        Self {
            create_table: create_table(&table, spec).into(),
            indexes: spec.indexes.iter().map(|index| create_index(model, &table, index)).collect(),
            drop_view: format!("DROP VIEW IF EXISTS {view}").into(),
            create_view: format!("CREATE VIEW {view} AS SELECT {columns} FROM {table}").into(),
            load: SizedStatements::of(spec.key.len(), |n| {
                let nulls = repeated("NULL", spec.columns.len());
                format!(
                    "SELECT {nulls}, 1 FROM annals_checkpoints \
                     WHERE projection = ? AND version = ? AND slot = ? AND owner_epoch = ? AND incarnation = ? \
                     AND position = ? AND event_id IS ? \
                     UNION ALL SELECT {columns}, 0 FROM {table} WHERE {}",
                    is_in(spec.key, n)
                )
            }),
            find: SizedStatements::of(spec.key.len(), |n| {
                let wanted = is_in(spec.key, n);
                format!("SELECT {}, {} FROM {view} AS t WHERE {wanted}", columns_of("t", spec), shown(spec))
            }),
            write: SizedStatements::of(spec.columns.len(), |n| {
                let rows = repeated(&row_of(spec.columns.len()), n);
                format!("INSERT INTO {table} ({columns}) VALUES {rows} ON CONFLICT ({key}) DO {update}")
            }),
            remove: remove(spec.key.len()),
            remove_by_prefix: (1..spec.key.len()).map(remove).collect(),
        }
    }
}

impl Statements {
    /// The rows that fit a condition, as the stable name shows them; the last column as in `find`. Its values are those of the
    /// user, and then the tenant.
    pub(super) fn select(model: &Model, select: &Select) -> Arc<str> {
        let spec = model.table;
        let columns = columns_of("r", spec);
        let rows = format!("SELECT {} FROM {} AS t", columns_of("t", spec), quoted(spec.name));
        sql::select(&format!("{columns}, {}", shown(spec)), &rows, select, select.values.len() + 1).into()
    }
}

/// The version that the stable name shows.
fn shown(spec: &TableSpec) -> String {
    format!("(SELECT n.version FROM annals_read_models AS n WHERE n.read_model = '{}')", spec.name)
}

/// The columns of what is called `name`. SQLite takes a bare name in quotes that is no column for a text.
fn columns_of(name: &str, spec: &TableSpec) -> String {
    let columns = spec.columns.iter().map(|column| format!("{name}.{}", quoted(column.name)));
    columns.collect::<Vec<_>>().join(", ")
}

/// One statement for each number of rows that is a power of two.
pub(super) struct SizedStatements(Vec<Arc<str>>);

impl SizedStatements {
    fn of(values_per_row: usize, text: impl Fn(usize) -> String) -> Self {
        let fits = |class: &u32| (values_per_row << class) <= MOST_VALUES;
        Self((0..=LARGEST_CLASS).filter(fits).map(|class| text(1 << class).into()).collect())
    }

    /// Cuts `rows` into pieces that have a statement each: as few as possible, every row exactly once.
    pub(super) fn exact<'a>(&self, mut rows: &'a [Vec<ColumnValue>]) -> Vec<(Arc<str>, Vec<&'a [ColumnValue]>)> {
        let mut pieces = Vec::new();
        while !rows.is_empty() {
            let class = (rows.len().ilog2() as usize).min(self.0.len() - 1);
            let (piece, rest) = rows.split_at(1 << class);
            pieces.push((Arc::clone(&self.0[class]), piece.iter().map(Vec::as_slice).collect()));
            rows = rest;
        }
        pieces
    }

    /// The same for keys, where saying one twice is harmless: the last piece is filled up by repeating its last key.
    pub(super) fn padded<'a>(&self, keys: &'a [Vec<ColumnValue>]) -> Vec<(Arc<str>, Vec<&'a [ColumnValue]>)> {
        let largest = 1 << (self.0.len() - 1);
        keys.chunks(largest)
            .map(|piece| {
                let class = piece.len().next_power_of_two().ilog2() as usize;
                let last = piece.len() - 1;
                let filled = (0..1 << class).map(|at: usize| piece[at.min(last)].as_slice()).collect();
                (Arc::clone(&self.0[class]), filled)
            })
            .collect()
    }
}

fn create_table(table: &str, spec: &TableSpec) -> String {
    let mut text = format!("CREATE TABLE {table} (");
    for column in spec.columns {
        let null = if column.nullable { "" } else { " NOT NULL" };
        write!(text, "{} {}{null}, ", quoted(column.name), sqlite_type(column)).expect("a string takes any text");
    }
    let key = list(spec.key.iter().copied());
    // Rows are small and always found by their key, so one tree is better than a table and an index.
    write!(text, "PRIMARY KEY ({key})) STRICT, WITHOUT ROWID").expect("a string takes any text");
    text
}

/// The index and its name, which follows from its columns alone, so that a changed declaration is a new index.
fn create_index(model: &Model, table: &str, index: &IndexSpec) -> (String, Arc<str>) {
    let name = format!("{}{:08x}", index_prefix(model), digest(index.columns.iter().copied()));
    let columns = list(index.columns.iter().copied());
    let text = format!("CREATE INDEX {} ON {table} ({columns})", quoted(&name));
    (name, text.into())
}

/// What the names of all our indexes of a table begin with.
pub(super) fn index_prefix(model: &Model) -> String {
    format!("{}_by_", model.table_name())
}

/// What SQLite calls the type of a column.
pub(super) fn sqlite_type(column: &ColumnSpec) -> &'static str {
    match column.column_type {
        ColumnType::Integer | ColumnType::Bool | ColumnType::Timestamp => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Text | ColumnType::Json => "TEXT",
        ColumnType::Uuid | ColumnType::Bytes => "BLOB",
    }
}

fn row_of(values: usize) -> String {
    format!("({})", repeated("?", values))
}

fn repeated(text: &str, times: usize) -> String {
    vec![text; times].join(", ")
}
