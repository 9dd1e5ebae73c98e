//! An aggregate small enough to see through: an account that is never overdrawn.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregate, Decide, Evolve, SnapshotPolicy};
use crate::error::{DecodeError, Invalid};
use crate::event::{Event, EventShape};
use crate::payload::{Payload, decode_variant, encode_variant};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Moved {
    In(i64),
    Out(i64),
    /// Written in a way in which it cannot be read.
    Odd(#[serde(deserialize_with = "never")] i64),
    /// With a field that is not stored.
    Noted {
        amount: i64,
        #[serde(skip)]
        note: String,
    },
    /// One that `evolve` cannot bear.
    Poison,
    /// Without notes it cannot be read again.
    Annotated {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
}

fn never<'de, D: serde::Deserializer<'de>>(_: D) -> Result<i64, D::Error> {
    Err(serde::de::Error::custom("reads nothing"))
}

const fn shape(name: &'static str) -> EventShape {
    EventShape { name, version: 1, rust_name: name }
}

impl Event for Moved {
    const SHAPES: &'static [EventShape] =
        &[shape("in"), shape("out"), shape("odd"), shape("noted"), shape("poison"), shape("annotated")];

    fn shape(&self) -> &'static EventShape {
        &Self::SHAPES[match self {
            Self::In(_) => 0,
            Self::Out(_) => 1,
            Self::Odd(_) => 2,
            Self::Noted { .. } => 3,
            Self::Poison => 4,
            Self::Annotated { .. } => 5,
        }]
    }

    fn encode(&self) -> Result<Payload, Invalid> {
        encode_variant(self)
    }

    fn decode(name: &str, _: u32, payload: &Payload) -> Result<Self, DecodeError> {
        match Self::SHAPES.iter().position(|s| s.name == name) {
            Some(index) => decode_variant(index as u32, payload),
            None => Err(DecodeError::UnknownName { name: name.to_owned(), known: String::new() }),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Account {
    pub(super) balance: i64,
    pub(super) notes: Vec<String>,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    const FOLD: u32 = 1;
    const SNAPSHOT: SnapshotPolicy = SnapshotPolicy::Never;
    type Id = String;
    type Event = Moved;
}

impl Evolve for Account {
    fn evolve(&mut self, event: &Moved) {
        match event {
            Moved::In(amount) => self.balance += amount,
            Moved::Out(amount) => self.balance -= amount,
            Moved::Odd(_) => {}
            Moved::Annotated { notes } => self.notes.extend(notes.iter().cloned()),
            Moved::Noted { amount, note } => {
                self.balance += amount;
                self.notes.push(note.clone());
            }
            Moved::Poison => panic!("evolve meets poison"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{short} short")]
pub(super) struct Short {
    pub(super) short: i64,
}

impl Account {
    pub(super) fn withdraw(&self, amount: i64) -> Result<Moved, Short> {
        if amount > self.balance {
            return Err(Short { short: amount - self.balance });
        }
        Ok(Moved::Out(amount))
    }
}

/// Brings the balance to this amount.
pub(super) struct Settle(pub(super) i64);

impl Decide<Settle> for Account {
    type Rejection = Short;

    fn decide(&self, Settle(goal): &Settle) -> Result<Vec<Moved>, Short> {
        Ok(match goal - self.balance {
            0 => Vec::new(),
            missing @ 1.. => vec![Moved::In(missing)],
            surplus => vec![Moved::Out(-surplus)],
        })
    }
}
