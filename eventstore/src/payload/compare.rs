//! Whether two JSON texts are the same value.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::scan::unescape;

/// How deep a text may nest to be compared by value. Ours nest less deep; deeper ones are compared as text.
const DEEPEST: usize = 128;

/// Whether `a` and `b` are equal as JSON values: the order of keys, white space, the way numbers and strings are
/// written and the sign of zero do not count. Numbers are compared exactly, as decimals, at any size.
///
/// A text that is no JSON is equal only to the same text.
pub(super) fn equal(a: &str, b: &str) -> bool {
    a == b || matches!((parse(a), parse(b)), (Some(a), Some(b)) if a == b)
}

/// A JSON value in its one normal form.
#[derive(PartialEq)]
enum Value<'t> {
    Null,
    Bool(bool),
    Number(Decimal),
    String(Cow<'t, str>),
    Array(Vec<Value<'t>>),
    Object(BTreeMap<Cow<'t, str>, Value<'t>>),
}

/// The number `±0.digits × 10^exponent`, where digits begin and end with another digit than 0; zero has none.
#[derive(PartialEq, Default)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

fn parse(text: &str) -> Option<Value<'_>> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    (parser.at == text.len()).then_some(value)
}

/// Reads text that has been checked before. It never panics, but accepts some invalid text.
struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn value(&mut self, depth: usize) -> Option<Value<'t>> {
        if depth > DEEPEST {
            return None;
        }
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => self.number(),
            _ => [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))]
                .into_iter()
                .find(|(word, _)| self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)))
                .map(|(word, value)| {
                    self.at += word.len();
                    value
                }),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value<'t>> {
        let mut fields = BTreeMap::new();
        self.at += 1;
        if self.take(b'}') {
            return Some(Value::Object(fields));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            if !self.take(b':') {
                return None;
            }
            let value = self.value(depth + 1)?;
            // JSONB keeps the last of several; ours have none.
            fields.insert(key, value);
            if self.take(b'}') {
                return Some(Value::Object(fields));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value<'t>> {
        let mut elements = Vec::new();
        self.at += 1;
        if self.take(b']') {
            return Some(Value::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Some(Value::Array(elements));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<Cow<'t, str>> {
        let start = self.at;
        if self.peek()? != b'"' {
            return None;
        }
        let mut escaped = false;
        loop {
            self.at += 1;
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                }
                _ => {}
            }
        }
        self.at += 1;
        unescape(self.text.get(start..self.at)?, escaped)
    }

    fn number(&mut self) -> Option<Value<'t>> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        decimal(&self.text[start..self.at]).map(Value::Number)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space and then `byte`, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }
}

/// The normal form of a number; two numbers are equal exactly if their normal forms are.
fn decimal(text: &str) -> Option<Decimal> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (integer, places) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{integer}{places}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = all.trim_start_matches('0');
    let leading_zeros = i64::try_from(all.len() - digits.len()).ok()?;
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Some(Decimal::default());
    }
    let point = i64::try_from(integer.len()).ok()?;
    let exponent = exponent.checked_add(point)?.checked_sub(leading_zeros)?;
    Some(Decimal { negative, digits: digits.to_owned(), exponent })
}
