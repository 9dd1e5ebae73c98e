//! The one text of a JSON value: the text that PostgreSQL's JSONB returns.
//!
//! An event must be folded from the same text before it is stored and at a later load. JSONB sorts keys and writes numbers out, and a type
//! can see that: a map that keeps its order, `1e16` as a number that may be an integer, raw JSON. So payloads have that text
//! from the beginning, on every store alike.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::scan::unescape;

/// The canonical text of `text`, which [`scan_within`](super::scan::scan_within) has accepted and compacted. It is not bounded here.
pub(super) fn canonical(text: &str) -> String {
    let mut writer =
        Writer { text, at: 0, out: String::with_capacity(text.len() + text.len() / 4), fields: Vec::new() };
    writer.value();
    writer.out
}

/// A field of an object that is being written.
struct Field<'t> {
    key: Cow<'t, str>,
    /// The ranges of key and value in the output.
    start: usize,
    end: usize,
}

impl Field<'_> {
    /// Ordered by length, then by bytes.
    fn order(&self, other: &Self) -> Ordering {
        let (key, other) = (self.key.as_bytes(), other.key.as_bytes());
        key.len().cmp(&other.len()).then_with(|| key.cmp(other))
    }
}

struct Writer<'t> {
    text: &'t str,
    /// The next byte to read.
    at: usize,
    out: String,
    /// The fields of all objects that are open, innermost last.
    fields: Vec<Field<'t>>,
}

impl<'t> Writer<'t> {
    /// The scan has bounded the depth, so recursion is safe.
    fn value(&mut self) {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => drop(self.string()),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.token(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
                write_number(number, &mut self.out);
            }
            _ => {
                let word = self.token(|byte| byte.is_ascii_lowercase());
                self.out.push_str(word);
            }
        }
    }

    fn object(&mut self) {
        let first = self.fields.len();
        self.bracket('{');
        while self.peek().is_some_and(|byte| byte != b'}') {
            let start = self.out.len();
            let key = self.string();
            self.at += 1;
            self.out.push_str(": ");
            self.value();
            self.fields.push(Field { key, start, end: self.out.len() });
            self.comma();
        }
        self.sort(first);
        self.bracket('}');
    }

    fn array(&mut self) {
        self.bracket('[');
        while self.peek().is_some_and(|byte| byte != b']') {
            self.value();
            self.comma();
        }
        self.bracket(']');
    }

    /// Puts the fields from `first` on, which were written last, in order.
    fn sort(&mut self, first: usize) {
        let fields = &mut self.fields[first..];
        if let Some(from) = fields.first().map(|field| field.start)
            && !fields.is_sorted_by(|a, b| a.order(b).is_lt())
        {
            let written = self.out.split_off(from);
            fields.sort_unstable_by(Field::order);
            for (n, field) in fields.iter().enumerate() {
                self.out.push_str(if n == 0 { "" } else { ", " });
                self.out.push_str(&written[field.start - from..field.end - from]);
            }
        }
        self.fields.truncate(first);
    }

    /// Writes a string and returns its unescaped text.
    fn string(&mut self) -> Cow<'t, str> {
        let rest = &self.text.as_bytes()[self.at..];
        let (mut end, mut escaped) = (1, false);
        while let Some(byte) = rest.get(end).filter(|byte| **byte != b'"') {
            escaped |= *byte == b'\\';
            end += if *byte == b'\\' { 2 } else { 1 };
        }
        let quoted = &self.text[self.at..(self.at + end + 1).min(self.text.len())];
        self.at += end + 1;
        let plain = unescape(quoted, escaped).unwrap_or_default();
        // The same string may be written with other escapes.
        match escaped.then(|| serde_json::to_string(&plain)) {
            Some(Ok(written)) => self.out.push_str(&written),
            _ => self.out.push_str(quoted),
        }
        plain
    }

    fn token(&mut self, belongs: impl Fn(u8) -> bool) -> &'t str {
        let (text, from) = (self.text, self.at);
        while self.peek().is_some_and(&belongs) {
            self.at += 1;
        }
        &text[from..self.at]
    }

    fn bracket(&mut self, bracket: char) {
        self.out.push(bracket);
        self.at += 1;
    }

    fn comma(&mut self) {
        if self.peek() == Some(b',') {
            self.at += 1;
            self.out.push_str(", ");
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// Writes a number without exponent, with as many places as it had, and no minus before zero.
fn write_number(number: &str, out: &mut String) {
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
