//! Pieces of SQL that every engine writes alike, from identifiers that were checked before.

use super::Model;
use crate::read_model::TENANT;
use crate::reads::Select;

/// An identifier, already checked, in quotes, so that it may be a word of SQL.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{identifier}\"")
}

/// Identifiers with commas between them.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

/// FNV-1a over names; short, the same on every build, and quite enough to tell the few indexes of one table apart.
pub(super) fn digest<'a>(names: impl IntoIterator<Item = &'a str>) -> u32 {
    let bytes = names.into_iter().flat_map(|name| name.bytes().chain([b',']));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Whether the name of an index is one of ours: `prefix`, and eight hexadecimal digits.
pub(super) fn is_our_index(name: &str, prefix: &str) -> bool {
    let digits = name.strip_prefix(prefix);
    digits.is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Says that an index of ours costs writes and is declared no longer. It is not dropped: during a deploy an older build must
/// not remove what the newer one has made, and which of two is older does not show where both have the same version.
pub(super) fn undeclared(model: &Model, index: &str) {
    tracing::info!(
        projection = model.projection,
        version = model.version,
        index,
        "this index is declared no longer; drop it when no build that declares it runs"
    );
}

/// What has the stable name of a read model, where it is no view.
pub(super) fn not_a_view(kind: &str, of_annals: bool) -> String {
    match of_annals {
        true => format!("is a {kind} in which annals keeps what it needs itself"),
        false => format!("is a {kind} that annals did not make"),
    }
}

/// Says that a version is built anew because somebody has dropped its table and left its checkpoint.
pub(super) fn table_is_gone(model: &Model) {
    tracing::warn!(
        projection = model.projection,
        version = model.version,
        table = model.table_name(),
        "the table is gone; it is built anew from the beginning of the log"
    );
}

/// A query by a condition: `columns` of the rows, called `r`, that `rows` gives. The tenant is the value `$tenant`.
///
/// The condition stands outside of the query that gives the rows of the tenant, and sees no others.
pub(super) fn select(columns: &str, rows: &str, select: &Select, tenant: usize) -> String {
    let Select { condition, order, limit, .. } = select;
    let of_tenant = match select.tenant {
        Some(_) => format!(" WHERE t.{} = ${tenant}", quoted(TENANT)),
        None => String::new(),
    };
    let fitting = if condition.is_empty() { String::new() } else { format!(" WHERE ({condition})") };
    format!("SELECT {columns} FROM ({rows}{of_tenant}) AS r{fitting} ORDER BY {order} {limit}")
}
