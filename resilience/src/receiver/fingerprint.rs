use http::{HeaderMap, header};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::records::Caller;

/// What makes two requests the same: method, path, query, caller and the bytes of the body, each hashed.
///
/// The bytes are stored by implementers of [`Records`](super::Records), so they never change for the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Self::LENGTH]);

/// The parts in their order, as an answer names them.
const PARTS: [&str; 4] = ["method", "path", "query", "body"];
/// The first half of SHA-256 is enough: the caller who could look for two equal ones would only deceive itself.
const PART: usize = 16;

impl Fingerprint {
    /// Bytes of a fingerprint.
    pub const LENGTH: usize = PARTS.len() * PART;

    /// Of a request.
    pub fn new(caller: &Caller, method: &str, path: &str, query: Option<&str>, body: &[u8]) -> Self {
        let mut bytes = [0; Self::LENGTH];
        let parts = [method.as_bytes(), path.as_bytes(), query.unwrap_or_default().as_bytes(), body];
        for ((part, name), place) in parts.into_iter().zip(PARTS).zip(bytes.chunks_exact_mut(PART)) {
            let mut hash = Sha256::new();
            hash.update((caller.as_str().len() as u64).to_be_bytes());
            hash.update(caller.as_str());
            hash.update(name);
            hash.update(part);
            place.copy_from_slice(&hash.finalize()[..PART]);
        }
        Self(bytes)
    }

    /// As it was stored.
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// To be stored.
    pub fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The parts in which two differ.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let pairs = self.0.chunks_exact(PART).zip(other.0.chunks_exact(PART)).zip(PARTS);
        pairs.filter(|((one, other), _)| one != other).map(|(_, name)| name).collect()
    }
}

/// JSON in one form for the same content; `None` if the body is compared byte by byte: it is no JSON, or says it is none, or has a
/// number that not all readers take as the same.
pub(super) fn by_content(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let media_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") {
        return None;
    }
    let mut value: Value = serde_json::from_slice(body).ok()?;
    if has_rounded(&value) {
        return None;
    }
    // Objects keep the order of their members if any crate of the app turns serde_json's `preserve_order` on.
    value.sort_all_objects();
    serde_json::to_vec(&value).ok()
}

/// Whole numbers are exact up to 2^53 in all readers; beyond, and beyond 64 bits, two texts may be read as one number.
fn has_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_none_or(|number| number.abs() >= 9_007_199_254_740_992.0),
        Value::Array(values) => values.iter().any(has_rounded),
        Value::Object(members) => members.values().any(has_rounded),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
