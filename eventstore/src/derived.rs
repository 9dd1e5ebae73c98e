//! What derived code needs at run time, kept here so that the derives write as little as possible.

use std::convert::Infallible;

use crate::error::{DecodeError, Invalid};
use crate::event::{Event, EventShape};
use crate::payload::Payload;

/// The place of the event called `name` in `shapes`, which is also the index of its variant.
///
/// # Errors
/// [`DecodeError::UnknownName`], or [`DecodeError::UnknownSchemaVersion`] if the name is known in another version.
pub fn find_shape(shapes: &'static [EventShape], name: &str, schema_version: u32) -> Result<u32, DecodeError> {
    match (0_u32..).zip(shapes).find(|(_, shape)| shape.name == name) {
        Some((index, shape)) if shape.version == schema_version => Ok(index),
        Some((_, shape)) => Err(DecodeError::UnknownSchemaVersion {
            name: name.to_owned(),
            found: schema_version,
            known: shape.version,
        }),
        None => Err(DecodeError::UnknownName {
            name: name.to_owned(),
            known: shapes.iter().map(|shape| shape.name).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Replaces the missing event type of an aggregate that the derive has refused, so that the compiler reports the
/// refusal alone.
#[derive(Clone, Copy, Debug)]
pub struct NoEvent(Infallible);

impl Event for NoEvent {
    const SHAPES: &'static [EventShape] = &[];

    fn shape(&self) -> &'static EventShape {
        match self.0 {}
    }

    fn encode(&self) -> Result<Payload, Invalid> {
        match self.0 {}
    }

    fn decode(name: &str, schema_version: u32, _payload: &Payload) -> Result<Self, DecodeError> {
        match find_shape(Self::SHAPES, name, schema_version) {
            Ok(_) => Err(DecodeError::UnknownName { name: name.to_owned(), known: String::new() }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
