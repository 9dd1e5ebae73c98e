//! Writing values as JSON without losing anything in silence.

use serde::Serialize;

use super::Payload;
use crate::error::Invalid;

pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, Invalid> {
    serde_json::to_string(value).map(Payload::trusted).map_err(|e| Invalid::new("payload", e.to_string(), "x"))
}

/// The payload of an enum's value: the content of its variant, without the variant's name.
///
/// # Errors
/// As of [`Payload::of`].
pub fn encode_variant<T: Serialize>(value: &T) -> Result<Payload, Invalid> {
    encode(value)
}

/// The payload of a struct.
///
/// # Errors
/// As of [`Payload::of`].
pub fn encode_struct<T: Serialize>(value: &T) -> Result<Payload, Invalid> {
    encode(value)
}
