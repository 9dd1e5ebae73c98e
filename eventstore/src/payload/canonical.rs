//! The one text of a JSON value: the text that PostgreSQL's JSONB returns.
//!
//! An event must be folded from the same text before it is stored and at a later load. JSONB sorts keys and writes numbers out, and a type
//! can see that: a map that keeps its order, `1e16` as a number that may be an integer, raw JSON. So payloads have that text
//! from the beginning, on every store alike.

use std::borrow::Cow;
use std::cmp::Ordering;

/// A field of an object that is being written.
pub(super) struct Field<'t> {
    pub(super) key: Cow<'t, str>,
    /// The range of key and value in the output.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Field<'_> {
    /// Ordered by length, then by bytes.
    fn order(&self, other: &Self) -> Ordering {
        let (key, other) = (self.key.as_bytes(), other.key.as_bytes());
        key.len().cmp(&other.len()).then_with(|| key.cmp(other))
    }
}

/// Puts the fields of an object, which were written last, in order.
pub(super) fn sort_fields(fields: &mut [Field<'_>], out: &mut String) {
    if let Some(from) = fields.first().map(|field| field.start)
        && !fields.is_sorted_by(|a, b| a.order(b).is_lt())
    {
        let written = out.split_off(from);
        fields.sort_unstable_by(Field::order);
        for (n, field) in fields.iter().enumerate() {
            out.push_str(if n == 0 { "" } else { ", " });
            out.push_str(&written[field.start - from..field.end - from]);
        }
    }
}

/// Writes a number without exponent and without a minus before zero, with as many places as it had or, if it is to be the
/// shortest, without zeros at their end.
pub(super) fn write_number(number: &str, shortest: bool, out: &mut String) {
    let start = out.len();
    write_out(number, out);
    if shortest && out[start..].contains('.') {
        out.truncate(out.trim_end_matches('0').trim_end_matches('.').len());
    }
}

fn write_out(number: &str, out: &mut String) {
    let (sign, unsigned) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    if mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
        out.push_str(sign);
    }
    let exponent: i64 = exponent.parse().unwrap_or_default();
    if exponent == 0 {
        out.push_str(mantissa);
        return;
    }
    let (integer, places) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{integer}{places}");
    // The place of the point among the digits.
    let point = exponent + i64::try_from(integer.len()).unwrap_or_default();
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    if point < 1 {
        digits.insert_str(0, &zeros(1 - point));
    }
    let point = usize::try_from(point.max(1)).unwrap_or_default();
    if point > digits.len() {
        digits.push_str(&"0".repeat(point - digits.len()));
    }
    let (integer, places) = digits.split_at(point);
    let significant = integer.trim_start_matches('0');
    out.push_str(if significant.is_empty() { "0" } else { significant });
    if !places.is_empty() {
        out.push('.');
        out.push_str(places);
    }
}
