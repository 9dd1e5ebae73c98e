//! How the states of one aggregate type are written and read, and under which key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::contained::contained;
use crate::event::Event;
use crate::invalid::Invalid;
use crate::payload::Payload;
use crate::request::Fingerprint;

/// How a state is written as JSON and read back, and when two are the same. `#[derive(Aggregate)]` makes it for a type with a
/// snapshot policy.
#[derive(Debug)]
pub struct SnapshotCodec<A> {
    fields: &'static str,
    encode: fn(&A) -> Result<Payload, Invalid>,
    decode: fn(&Payload) -> Result<A, serde_json::Error>,
    is_same: fn(&A, &A) -> bool,
}

impl<A> SnapshotCodec<A> {
    /// The codec of a type that serde reads as it writes it. `fields` is a text that changes whenever the JSON of the state
    /// may have another shape: the derive gives the declaration of the type. By `PartialEq` a state is compared with what its
    /// JSON is read as, as two different states may have the same JSON.
    ///
    /// The bounds are spelled out because the compiler then names the missing derive.
    #[must_use]
    pub fn new(fields: &'static str) -> Self
    where
        A: Serialize + for<'de> Deserialize<'de> + PartialEq,
    {
        Self { fields, encode: |state| Payload::of(state), decode: Payload::read, is_same: A::eq }
    }

    /// Reads a state, or says why that is impossible.
    pub(crate) fn decode(&self, body: &Payload) -> Result<A, String> {
        contained(|| (self.decode)(body).map_err(|e| e.to_string()))
    }

    /// Writes a state that is the same when it is read back. Anything else would give another state with a snapshot than
    /// without.
    pub(crate) fn encode_faithfully(&self, state: &A) -> Result<Payload, String> {
        let body = (self.encode)(state).map_err(|e| e.to_string())?;
        let copy = self.decode(&body).map_err(|e| format!("it cannot be read again: {e}"))?;
        if self.is_same(&copy, state) {
            Ok(body)
        } else {
            Err("it is another state after its JSON was read again, as something in it is left out of the JSON, or written like \
                 something else"
                .to_owned())
        }
    }

    /// Whether the states are the same; not if comparing them panics.
    pub(crate) fn is_same(&self, one: &A, other: &A) -> bool {
        contained(|| Ok::<_, String>((self.is_same)(one, other))).unwrap_or(false)
    }
}

impl<A: Aggregate> SnapshotCodec<A> {
    /// The key of snapshots: the number of the fold, and what else decides which state follows from the events and how it is
    /// written. Stable over processes and builds of the same code.
    pub(crate) fn key(&self) -> Arc<str> {
        let digest = |text: &str| Fingerprint::of_bytes(text.as_bytes()).get().simple().to_string();
        format!("{}.{}.{}", A::FOLD, digest(self.fields), digest(&read_list::<A::Event>())).into()
    }
}

impl<A> Clone for SnapshotCodec<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for SnapshotCodec<A> {}

/// Every name and schema version of events that the type reads, one per line.
fn read_list<E: Event>() -> String {
    E::READS.iter().map(|shape| format!("{} {}\n", shape.name, shape.version)).collect()
}
