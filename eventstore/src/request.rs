//! Request keys: the same request twice has one effect and one answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use crate::invalid::Invalid;
use crate::name::check_name;
use crate::payload;

/// A digest of a request's parameters, stable over processes and builds.
///
/// Two requests under one key are the same request exactly if their fingerprints are equal.
///
/// ```
/// use annals_eventstore::Fingerprint;
///
/// assert_eq!(Fingerprint::of(&("pay", "o-17", 12_00))?, Fingerprint::of(&("pay", "o-17", 12_00))?);
/// assert_ne!(Fingerprint::of(&("pay", "o-17", 12_00))?, Fingerprint::of(&("pay", "o-17", 7_00))?);
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(Uuid);

impl Fingerprint {
    /// The namespace of our name-based UUIDs (RFC 9562, version 5); changing it would orphan stored fingerprints.
    const NAMESPACE: Uuid = Uuid::from_u128(0x8f2c_1f0e_6a3b_4f59_9b7d_0d5e_3c21_a774);

    /// The digest of `body` as JSON, independent of the order of its keys. The order of its lists counts: a `HashSet` is written
    /// in another order each time, so that a repeat would be refused as another request. Use a `BTreeSet` or a list.
    ///
    /// # Errors
    /// [`Invalid`] with the field `body` if it cannot be written as JSON: NaN and infinities cannot, and it may nest as deep as a
    /// payload.
    pub fn of<T: Serialize + ?Sized>(body: &T) -> Result<Self, Invalid> {
        let mut canonical = payload::to_value(body).map_err(|e| {
            Invalid::new(
                "body",
                format!("cannot be written as JSON: {e}"),
                "use finite numbers and types that serde can write",
            )
        })?;
        // Objects keep the order of their keys if any crate of the app turns serde_json's `preserve_order` on.
        canonical.sort_all_objects();
        Ok(Self::of_bytes(canonical.to_string().as_bytes()))
    }

    /// The digest of raw bytes, such as the body of a request.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Uuid::new_v5(&Self::NAMESPACE, bytes))
    }

    /// A digest read from a store.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn stored(digest: Uuid) -> Self {
        Self(digest)
    }

    /// The digest itself: a UUID of version 5 (RFC 9562).
    #[must_use]
    pub fn get(self) -> Uuid {
        self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", self.0)
    }
}

/// The key that a client gives its request (such as `Idempotency-Key`), with the fingerprint of its parameters.
///
/// Keys belong to a tenant: the same key of two tenants is two keys. They are stored in the transaction of their append
/// and expire after their lifetime, 24 hours by default. Until then, a duplicate gets the first answer, and another request under it is refused with
/// [`AppendError::RequestKeyReused`](crate::AppendError::RequestKeyReused).
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, Context, Fingerprint, MemoryStore, RequestKey};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let orders = MemoryStore::new().aggregate::<Order>();
/// let id = OrderId::new("o-17")?;
///
/// // The key comes from the client. The fingerprint covers every parameter, so that the same key with
/// // other parameters is refused.
/// let request = RequestKey::new("6f1c-client-key", Fingerprint::of(&("place", "o-17", 12_00))?)?;
/// let orders = orders.with(Context::default().with_request(request));
/// let first = orders.execute(&id, |order| order.place(12_00)).await?;
/// let again = orders.execute(&id, |order| order.place(12_00)).await?;
/// assert!(!first.repeated && again.repeated);
/// assert_eq!(first.version, again.version);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    key: Arc<str>,
    fingerprint: Fingerprint,
    lifetime: Duration,
}

impl RequestKey {
    /// How long a key is stored by default.
    pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

    /// A key for a request with this fingerprint: 1 to 200 bytes, no control characters, not beginning with `$` or
    /// `__`.
    ///
    /// # Errors
    /// [`Invalid`] with the field `request_key`.
    pub fn new(key: impl AsRef<str>, fingerprint: Fingerprint) -> Result<Self, Invalid> {
        check_name("request_key", key.as_ref())?;
        Ok(Self { key: key.as_ref().into(), fingerprint, lifetime: Self::LIFETIME })
    }

    /// A key for a request that came with the idempotency key `key` of `caller`. Two callers who use one key have two request
    /// keys. The fingerprint is that of `body`, which holds every parameter: the command with the id of its aggregate.
    ///
    /// ```
    /// use annals_eventstore::RequestKey;
    ///
    /// let ann = RequestKey::of_caller("ann", "k-1", &("pay", "o-17", 12_00))?;
    /// let bob = RequestKey::of_caller("bob", "k-1", &("pay", "o-17", 12_00))?;
    /// assert_ne!(ann.key(), bob.key());
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    ///
    /// # Errors
    /// [`Invalid`] with the field `body` if it cannot be written as JSON.
    pub fn of_caller<T: Serialize + ?Sized>(caller: &str, key: impl AsRef<str>, body: &T) -> Result<Self, Invalid> {
        let both = Fingerprint::of(&(caller, key.as_ref()))?;
        Self::new(both.get().to_string(), Fingerprint::of(body)?)
    }

    /// The same key, stored for `lifetime` from the append on, by the store's clock. If the clock is earlier than the last
    /// recorded event, the lifetime counts from the time of that event, so that correcting a slow clock does not end it. A
    /// lifetime beyond the end of the calendar is unlimited.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The key's text.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The fingerprint of the request's parameters.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// When a key that is stored at `now` expires, the end of the calendar at the latest; for those who implement a store. At
    /// that moment itself it has expired already. `now` is the time of the clock, or the time of the last recorded event if
    /// that is later.
    #[must_use]
    pub fn expires(&self, now: Timestamp) -> Timestamp {
        let lifetime = SignedDuration::try_from(self.lifetime).ok();
        lifetime.and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
    }

    /// How long the key is stored.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_beyond_the_calendar_ends_with_the_calendar() {
        let key = RequestKey::new("r", Fingerprint::of_bytes(b"")).expect("it is sound");
        let expires = |lifetime| key.clone().with_lifetime(lifetime).expires(Timestamp::UNIX_EPOCH);
        assert_eq!(expires(Duration::MAX), Timestamp::MAX);
        assert_eq!(expires(Duration::from_secs(1)), Timestamp::from_second(1).expect("it is sound"));
    }

    /// serde_json writes all three as `null`, so a request for one was taken for a repeat of a request for another.
    #[test]
    fn a_body_with_a_number_that_json_cannot_hold_has_no_fingerprint() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let refused = Fingerprint::of(&("pay", vec![Some(number)])).expect_err("it is not JSON");
            assert_eq!(refused.field, "body");
            assert!(refused.problem.contains("which JSON cannot hold"), "{refused}");
        }
        Fingerprint::of(&("pay", f64::MAX, f32::MIN)).expect("it is sound");
    }

    // Fingerprints are stored. If a build made others, a repeat would be refused as another request for a day.
    #[test]
    fn a_fingerprint_is_stable_and_independent_of_the_order_of_keys() {
        let of = |text: &str| {
            let body = serde_json::from_str::<serde_json::Value>(text).expect("it is sound");
            Fingerprint::of(&body).expect("it is sound").get().to_string()
        };
        let known = "65f964e0-6a17-549d-a263-0d7427448bfb";
        assert_eq!(of(r#"{ "a": { "x": 1, "b": 2 }, "b": 2 }"#), known);
        assert_eq!(of(r#"{ "b": 2, "a": { "b": 2, "x": 1 } }"#), known);
        assert_eq!(Fingerprint::of_bytes(br#"{"a":{"b":2,"x":1},"b":2}"#).get().to_string(), known);
    }
}
