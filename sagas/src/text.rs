//! Texts and values of others that are recorded.

use std::any::Any;

use serde_json::Value;

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

/// Whether two values are the same once they are stored: a store writes 1e16 as 10000000000000000.
pub(crate) fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) if one.is_f64() || other.is_f64() => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| is_same(one, other)))
        }
        (one, other) => one == other,
    }
}

/// What a panic says.
pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_the_same_however_a_store_writes_their_numbers() {
        assert!(is_same(&json!({ "a": [1e16, -0.0] }), &json!({ "a": [10_000_000_000_000_000_u64, 0] })));
        for (one, other) in
            [(json!([1]), json!([1, 2])), (json!({ "a": 1 }), json!({ "b": 1 })), (json!(1), json!("1"))]
        {
            assert!(!is_same(&one, &other) && !is_same(&other, &one), "{one} {other}");
        }
        assert!(!is_same(&json!(u64::MAX), &json!(u64::MAX - 1)));
    }

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_nul() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        assert_eq!(storable(&"x".repeat(MOST_BYTES)).len(), MOST_BYTES);
        assert_eq!(storable(&format!("{}é", "x".repeat(MOST_BYTES - 1))).len(), MOST_BYTES - 1);
    }
}
