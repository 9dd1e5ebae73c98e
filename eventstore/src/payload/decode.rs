//! Reading payloads back into the user's types.

use serde::de::DeserializeOwned;

use super::Payload;
use crate::error::DecodeError;

/// Reads the variant with this index (in the order of declaration, as serde counts) from its content.
///
/// # Errors
/// [`DecodeError::Payload`] if the content does not fit.
pub fn decode_variant<T: DeserializeOwned>(index: u32, payload: &Payload) -> Result<T, DecodeError> {
    let _ = index;
    payload.read().map_err(|source| DecodeError::Payload { source })
}

/// Reads a struct.
///
/// # Errors
/// [`DecodeError::Payload`] if the content does not fit.
pub fn decode_struct<T: DeserializeOwned>(payload: &Payload) -> Result<T, DecodeError> {
    payload.read().map_err(|source| DecodeError::Payload { source })
}
