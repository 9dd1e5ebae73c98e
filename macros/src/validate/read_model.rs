//! The rules of `#[derive(ReadModel)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::{Error, Generics, Ident, LitStr, Type};

use super::shared::{not_generic, not_misplaced, once, required};
use crate::ast::{Body, ColumnInput, ReadModelInput};
use crate::attr::{COLUMN, JSON, PER_TENANT, READ_MODEL, TABLE, TEXT, Values, listed};
use crate::mistakes::Mistakes;

/// The longest name of a table or column; `TableSpec::MAX_NAME` of the projections, which checks it again.
const MAX_IDENTIFIER: usize = 48;
/// The most columns of a table; `TableSpec::MAX_COLUMNS` of the projections.
const MAX_COLUMNS: usize = 100;
/// The most columns of a key, the largest tuple that implements `RowKey`.
const MAX_KEY: usize = 6;
/// The column that `per_tenant` adds; `TENANT` of the projections.
pub(crate) const TENANT: &str = "tenant";
/// Prefixes that are reserved for annals and the engines.
const RESERVED: [&str; 3] = ["annals_", "sqlite_", "pg_"];

/// Columns that PostgreSQL adds to every table; `TableSpec::check` of the projections has them too.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// A valid read model.
pub(crate) struct ValidReadModel {
    pub(crate) root: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) table: String,
    pub(crate) columns: Vec<ValidColumn>,
    /// In the order of the key.
    pub(crate) key: Vec<ValidColumn>,
    pub(crate) indexes: Vec<Vec<String>>,
    pub(crate) per_tenant: bool,
}

#[derive(Clone)]
pub(crate) struct ValidColumn {
    pub(crate) field: Ident,
    pub(crate) ty: Type,
    pub(crate) name: String,
    pub(crate) storage: Storage,
    /// Whether the type is written as an `Option`.
    pub(crate) optional: bool,
}

/// How a field becomes a column.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Storage {
    Column,
    Text,
    Json,
}

/// Checks every rule; `root` is the path of annals.
pub(crate) fn read_model(
    input: &ReadModelInput,
    root: Result<TokenStream, Error>,
    mut mistakes: Mistakes,
) -> Result<ValidReadModel, Error> {
    once(&input.krate, &mut mistakes);
    let per_tenant = once(&input.per_tenant, &mut mistakes).is_some();
    not_generic(&input.generics, "ReadModel", &mut mistakes);
    not_misplaced(
        &input.misplaced,
        "`#[read_model(..)]` belongs above the struct and `#[column(..)]` above a field; move it there",
        &mut mistakes,
    );
    let table = once(&input.table, &mut mistakes);
    let key = once(&input.key, &mut mistakes);
    has_table_and_key(input, &mut mistakes);
    if let Some(table) = table {
        identifier(table, &table.value(), "a table's name", &mut mistakes);
    }
    let columns = columns(input, &mut mistakes);
    let root = root.map_err(|error| mistakes.push(error)).ok();
    let valid = columns.zip(key).map(|(columns, key)| {
        if per_tenant {
            tenant_is_added(input, key, &columns, &mut mistakes);
        }
        let key_columns = key_columns(key, &columns, per_tenant, &mut mistakes);
        let indexes = indexes(&input.index, key, &columns, per_tenant, &mut mistakes);
        (columns, key_columns, indexes)
    });
    let valid = root.zip(table).zip(valid).map(|((root, table), (columns, key, indexes))| ValidReadModel {
        root,
        ident: input.ident.clone(),
        generics: input.generics.clone(),
        table: table.value(),
        columns,
        key,
        indexes,
        per_tenant,
    });
    mistakes.finish(valid)
}

/// Table and key decide which rows there are; neither has a default.
fn has_table_and_key(input: &ReadModelInput, mistakes: &mut Mistakes) {
    let ident = input.ident.unraw();
    let no_table = format!("`{ident}` has no table; write `#[{READ_MODEL}({TABLE} = \"order_list\", ..)]`");
    required(input.table.first().is_none(), input.understood, &input.ident, &no_table, mistakes);
    let no_key = format!(
        "`{ident}` has no key; name the column that names a row: `#[{READ_MODEL}(key = \"order_id\", ..)]`, or \
         `key(\"customer\", \"day\")` for several"
    );
    required(input.key.first().is_none(), input.understood, &input.ident, &no_key, mistakes);
}

/// A row is a struct whose fields have the names of its columns.
fn columns(input: &ReadModelInput, mistakes: &mut Mistakes) -> Option<Vec<ValidColumn>> {
    let fields = match &input.body {
        Body::Struct(Some(fields)) => fields,
        Body::Struct(None) => {
            mistakes.at(&input.ident, "columns need names; make it a struct with named fields");
            return None;
        }
        Body::Enum(_) => {
            mistakes.at(&input.ident, "an enum cannot be a row; make it a struct with named fields");
            return None;
        }
        Body::Union(union) => {
            mistakes.at(union, "a union cannot be a row; make it a struct with named fields");
            return None;
        }
    };
    if fields.is_empty() {
        mistakes.at(
            &input.ident,
            format!("`{}` has no fields, so its table has no columns; add some", input.ident.unraw()),
        );
        return None;
    }
    let most = MAX_COLUMNS - usize::from(input.per_tenant.first().is_some());
    if let Some(field) = fields.get(most) {
        mistakes.at(
            &field.field,
            format!("a row has at most {most} columns, this is one more; put some together with `#[{COLUMN}({JSON})]`"),
        );
    }
    let columns: Vec<_> = fields.iter().map(|field| column(field, mistakes)).collect();
    column_names_are_unique(fields, &columns, mistakes);
    Some(columns)
}

fn column(input: &ColumnInput, mistakes: &mut Mistakes) -> ValidColumn {
    let name = match once(&input.name, mistakes) {
        Some(name) => {
            column_name(name, &name.value(), "a column's name", mistakes);
            name.value()
        }
        None => {
            let name = input.field.unraw().to_string();
            let what = format!("a field's column (rename it with `#[{COLUMN}(name = \"..\")]`)");
            column_name(&input.field, &name, &what, mistakes);
            name
        }
    };
    once(&input.text, mistakes);
    once(&input.json, mistakes);
    ValidColumn {
        field: input.field.clone(),
        ty: input.ty.clone(),
        name,
        storage: one_storage(input, mistakes),
        optional: is_option(&input.ty),
    }
}

/// A column is either plain text or JSON.
fn one_storage(input: &ColumnInput, mistakes: &mut Mistakes) -> Storage {
    match (input.text.first(), input.json.first()) {
        (None, None) => Storage::Column,
        (Some(_), None) => Storage::Text,
        (None, Some(_)) => Storage::Json,
        (Some(_), Some(json)) => {
            mistakes.at(&json.word, format!("a column is kept as `{TEXT}` or as `{JSON}`, not both; remove one"));
            Storage::Json
        }
    }
}

/// One database would refuse the table, and the other not.
fn column_name(at: impl quote::ToTokens, name: &str, what: &str, mistakes: &mut Mistakes) {
    if SYSTEM_COLUMNS.contains(&name) {
        mistakes
            .at(at, format!("{what} cannot be `{name}`, which PostgreSQL adds to every table; choose another name"));
    } else {
        identifier(at, name, what, mistakes);
    }
}

/// SQL is built from these names. So they contain nothing that could end a quoted name, leave room for a suffix on every
/// engine, and avoid the names that annals and the engines use.
fn identifier(at: impl quote::ToTokens, name: &str, what: &str, mistakes: &mut Mistakes) {
    let allowed = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !allowed {
        mistakes.at(at, format!("{what} is made of lower-case letters, digits and `_`, a letter first"));
    } else if name.len() > MAX_IDENTIFIER {
        mistakes.at(at, format!("{what} has at most {MAX_IDENTIFIER} characters, this has {}; shorten it", name.len()));
    } else if let Some(reserved) = RESERVED.iter().find(|reserved| name.starts_with(**reserved)) {
        mistakes.at(at, format!("{what} cannot begin with `{reserved}`, which is reserved; choose another prefix"));
    }
}

/// The names of a table's columns are unique.
fn column_names_are_unique(fields: &[ColumnInput], columns: &[ValidColumn], mistakes: &mut Mistakes) {
    for (at, (input, column)) in fields.iter().zip(columns).enumerate() {
        let Some(first) = columns[..at].iter().find(|earlier| earlier.name == column.name) else { continue };
        let message =
            format!("the column `{}` belongs to the field `{}` already; rename one of them", column.name, first.field);
        match input.name.first() {
            Some(renamed) => mistakes.at(&renamed.value, message),
            None => mistakes.at(&input.field, message),
        }
    }
}

/// The tenant is filled from the event, so that no fold can give a row to another tenant.
fn tenant_is_added(input: &ReadModelInput, key: &[LitStr], columns: &[ValidColumn], mistakes: &mut Mistakes) {
    if let Body::Struct(Some(fields)) = &input.body
        && let Some(at) = columns.iter().position(|column| column.name == TENANT)
    {
        let message = format!(
            "`{PER_TENANT}` adds the column `{TENANT}` and fills it from the event; remove this field, or name its column otherwise"
        );
        match fields[at].name.first() {
            Some(renamed) => mistakes.at(&renamed.value, message),
            None => mistakes.at(&fields[at].field, message),
        }
        return;
    }
    for named in key.iter().chain(input.index.0.iter().flat_map(|index| &index.value)) {
        if named.value() == TENANT {
            let message =
                format!("`{PER_TENANT}` puts `{TENANT}` first into the key and into each index; leave it out here");
            mistakes.at(named, message);
        }
    }
}

/// A key identifies its row: its columns exist, are never null, and compare as in the databases.
fn key_columns(key: &[LitStr], columns: &[ValidColumn], per_tenant: bool, mistakes: &mut Mistakes) -> Vec<ValidColumn> {
    named_columns_exist_once(key, "the key", columns, per_tenant, mistakes);
    if let Some(beyond) = key.get(MAX_KEY) {
        mistakes.at(beyond, format!("a key has at most {MAX_KEY} columns; leave out what does not name the row"));
    }
    let mut found = Vec::new();
    for name in key {
        let Some(column) = columns.iter().find(|column| column.name == name.value()) else { continue };
        if column.optional {
            mistakes.at(
                &column.ty,
                format!("`{}` is in the key, and a key is never null; use the type without `Option`", column.name),
            );
        } else if column.storage != Storage::Column {
            let word = if column.storage == Storage::Text { TEXT } else { JSON };
            mistakes.at(
                name,
                format!(
                    "`{}` is in the key, so its type must be a column by itself; implement `Column` for it instead of \
                     `#[{COLUMN}({word})]`",
                    column.name
                ),
            );
        }
        found.push(column.clone());
    }
    found
}

/// A second index on the same columns makes every write slower and helps no read.
fn indexes(
    words: &Values<Vec<LitStr>>,
    key: &[LitStr],
    columns: &[ValidColumn],
    per_tenant: bool,
    mistakes: &mut Mistakes,
) -> Vec<Vec<String>> {
    let mut indexes: Vec<Vec<String>> = Vec::new();
    let key: Vec<_> = key.iter().map(LitStr::value).collect();
    for index in &words.0 {
        named_columns_exist_once(&index.value, "an index", columns, per_tenant, mistakes);
        let names: Vec<_> = index.value.iter().map(LitStr::value).collect();
        if names == key {
            mistakes.at(&index.word, "the key is an index already; remove this one");
        } else if indexes.contains(&names) {
            mistakes.at(&index.word, "these columns have such an index already; remove one of them");
        }
        indexes.push(names);
    }
    indexes
}

/// Keys and indexes contain columns of the table, each once.
fn named_columns_exist_once(
    named: &[LitStr],
    what: &str,
    columns: &[ValidColumn],
    per_tenant: bool,
    mistakes: &mut Mistakes,
) {
    for (at, literal) in named.iter().enumerate() {
        let name = literal.value();
        if named[..at].iter().any(|earlier| earlier.value() == name) {
            mistakes.at(literal, format!("`{name}` is named twice; {what} takes each column once"));
        } else if columns.iter().all(|column| column.name != name) && !(per_tenant && name == TENANT) {
            let message = match columns.iter().find(|column| column.field.unraw() == name) {
                Some(renamed) => format!("the field `{name}` is the column `{}`; name the column", renamed.name),
                None if name.contains(',') => {
                    format!("`{name}` is one name with a comma in it; for several columns write `(\"..\", \"..\")`")
                }
                None => {
                    let known = listed(&columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>());
                    format!("`{name}` is no column; {what} can name {known}")
                }
            };
            mistakes.at(literal, message);
        }
    }
}

/// Whether the type is written as an `Option`. An alias is not visible here; the runner checks the table again.
fn is_option(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Option"),
        Type::Group(group) => is_option(&group.elem),
        Type::Paren(paren) => is_option(&paren.elem),
        _ => false,
    }
}
