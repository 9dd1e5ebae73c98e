//! Whether two JSON texts are the same value.

use super::scan::comparable_within;
use crate::limits::MAX_EVENT_BYTES;

/// Whether `a` and `b` are equal as JSON values: the order of keys, white space, the way numbers and strings are
/// written and the sign of zero do not count. Numbers are compared exactly, as decimals, at any size.
///
/// A text that breaks a rule of payloads is equal only to the same text.
pub(super) fn equal(a: &str, b: &str) -> bool {
    let comparable = |text| comparable_within(text, MAX_EVENT_BYTES);
    a == b || matches!((comparable(a), comparable(b)), (Ok(a), Ok(b)) if a == b)
}
