//! JSON text as PostgreSQL's `jsonb` writes it: what a JSON column gives back, on every database.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Exponents beyond this are left as they are; no number that a payload may hold has one.
const LARGEST_EXPONENT: i64 = 20_000;

/// The normal form of a JSON text: keys once each, the shorter before the longer, numbers without exponents, a space behind
/// each colon and comma. A text that is no JSON stays as it is.
pub(crate) fn normal(text: &str) -> Cow<'_, str> {
    let mut normal = String::with_capacity(text.len() + text.len() / 8);
    match write(text, &mut normal) {
        Ok(()) => Cow::Owned(normal),
        Err(_) => Cow::Borrowed(text),
    }
}

fn write(text: &str, out: &mut String) -> Result<(), serde_json::Error> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    match text.as_bytes().first() {
        Some(b'{') => {
            // Of a key that stands there twice the last one counts.
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
            out.push('{');
            for (at, (key, value)) in fields.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(&serde_json::to_string(key)?);
                out.push_str(": ");
                write(value.get(), out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push('[');
            for (at, value) in elements.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write(value.get(), out)?;
            }
            out.push(']');
        }
        Some(b'"') => out.push_str(&serde_json::to_string(&serde_json::from_str::<String>(text)?)?),
        Some(b'-' | b'0'..=b'9') => {
            serde_json::from_str::<&RawValue>(text)?;
            number(text, out);
        }
        _ => {
            serde_json::from_str::<&RawValue>(text)?;
            out.push_str(text);
        }
    }
    Ok(())
}

/// A number as `numeric` writes it: no exponent, and as many places behind the point as were given.
fn number(text: &str, out: &mut String) {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let Some(exponent) = exponent.parse::<i64>().ok().filter(|exponent| exponent.abs() <= LARGEST_EXPONENT) else {
        out.push_str(text);
        return;
    };
    let (whole, places) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{places}");
    if negative && digits.bytes().any(|digit| digit != b'0') {
        out.push('-');
    }
    let scale = i64::try_from(places.len()).unwrap_or(i64::MAX) - exponent;
    let scale = match usize::try_from(scale) {
        Ok(scale) => scale,
        Err(_) => {
            digits.push_str(&"0".repeat(usize::try_from(-scale).unwrap_or_default()));
            0
        }
    };
    if digits.len() <= scale {
        digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
    }
    let (whole, places) = digits.split_at(digits.len() - scale);
    let significant = whole.trim_start_matches('0');
    out.push_str(if significant.is_empty() { "0" } else { significant });
    if !places.is_empty() {
        out.push('.');
        out.push_str(places);
    }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn a_text_has_one_normal_form() {
        for (text, expected) in [
            ("null", "null"),
            (" [ 1,2 ,[] ] ", "[1, 2, []]"),
            (r#"{"zip":1,"a":{"b":[]},"zap":true}"#, r#"{"a": {"b": []}, "zap": true, "zip": 1}"#),
            (r#"{"a":1,"\u0061":2}"#, r#"{"a": 2}"#),
            (r#""\u00fc\/\u001F\n""#, r#""ü/\u001f\n""#),
            ("1e16", "10000000000000000"),
            ("1E+2", "100"),
            ("-12.340e1", "-123.40"),
            ("1.5e-7", "0.00000015"),
            ("0.10", "0.10"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("0e5", "0"),
            ("0e-2", "0.00"),
            ("1.25e1", "12.5"),
            ("no JSON", "no JSON"),
        ] {
            assert_eq!(normal(text), expected);
            assert_eq!(normal(expected), expected, "the normal form is its own");
        }
    }
}
