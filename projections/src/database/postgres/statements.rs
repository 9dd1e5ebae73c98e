//! The text of a table's statements, made once from identifiers that were checked before.
//!
//! Values travel as one array per column, so a statement is the same whatever the number of rows.

use std::fmt::Write;
use std::sync::Arc;

use crate::column::ColumnType;
use crate::database::Model;
use crate::database::sql::{self, digest, list, quoted};
use crate::read_model::{ColumnSpec, IndexSpec, TableSpec};
use crate::reads::Select;

/// Every statement of one table. All names in them are qualified, so they mean the same on every connection.
pub(super) struct Statements {
    pub(super) create_table: Arc<str>,
    pub(super) indexes: Vec<Index>,
    pub(super) view: View,
    /// The rows of some keys (an array per key column), and one more row if the checkpoint is where it must be: one
    /// statement sees both at one moment. The last column tells which.
    pub(super) load: Arc<str>,
    /// The rows of some keys as the stable name shows them: an array per key column, and then the schema. The last column is
    /// the version that it shows.
    pub(super) find: Arc<str>,
    /// Writes rows: an array per column.
    pub(super) write: Arc<str>,
    /// Removes the rows of some keys: an array per key column.
    pub(super) remove: Arc<str>,
    /// Removes the rows whose keys begin with the values of the key's first column, of its first two, and so on.
    pub(super) remove_by_prefix: Vec<Arc<str>>,
    /// [`Statements::write`] before and behind the place where `FROM` begins, for statements that do more.
    write_into: String,
    on_conflict: String,
    spec: &'static TableSpec,
}

/// An index, and how it is made: in a transaction, or beside those that write to the table.
pub(super) struct Index {
    pub(super) name: String,
    pub(super) create: Arc<str>,
    pub(super) create_beside: Arc<str>,
    pub(super) drop_beside: Arc<str>,
}

/// The view of a read model's stable name.
pub(super) struct View {
    pub(super) drop: Arc<str>,
    pub(super) create: Arc<str>,
    /// Its name, qualified.
    pub(super) name: String,
    table: String,
}

impl View {
    /// Keeps what others were allowed to do with the view, but can only add columns behind those that it has.
    pub(super) fn replace(&self, columns: &str) -> String {
        format!("CREATE OR REPLACE VIEW {} AS SELECT {columns} FROM {}", self.name, self.table)
    }
}

impl Statements {
    /// The caller has checked the table: every name in it is an identifier. The schema's name may be anything.
    pub(super) fn of(schema: &str, model: &Model) -> Self {
        let spec = model.table;
        let table = qualified(schema, &model.table_name());
        let view = qualified(schema, spec.name);
        let columns = list(spec.columns.iter().map(|column| column.name));
        let key = list(spec.key.iter().copied());
        let rest: Vec<String> = spec
            .columns
            .iter()
            .filter(|column| !spec.key.contains(&column.name))
            .map(|column| format!("{0} = excluded.{0}", quoted(column.name)))
            .collect();
        let on_conflict = match rest.is_empty() {
            true => format!(" ON CONFLICT ({key}) DO NOTHING"),
            false => format!(" ON CONFLICT ({key}) DO UPDATE SET {}", rest.join(", ")),
        };
        let given: Vec<String> = spec.columns.iter().map(|column| from_array(column, "given")).collect();
        let write_into = format!("INSERT INTO {table} ({columns}) SELECT {} FROM ", given.join(", "));
        let write = format!("{write_into}{}{on_conflict}", unnested(spec.columns.iter(), 1, "given"));
        // By place, because a DELETE that joins the keys may as well read the whole table and look for keys in it.
        let remove = |columns: usize| -> Arc<str> {
            let sought = sought(&table, spec, &spec.key[..columns], "t.ctid");
            format!("DELETE FROM {table} WHERE ctid = ANY (ARRAY({sought}))").into()
        };
        Self {
            create_table: create_table(&table, spec).into(),
            indexes: spec.indexes.iter().map(|index| index_of(model, schema, &table, index)).collect(),
            load: load(&table, spec).into(),
            find: find(&view, spec).into(),
            write: write.into(),
            remove: remove(spec.key.len()),
            remove_by_prefix: (1..spec.key.len()).map(remove).collect(),
            view: View {
                drop: format!("DROP VIEW {view}").into(),
                create: format!("CREATE VIEW {view} AS SELECT {columns} FROM {table}").into(),
                name: view,
                table: table.clone(),
            },
            write_into,
            on_conflict,
            spec,
        }
    }

    /// [`Statements::write`] as a part of a statement whose parameters so far end before `$first`. It writes only if the
    /// common table expression `moved` has a row.
    pub(super) fn write_if(&self, moved: &str, first: usize) -> String {
        let given = unnested(self.spec.columns.iter(), first, "given");
        format!("{}{moved} CROSS JOIN {given}{}", self.write_into, self.on_conflict)
    }
}

impl Statements {
    /// The rows that fit a condition, as the stable name shows them; the last column as in `find`. Its values are those of the
    /// user, the schema, and then the tenant.
    pub(super) fn select(&self, select: &Select) -> Arc<str> {
        let values = select.values.len();
        let columns = results_of("r", self.spec, values + 1);
        let inner: Vec<String> = self.spec.columns.iter().map(|column| format!("t.{}", quoted(column.name))).collect();
        let rows = format!("SELECT {} FROM {} AS t", inner.join(", "), self.view.name);
        sql::select(&columns, &rows, select, values + 2).into()
    }
}

fn find(view: &str, spec: &TableSpec) -> String {
    sought(view, spec, spec.key, &results_of("t", spec, spec.key.len() + 1))
}

/// The columns of what is called `name` as they are read, and the version that the stable name shows. `$schema` is the schema.
fn results_of(name: &str, spec: &TableSpec, schema: usize) -> String {
    let columns = spec.columns.iter().map(|column| to_result(name, column));
    let shown = format!(
        "(SELECT n.version FROM annals.read_models AS n WHERE n.read_schema = ${schema} AND n.read_model = '{}')",
        spec.name
    );
    columns.chain([shown]).collect::<Vec<_>>().join(", ")
}

/// Seeks the rows whose keys begin with the values of the columns `key` in the table's tree. A subquery with an `OFFSET` is run once per key; where scans of whole
/// tables are switched off, nothing but the primary key is left to find rows with, whatever the statistics say.
fn sought(table: &str, spec: &TableSpec, key: &[&str], wanted: &str) -> String {
    let key = || key.iter().filter_map(|key| spec.columns.iter().find(|column| column.name == *key));
    let same: Vec<String> =
        key().map(|column| format!("t.{0} = {1}", quoted(column.name), from_array(column, "wanted"))).collect();
    format!(
        "SELECT found.* FROM {} CROSS JOIN LATERAL (SELECT {wanted} FROM {table} AS t WHERE {} OFFSET 0) AS found",
        unnested(key(), 1, "wanted"),
        same.join(" AND "),
    )
}

fn load(table: &str, spec: &TableSpec) -> String {
    let out: Vec<String> =
        spec.columns.iter().map(|column| to_result("t", column)).chain(["false".to_owned()]).collect();
    format!(
        "{} UNION ALL SELECT {}true FROM annals.checkpoints WHERE {}",
        sought(table, spec, spec.key, &out.join(", ")),
        "NULL, ".repeat(spec.columns.len()),
        at_place(spec.key.len() + 1)
    )
}

/// The condition on a checkpoint's row, with parameters from `$first` on: whose it is, by which owner, and where it must be.
pub(super) fn at_place(first: usize) -> String {
    let [a, b, c, d, e, f, g, h]: [usize; PLACE_PARAMETERS] = std::array::from_fn(|n| first + n);
    format!(
        "read_schema = ${a} AND projection = ${b} AND version = ${c} AND slot = ${d} AND owner_epoch = ${e} \
         AND incarnation = ${f} AND position = ${g} AND event_id IS NOT DISTINCT FROM ${h}"
    )
}

/// How many parameters [`at_place`] takes.
pub(super) const PLACE_PARAMETERS: usize = 8;

/// `unnest($1::text[], $2::bigint[]) AS given ("a", "b")`, from the parameter `first` on.
fn unnested<'a>(columns: impl Iterator<Item = &'a ColumnSpec> + Clone, first: usize, name: &str) -> String {
    let arrays: Vec<String> =
        columns.clone().zip(first..).map(|(column, n)| format!("${n}::{}[]", sent_type(column))).collect();
    format!("unnest({}) AS {name} ({})", arrays.join(", "), list(columns.map(|column| column.name)))
}

/// A column of unnested arrays as the table has it.
fn from_array(column: &ColumnSpec, from: &str) -> String {
    let cast = if column.column_type == ColumnType::Json { "::jsonb" } else { "" };
    format!("{from}.{}{cast}", quoted(column.name))
}

/// A column of the table as it is read.
fn to_result(table: &str, column: &ColumnSpec) -> String {
    let cast = if column.column_type == ColumnType::Json { "::text" } else { "" };
    format!("{table}.{}{cast}", quoted(column.name))
}

fn create_table(table: &str, spec: &TableSpec) -> String {
    let mut text = format!("CREATE TABLE {table} (");
    for column in spec.columns {
        let null = if column.nullable { "" } else { " NOT NULL" };
        // By bytes, as SQLite compares; and no update of the system's locales can spoil an index.
        let collate = if column.column_type == ColumnType::Text { " COLLATE \"C\"" } else { "" };
        write!(text, "{} {}{collate}{null}, ", quoted(column.name), postgres_type(column))
            .expect("a string takes any text");
    }
    write!(text, "PRIMARY KEY ({}))", list(spec.key.iter().copied())).expect("a string takes any text");
    text
}

/// The index and its name. That follows from table and columns, so that a changed declaration is a new index.
fn index_of(model: &Model, schema: &str, table: &str, index: &IndexSpec) -> Index {
    let table_name = model.table_name();
    let names = std::iter::once(table_name.as_str()).chain(index.columns.iter().copied());
    let name = format!("{}{:08x}", index_prefix(model), digest(names));
    let rest = format!("{} ON {table} ({})", quoted(&name), list(index.columns.iter().copied()));
    Index {
        create: format!("CREATE INDEX {rest}").into(),
        create_beside: format!("CREATE INDEX CONCURRENTLY {rest}").into(),
        drop_beside: format!("DROP INDEX CONCURRENTLY IF EXISTS {}", qualified(schema, &name)).into(),
        name,
    }
}

/// What the names of all our indexes of a table begin with; short enough that PostgreSQL does not cut the rest.
pub(super) fn index_prefix(model: &Model) -> String {
    const LONGEST: usize = 63 - "_by_".len() - 8;
    let mut name = model.table_name();
    name.truncate(LONGEST);
    name + "_by_"
}

/// What PostgreSQL calls the type of a column.
pub(super) fn postgres_type(column: &ColumnSpec) -> &'static str {
    match column.column_type {
        ColumnType::Integer => "bigint",
        ColumnType::Real => "double precision",
        ColumnType::Text => "text",
        ColumnType::Bool => "boolean",
        ColumnType::Timestamp => "timestamp with time zone",
        ColumnType::Uuid => "uuid",
        ColumnType::Bytes => "bytea",
        ColumnType::Json => "jsonb",
    }
}

/// The type that a column's values are sent as.
fn sent_type(column: &ColumnSpec) -> &'static str {
    if column.column_type == ColumnType::Json { "text" } else { postgres_type(column) }
}

/// A name in a schema whose name may hold anything.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("\"{}\".{}", schema.replace('"', "\"\""), quoted(name))
}
