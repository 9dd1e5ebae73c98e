use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use http::request::Parts;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Deadline, HeaderError};
use crate::http::problem;

/// The deadline of a request that comes without one, and the longest that any request gets. Default: 30 s.
///
/// It is found in the extensions of a request: `router.layer(axum::Extension(LongestDeadline(..)))`.
/// In a settings file it is the duration alone: `longest_deadline = "10s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LongestDeadline(#[serde(with = "crate::duration_text")] pub Duration);

impl Default for LongestDeadline {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

/// What a request was given, so that it is the same moment wherever it is extracted.
#[derive(Clone)]
struct Given(Deadline);

/// The deadline of the request, from the header [`Deadline::HEADER`]; never later than [`LongestDeadline`], which is also
/// what a request without the header gets. A header that is no number of milliseconds, or is there twice, is answered
/// with 400.
///
/// It counts from the first extraction. To count from the arrival, extract it before everything else:
/// `router.layer(axum::middleware::from_extractor::<Deadline>())`.
impl<S: Send + Sync> FromRequestParts<S> for Deadline {
    type Rejection = HeaderError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HeaderError> {
        if let Some(Given(deadline)) = parts.extensions.get() {
            return Ok(*deadline);
        }
        let LongestDeadline(longest) = parts.extensions.get().copied().unwrap_or_default();
        let mut headers = parts.headers.get_all(Self::HEADER).iter();
        let deadline = match (headers.next(), headers.next()) {
            (None, _) => Self::NONE,
            (Some(header), None) => Self::from_header(header.to_str().map_err(|_| HeaderError)?)?,
            (Some(_), Some(_)) => return Err(HeaderError),
        };
        let deadline = deadline.child(longest);
        parts.extensions.insert(Given(deadline));
        Ok(deadline)
    }
}

impl IntoResponse for HeaderError {
    fn into_response(self) -> Response<axum::body::Body> {
        problem(StatusCode::BAD_REQUEST, "deadline-invalid", &self.to_string())
    }
}
