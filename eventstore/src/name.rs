//! The rule that every stored name follows.

use crate::invalid::Invalid;

/// The longest tenant, aggregate type, aggregate id, event name, correlation or causation id, actor, trace parent,
/// request key and name of a note, in bytes of UTF-8.
///
/// PostgreSQL's B-tree refuses index rows above 2,704 bytes; three names of this length stay far below it.
pub const MAX_NAME_BYTES: usize = 200;

/// Refuses what no store could hold alike: the empty name, names above [`MAX_NAME_BYTES`], control
/// characters (NUL among them) and the reserved beginnings `$` and `__`.
///
/// Everything else is kept byte for byte: case, spaces and Unicode normal forms are the caller's.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::new(field, "is empty", "give it at least one character"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Invalid::new(
            field,
            format!("has {} bytes, the most is {MAX_NAME_BYTES}", name.len()),
            "shorten it, or use a hash of it",
        ));
    }
    if let Some(at) = name.chars().position(char::is_control) {
        return Err(Invalid::new(
            field,
            format!("has a control character at place {}", at + 1),
            "remove control characters",
        ));
    }
    if name.starts_with('$') || name.starts_with("__") {
        return Err(Invalid::new(
            field,
            "begins with `$` or `__`, which annals reserves",
            "choose another first character",
        ));
    }
    Ok(())
}
