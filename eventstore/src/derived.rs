//! What derived code needs at run time, kept here so that the derives write as little as possible.

use std::convert::Infallible;

use crate::error::{DecodeError, Invalid};
use crate::event::{Event, EventShape, EventsOf};
use crate::payload::Payload;
use crate::upcast::Message;

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
        None => Err(unknown_name(shapes, name)),
    }
}

/// None of `reads` is `name` in this version.
pub(crate) fn unknown_shape(reads: &'static [EventShape], name: &str, schema_version: u32) -> DecodeError {
    let versions = reads.iter().filter(|shape| shape.name == name).map(|shape| shape.version);
    match versions.max() {
        Some(known) => DecodeError::UnknownSchemaVersion { name: name.to_owned(), found: schema_version, known },
        None => unknown_name(reads, name),
    }
}

/// No event of `shapes` is called `name`.
#[must_use]
pub fn unknown_name(shapes: &'static [EventShape], name: &str) -> DecodeError {
    let mut known: Vec<&str> = Vec::new();
    for shape in shapes {
        if !known.contains(&shape.name) {
            known.push(shape.name);
        }
    }
    DecodeError::UnknownName { name: name.to_owned(), known: known.join(", ") }
}

/// Whether an event of `shapes` is called `name`.
#[must_use]
pub fn has_name(shapes: &[EventShape], name: &str) -> bool {
    shapes.iter().any(|shape| shape.name == name)
}

/// The shapes of the event types that one type wraps, of which there are `N`: those that they write, or those that they read.
///
/// # Panics
/// While it compiles, if a stored name occurs twice: an event of that name could not be assigned to one of them.
#[must_use]
pub const fn join_shapes<const N: usize>(types: &[&[EventShape]]) -> [EventShape; N] {
    let mut joined = [EventShape { name: "", version: 1, rust_name: "" }; N];
    let (mut count, mut at) = (0, 0);
    while at < types.len() {
        let mut in_type = 0;
        while in_type < types[at].len() {
            let shape = types[at][in_type];
            let mut before = 0;
            while before < count - in_type {
                if same_text(joined[before].name, shape.name) {
                    refuse_twice(&joined[before], &shape);
                }
                before += 1;
            }
            joined[count] = shape;
            count += 1;
            in_type += 1;
        }
        at += 1;
    }
    joined
}

const fn refuse_twice(one: &EventShape, other: &EventShape) -> ! {
    let message = Message::new("the stored name `").text(one.name).text("` is of two of the wrapped event types: ");
    let message = message.text(one.rust_name).text(" and ").text(other.rust_name);
    let message = message.text("; wrap each event type once, and give each event a name of its own");
    panic!("{}", message.as_str())
}

/// The aggregate types that names of the wrapped event types are of, of which there are `N`.
#[must_use]
pub const fn join_of<const N: usize>(types: &[&[EventsOf]]) -> [EventsOf; N] {
    let mut joined = [EventsOf { aggregate_type: "", events: &[] }; N];
    let (mut count, mut at) = (0, 0);
    while at < types.len() {
        let mut in_type = 0;
        while in_type < types[at].len() {
            joined[count] = types[at][in_type];
            count += 1;
            in_type += 1;
        }
        at += 1;
    }
    joined
}

/// Checks that the events of an aggregate are not declared to be of another one.
///
/// # Panics
/// While it compiles, if they are: no projection would get them.
pub const fn check_of(of: &[EventsOf], aggregate_type: &str) {
    let mut at = 0;
    while at < of.len() {
        if !same_text(of[at].aggregate_type, aggregate_type) {
            let message =
                Message::new("the events of the aggregate `").text(aggregate_type).text("` are declared as `of = \"");
            let message = message.text(of[at].aggregate_type).text("\"`; give both the same name");
            panic!("{}", message.as_str())
        }
        at += 1;
    }
}

/// Checks that events of `shapes` have these names.
///
/// # Panics
/// While it compiles, if none has one of them: a snapshot would never be taken after it.
pub const fn check_names(shapes: &[EventShape], names: &[&str]) {
    let mut at = 0;
    while at < names.len() {
        let mut shape = 0;
        while shape < shapes.len() && !same_text(shapes[shape].name, names[at]) {
            shape += 1;
        }
        if shape == shapes.len() {
            let message = Message::new("`snapshot(after = ..)` names `").text(names[at]);
            let message = message.text("`, but no event of the aggregate is stored under that name");
            panic!("{}", message.as_str())
        }
        at += 1;
    }
}

pub(crate) const fn same_text(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    if one.len() != other.len() {
        return false;
    }
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
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
