//! The one reader of JSON text: in one pass and without recursion it checks the text against our rules and writes its value in
//! the canonical way.

use std::borrow::Cow;
use std::collections::HashSet;

use super::MAX_DEPTH;
use super::canonical::{Field, sort_fields, write_number};
use super::path::{path_at, push_key};
use crate::invalid::Invalid;

/// Objects with more keys than this look their keys up in a set; below it, comparing with each is faster.
const FEW_KEYS: usize = 16;

/// Integers with at most so many digits are below 1.8e308, the largest `f64`, with any digits.
const SURELY_FINITE_DIGITS: usize = 308;

/// The most places after the point, and the largest exponent, that PostgreSQL's `numeric` keeps exactly.
const MAX_SCALE: i64 = 16_383;

/// The bytes at which a plain run inside a string ends: quotes, escapes and control characters. A table is looked up
/// faster than three ranges are compared.
const ENDS_PLAIN: [bool; 256] = {
    let mut ends = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        ends[control] = true;
        control += 1;
    }
    ends[b'"' as usize] = true;
    ends[b'\\' as usize] = true;
    ends
};

/// Room for the open values and the keys of a usual event, so that they are allocated once.
const USUALLY_OPEN: usize = 4;
const USUAL_KEYS: usize = 16;

const WRITE_PROPERLY: &str = "write it with a JSON library";

/// Checks `text`, and writes its value in the canonical way.
///
/// Accepts RFC 8259, except what a store could not return: nesting deeper than [`MAX_DEPTH`], U+0000, lone
/// surrogates, duplicate keys, and numbers beyond the range of `f64` or of PostgreSQL's `numeric`.
///
/// It also refuses the number with which the text has more than `limit` bytes once its numbers are written out.
pub(super) fn canonical_within(text: &str, limit: usize) -> Result<String, Invalid> {
    write(text, limit, false)
}

/// The same, with numbers of one value in one way: `1.50` is `1.5`.
pub(super) fn comparable_within(text: &str, limit: usize) -> Result<String, Invalid> {
    write(text, limit, true)
}

fn write(text: &str, limit: usize, shortest_numbers: bool) -> Result<String, Invalid> {
    let mut scanner = Scanner {
        text,
        at: 0,
        out: String::with_capacity(text.len() + text.len() / 4),
        shortest_numbers,
        open: Vec::with_capacity(USUALLY_OPEN),
        fields: Vec::with_capacity(USUAL_KEYS),
        added: 0,
        limit,
    };
    scanner.text()?;
    Ok(scanner.out)
}

/// An array or object whose end has not come yet.
struct Open<'t> {
    is_object: bool,
    /// Where its fields begin among those of all open objects.
    first_field: usize,
    /// Its keys once they are many.
    many_keys: Option<HashSet<Cow<'t, str>>>,
}

struct Scanner<'t> {
    text: &'t str,
    /// The next byte to read. Always between characters.
    at: usize,
    /// The canonical text of what was read.
    out: String,
    /// Whether zeros at the end of a number's places are left out.
    shortest_numbers: bool,
    open: Vec<Open<'t>>,
    /// The fields of all open objects, innermost last.
    fields: Vec<Field<'t>>,
    /// How many bytes the numbers up to here have more when they are written without exponents.
    added: usize,
    /// The most bytes that the text may have then.
    limit: usize,
}

impl<'t> Scanner<'t> {
    fn text(&mut self) -> Result<(), Invalid> {
        if self.text.starts_with('\u{feff}') {
            return Err(Invalid::new("payload", "begins with a byte order mark", "remove U+FEFF from its beginning"));
        }
        loop {
            if self.value()? {
                continue;
            }
            loop {
                self.skip_space();
                let Some(open) = self.open.last() else {
                    if self.at == self.text.len() {
                        return Ok(());
                    }
                    return Err(self.broken("something follows the end of the value"));
                };
                let is_object = open.is_object;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.end_field(is_object);
                        self.out.push_str(", ");
                        if is_object {
                            self.skip_space();
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if is_object => self.close('}'),
                    Some(b']') if !is_object => self.close(']'),
                    _ if is_object => return Err(self.broken("expected `,` or `}`")),
                    _ => return Err(self.broken("expected `,` or `]`")),
                }
            }
        }
    }

    /// Reads a value, or the beginning of one: `true` if another value comes right after, inside an array or object.
    fn value(&mut self) -> Result<bool, Invalid> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string().map(|_| false),
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                self.number()?;
                write_number(&self.text[start..self.at], self.shortest_numbers, &mut self.out);
                Ok(false)
            }
            Some(b'{') => {
                self.open('{')?;
                if self.peek() == Some(b'}') {
                    self.close('}');
                    return Ok(false);
                }
                self.key().map(|()| true)
            }
            Some(b'[') => {
                self.open('[')?;
                if self.peek() == Some(b']') {
                    self.close(']');
                    return Ok(false);
                }
                Ok(true)
            }
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.broken("expected a value")),
        }
    }

    fn open(&mut self, bracket: char) -> Result<(), Invalid> {
        if self.open.len() == MAX_DEPTH {
            return Err(self.refuse(
                self.at,
                format!("nests deeper than {MAX_DEPTH}"),
                "flatten it, or keep the inner part as text",
            ));
        }
        self.open.push(Open { is_object: bracket == '{', first_field: self.fields.len(), many_keys: None });
        self.out.push(bracket);
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn close(&mut self, bracket: char) {
        self.at += 1;
        if let Some(open) = self.open.pop() {
            self.end_field(open.is_object);
            sort_fields(&mut self.fields[open.first_field..], &mut self.out);
            self.fields.truncate(open.first_field);
        }
        self.out.push(bracket);
    }

    /// The value of the last field ends here.
    fn end_field(&mut self, is_object: bool) {
        if let Some(field) = self.fields.last_mut().filter(|_| is_object) {
            field.end = self.out.len();
        }
    }

    /// Reads a key and its colon.
    fn key(&mut self) -> Result<(), Invalid> {
        let (from, start) = (self.at, self.out.len());
        if self.peek() != Some(b'"') {
            return Err(self.broken("expected a key in double quotes"));
        }
        let key = self.string()?;
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        let known = &self.fields[open.first_field..];
        let is_new = match &mut open.many_keys {
            Some(set) => set.insert(key.clone()),
            None => {
                if known.len() == FEW_KEYS {
                    open.many_keys = Some(known.iter().map(|field| &field.key).chain([&key]).cloned().collect());
                }
                known.iter().all(|field| field.key != key)
            }
        };
        if !is_new {
            let mut field = path_at(&self.text[..from]);
            push_key(&mut field, &key);
            return Err(Invalid::new(field, "is in the same object twice", "give each key once"));
        }
        self.fields.push(Field { key, start, end: start });
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.broken("expected `:` after the key"));
        }
        self.at += 1;
        self.out.push_str(": ");
        Ok(())
    }

    /// Reads a string.
    fn string(&mut self) -> Result<Cow<'t, str>, Invalid> {
        let (text, start) = (self.text, self.at);
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = &text.as_bytes()[self.at..];
            let Some(plain) = rest.iter().position(|b| ENDS_PLAIN[usize::from(*b)]) else {
                self.at = text.len();
                return Err(self.broken("a string has no end"));
            };
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    break;
                }
                b'\\' => {
                    escaped = true;
                    self.escape(start)?;
                }
                0 => return Err(self.nul(start)),
                _ => return Err(self.broken("a control character in a string must be written as an escape")),
            }
        }
        let quoted = &text[start..self.at];
        if !escaped {
            self.out.push_str(quoted);
            return Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]));
        }
        // The same string may be written with other escapes.
        let read = serde_json::from_str::<String>(quoted).and_then(|plain| Ok((serde_json::to_string(&plain)?, plain)));
        let (written, plain) = read.map_err(|_| self.broken("a string that cannot be read"))?;
        self.out.push_str(&written);
        Ok(Cow::Owned(plain))
    }

    /// Reads one escape of the string that begins at `start`.
    fn escape(&mut self, start: usize) -> Result<(), Invalid> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.hex(self.at) {
                None => return Err(self.broken("`\\u` needs four hexadecimal digits")),
                Some(0) => return Err(self.nul(start)),
                Some(0xd800..=0xdbff) => {
                    if !matches!(self.hex(self.at + 6), Some(0xdc00..=0xdfff)) {
                        return Err(self.lone_surrogate(start));
                    }
                    self.at += 12;
                }
                Some(0xdc00..=0xdfff) => return Err(self.lone_surrogate(start)),
                Some(_) => self.at += 6,
            },
            _ => return Err(self.broken("an unknown escape in a string")),
        }
        Ok(())
    }

    /// The number in the escape `\uXXXX` at `at`.
    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.as_bytes().get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |n, digit| Some(n * 16 + char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        self.skip_byte(b'-');
        let integer = match self.peek() {
            Some(b'0') => {
                self.at += 1;
                1
            }
            _ => self.digits(),
        };
        if integer == 0 {
            return Err(self.broken("a number needs a digit"));
        }
        if matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.broken("a number begins with a superfluous zero"));
        }
        let mut places = 0;
        if self.skip_byte(b'.') {
            places = self.digits();
            if places == 0 {
                return Err(self.broken("a number needs a digit after its point"));
            }
        }
        let mut exponent = 0;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let negative = self.skip_byte(b'-');
            if !negative {
                self.skip_byte(b'+');
            }
            let digits_from = self.at;
            if self.digits() == 0 {
                return Err(self.broken("a number needs a digit in its exponent"));
            }
            let size = self.text[digits_from..self.at].parse().unwrap_or(i64::MAX);
            exponent = if negative { -size } else { size };
        }
        if exponent == 0 && integer <= SURELY_FINITE_DIGITS && places <= SURELY_FINITE_DIGITS {
            return Ok(());
        }
        let scale = i64::try_from(places).unwrap_or(i64::MAX).saturating_sub(exponent);
        let is_finite = || self.text[start..self.at].parse::<f64>().is_ok_and(f64::is_finite);
        if exponent.saturating_abs() > MAX_SCALE || scale > MAX_SCALE || !is_finite() {
            return Err(self.refuse(
                start,
                "is a number beyond the range of `f64`, which not every store can keep",
                "keep it as text",
            ));
        }
        self.write_out(start, integer, exponent, scale)
    }

    /// Counts what the number that began at `start` has more when it is written without its exponent, as PostgreSQL gives
    /// it back: nine bytes can become 16,385.
    fn write_out(&mut self, start: usize, integer: usize, exponent: i64, scale: i64) -> Result<(), Invalid> {
        let sign = usize::from(self.text.as_bytes().get(start) == Some(&b'-'));
        let before_point = i64::try_from(integer).unwrap_or(i64::MAX).saturating_add(exponent).max(1);
        let after_point = if scale > 0 { scale + 1 } else { 0 };
        let digits = usize::try_from(before_point.saturating_add(after_point)).unwrap_or(usize::MAX);
        let more = digits.saturating_add(sign).saturating_sub(self.at - start);
        self.added = self.added.saturating_add(more);
        if more > 0 && self.text.len().saturating_add(self.added) > self.limit {
            let limit = self.limit;
            return Err(self.refuse(
                start,
                format!(
                    "is the number with which the payload has more than {limit} bytes once its numbers are written out"
                ),
                "keep numbers with large exponents as text, or in several events",
            ));
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<bool, Invalid> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.broken("expected a value"));
        }
        self.at += word.len();
        self.out.push_str(word);
        Ok(false)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_byte(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Skips digits and counts them.
    fn digits(&mut self) -> usize {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - from
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn nul(&self, start: usize) -> Invalid {
        self.refuse(start, "holds the character U+0000, which PostgreSQL cannot store", "remove it")
    }

    fn lone_surrogate(&self, start: usize) -> Invalid {
        self.refuse(start, "holds a lone surrogate, which is no character", "write both halves, or remove it")
    }

    /// The text is not JSON at the scanner's position.
    fn broken(&self, what: &str) -> Invalid {
        self.refuse(self.at, format!("is not valid JSON at byte {}: {what}", self.at), WRITE_PROPERLY)
    }

    /// The value that begins at `start` breaks a rule.
    fn refuse(&self, start: usize, problem: impl Into<String>, fix: &str) -> Invalid {
        Invalid::new(path_at(&self.text[..start]), problem, fix)
    }
}
