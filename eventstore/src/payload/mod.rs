//! The event itself as JSON text: what every store can hold and give back unchanged.

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
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::invalid::Invalid;

pub use decode::{decode_struct, decode_variant};
pub use encode::{encode_struct, encode_variant};

/// How many arrays and objects may stand one inside the other; serde_json refuses to read 128.
pub const MAX_DEPTH: usize = 64;

/// JSON text that every store gives back as it is.
///
/// It is the text that PostgreSQL's JSONB gives for the value, whatever the store: keys in the order of their lengths and
/// then of their bytes, numbers without exponents (`1e3` is `1000`) and without the sign of zero, a space after each colon
/// and comma. So an event is decoded from the same text before it is stored and ever after.
///
/// It has no duplicate keys, no U+0000, no lone surrogates, no number beyond the range of `f64` or of PostgreSQL's
/// `numeric`, and nests at most [`MAX_DEPTH`] deep. How long it may be, the store says ([`Limits`](crate::Limits)).
/// Cloning is cheap.
///
/// Two payloads are equal if they are equal as JSON values: the way a number is written (`1` or `1.0`) does not count.
/// Numbers are compared exactly, whatever their size.
///
/// ```
/// use annals_eventstore::Payload;
///
/// let payload = Payload::from_json(r#"{ "lines": [ { "price": 1e2 } ] }"#)?;
/// assert_eq!(payload.as_str(), r#"{"lines": [{"price": 100}]}"#);
///
/// // What no store could give back is refused, with its place.
/// let invalid = Payload::of(&[1.0, f64::NAN]).unwrap_err();
/// assert_eq!(invalid.field, "payload[1]");
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone)]
pub struct Payload(Arc<str>);

impl Payload {
    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// [`Invalid`] naming the place, `payload.lines[2].price` say, that holds NaN or an infinity (which serde_json
    /// would write as `null`), U+0000 or what else breaks a rule above, or that serde cannot write.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, Invalid> {
        encode::encode(value)
    }

    /// Takes JSON text, and writes its value in the one way above.
    ///
    /// # Errors
    /// [`Invalid`] naming the place that is no JSON or breaks a rule above.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        let compact = scan::scan(text)?;
        canonical::canonical(&compact).map(Self::trusted)
    }

    /// JSON that this crate has just checked, or that a store has given back.
    pub(crate) fn trusted(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, to be bound without copying.
    #[cfg(feature = "sqlite")]
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Reads the JSON as a `T`.
    ///
    /// # Errors
    /// What serde found, and where: the JSON does not have the shape of a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        compare::equal(&self.0, &other.0)
    }
}

impl Eq for Payload {}
