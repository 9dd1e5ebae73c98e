use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use http::request::Parts;
use http::{Response, StatusCode};

use super::layer::KEY;
use crate::http::problem;
use crate::policy::IdempotencyKey;

/// A request without one idempotency key that can be used. It is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the header `Idempotency-Key` is missing, or not from 1 to {} visible ASCII characters",
    IdempotencyKey::LONGEST
)]
pub struct NoKey;

impl IntoResponse for NoKey {
    fn into_response(self) -> Response<axum::body::Body> {
        problem(StatusCode::BAD_REQUEST, "idempotency-key-invalid", &self.to_string())
    }
}

/// The key of the request: of use behind a [`Receiver`](super::Receiver), to hand it on to what makes the effect.
impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = NoKey;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoKey> {
        let mut keys = parts.headers.get_all(KEY).iter();
        match (keys.next(), keys.next()) {
            (Some(key), None) => key.to_str().ok().and_then(|key| Self::new(key).ok()).ok_or(NoKey),
            _ => Err(NoKey),
        }
    }
}
