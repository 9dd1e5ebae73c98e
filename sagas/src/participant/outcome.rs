//! The saga's side of a participant over HTTP.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::call::StepError;

/// What an answer over HTTP means for a step: its output, which is the body as JSON, or the error. For any client.
///
/// | answer | outcome |
/// |---|---|
/// | 2xx | done; an empty body is `()`, a body that does not fit is [`StepError::Unknown`], so that it is undone |
/// | 409 with `Retry-After`, 425, 429, 503 | [`StepError::Transient`], with the wait if it is in seconds |
/// | 408, other 5xx | [`StepError::Unknown`] |
/// | all others | [`StepError::Refused`] |
///
/// Without an answer, as after a time-out, the outcome is [`StepError::unknown`].
///
/// ```
/// use annals_sagas::StepError;
/// use annals_sagas::participant::outcome;
/// use http::{HeaderMap, StatusCode};
///
/// let headers = HeaderMap::new();
/// assert_eq!(outcome::<u32>(StatusCode::OK, &headers, b"17"), Ok(17));
/// assert_eq!(outcome::<()>(StatusCode::NO_CONTENT, &headers, b""), Ok(()));
/// assert!(matches!(outcome::<()>(StatusCode::GONE, &headers, b""), Err(StepError::Refused { .. })));
/// ```
///
/// # Errors
/// As in the table. The text has the status and, if the body is `application/problem+json`, its `detail`.
pub fn outcome<T: DeserializeOwned>(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<T, StepError> {
    if status.is_success() {
        let body: &[u8] = if body.is_empty() { b"null" } else { body };
        return serde_json::from_slice(body)
            .map_err(|e| StepError::unknown(format!("HTTP status {status} with a body that does not fit: {e}")));
    }
    // A date is no wait, but it says that the request may be sent again.
    let retry_after = headers.get(header::RETRY_AFTER).map(|wait| {
        let seconds = wait.to_str().ok().and_then(|text| text.trim().parse().ok());
        Duration::from_secs(seconds.unwrap_or_default())
    });
    let problem: Option<Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    let error = StepError::of_status(status.as_u16(), retry_after);
    Err(detail.map_or(error.clone(), |detail| error.with_detail(detail)))
}
