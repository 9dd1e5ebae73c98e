//! Writing values as JSON without losing anything in silence.

use serde::Serialize;

use super::Payload;
use super::content::{Content, NO_PLAIN_ENUM};
use super::guard::{Guard, INFINITE, NAN, TOO_DEEP};
use super::path::path_at;
use crate::invalid::Invalid;

/// Room for a usual event, so that writing it allocates once.
const USUAL_BYTES: usize = 256;

pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, Invalid> {
    written(|json| value.serialize(Guard::new(json)))
}

/// The payload of an enum's value: the content of its variant, without the variant's name.
///
/// A unit variant gives `{}`, so that it may get fields with defaults later; named fields give an object, a single
/// unnamed field its own value, several an array.
///
/// # Errors
/// As of [`Payload::of`]; and if serde does not write the type as a plain, externally tagged enum.
pub fn encode_variant<T: Serialize>(value: &T) -> Result<Payload, Invalid> {
    written(|json| value.serialize(Content(json)))
}

/// The payload of a struct.
///
/// # Errors
/// As of [`Payload::of`].
pub fn encode_struct<T: Serialize>(value: &T) -> Result<Payload, Invalid> {
    encode(value)
}

fn written(
    write: impl FnOnce(&mut serde_json::Serializer<&mut Vec<u8>>) -> Result<(), serde_json::Error>,
) -> Result<Payload, Invalid> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    let outcome = write(&mut serde_json::Serializer::new(&mut bytes));
    // The output up to a failure is the beginning of a JSON text and shows where the failure is.
    let text = String::from_utf8(bytes)
        .map_err(|_| Invalid::new("payload", "was written as bytes that are not UTF-8", "fix its `Serialize`"))?;
    if let Err(error) = outcome {
        let problem = error.to_string();
        let (problem, fix) = match problem.as_str() {
            NAN | INFINITE => (problem, "use a finite number, or an `Option` that is `None`"),
            TOO_DEEP => (problem, "flatten it, or keep the inner part as text"),
            NO_PLAIN_ENUM => (problem, "take `#[serde(tag)]`, `untagged` and `into` off the event"),
            _ => (format!("cannot be written as JSON: {problem}"), "use types that serde_json can write"),
        };
        return Err(Invalid::new(path_at(&text), problem, fix));
    }
    Payload::from_json(&text)
}
