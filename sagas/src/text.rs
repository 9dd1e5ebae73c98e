//! Texts of others that are recorded.

use std::any::Any;

/// The most bytes of an error's text in an event or a row.
pub(crate) const MOST_BYTES: usize = 2_000;

/// The text of an error without what no database holds, and not longer than an event or a row should be: what a service
/// says must not keep its outcome from being recorded.
pub(crate) fn storable(text: &str) -> String {
    without_nul(&text[..text.floor_char_boundary(MOST_BYTES)])
}

pub(crate) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// What a panic says.
pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_nul() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        assert_eq!(storable(&"x".repeat(MOST_BYTES)).len(), MOST_BYTES);
        assert_eq!(storable(&format!("{}é", "x".repeat(MOST_BYTES - 1))).len(), MOST_BYTES - 1);
    }
}
