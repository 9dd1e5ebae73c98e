//! The event itself as JSON text that every store can hold and return unchanged.

mod canonical;
mod compare;
mod content;
mod decode;
mod encode;
mod guard;
mod path;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::invalid::Invalid;
use crate::limits::MAX_EVENT_BYTES;

pub use decode::{decode_struct, decode_variant, without_values};
pub use encode::{encode_struct, encode_variant};

/// The JSON value of `value`; NaN, infinities and what nests too deep are refused.
pub(crate) fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, serde_json::Error> {
    value.serialize(guard::Guard::new(serde_json::value::Serializer))
}

/// How deep arrays and objects may nest; serde_json refuses to read 128.
pub const MAX_DEPTH: usize = 64;

/// JSON text that every store returns unchanged.
///
/// It is the text that PostgreSQL's JSONB gives for the value, on every store: keys in the order of their lengths and
/// then of their bytes, numbers without exponents (`1e3` is `1000`) and without the sign of zero, a space after each colon
/// and comma. So an event is decoded from the same text before and after it is stored.
///
/// It has no duplicate keys, no U+0000, no lone surrogates, no number beyond the range of `f64` or of PostgreSQL's
/// `numeric`, and nests at most [`MAX_DEPTH`] deep. Its maximal size is set by the store ([`Limits`](crate::Limits)): `1e9` has ten
/// bytes. Cloning is cheap.
///
/// Two payloads are equal if they are equal as JSON values: the way a number is written (`1` or `1.0`) does not count.
/// Numbers are compared exactly, at any size. A stored text that breaks a rule above is equal only to the same text.
///
/// ```
/// use annals_eventstore::Payload;
///
/// let payload = Payload::from_json(r#"{ "lines": [ { "price": 1e2 } ] }"#)?;
/// assert_eq!(payload.as_str(), r#"{"lines": [{"price": 100}]}"#);
///
/// // A value that no store could return is refused, with its place.
/// let invalid = Payload::of(&[1.0, f64::NAN]).unwrap_err();
/// assert_eq!(invalid.field, "payload[1]");
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Payload {
    text: Arc<str>,
    /// How many bytes it has once its numbers are written without exponents; `None` if it has not been counted yet.
    written_out: Option<NonZeroUsize>,
}

impl Payload {
    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// [`Invalid`] naming the place, such as `payload.lines[2].price`, that holds NaN or an infinity (which serde_json
    /// would write as `null`), U+0000 or another violation of the rules above, or that serde cannot write.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, Invalid> {
        encode::encode(value)
    }

    /// Takes JSON text, and writes its value in the one way above.
    ///
    /// # Errors
    /// [`Invalid`] naming the place that is no JSON or breaks a rule above.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        // Within what any store can be made to hold: a short text may have numbers that are very long once written out.
        let text = scan::canonical_within(text, MAX_EVENT_BYTES)?;
        Ok(Self { written_out: NonZeroUsize::new(text.len()), text: text.into() })
    }

    /// JSON read from a store.
    pub(crate) fn trusted(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), written_out: None }
    }

    /// How many bytes it has once its numbers are written without exponents.
    ///
    /// # Errors
    /// [`Invalid`] naming the number with which these are more than `limit`, or what breaks a rule in a text that no
    /// check has seen.
    pub(crate) fn written_out(&self, limit: usize) -> Result<usize, Invalid> {
        match self.written_out {
            Some(bytes) if bytes.get() <= limit => Ok(bytes.get()),
            _ => scan::canonical_within(&self.text, limit).map(|text| text.len()),
        }
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, to be bound without copying.
    #[cfg(feature = "sqlite")]
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// Reads the JSON as a `T`.
    ///
    /// # Errors
    /// What serde found, and where: the JSON does not have the shape of a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.text).map_err(without_values)
    }
}

/// Its size only: logs show events by `Debug`, and a payload may hold personal data. [`Payload::as_str`] shows it.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.text.len())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        compare::equal(&self.text, &other.text)
    }
}

impl Eq for Payload {}
