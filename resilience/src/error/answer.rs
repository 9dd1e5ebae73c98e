//! What a service answers when a call through a policy gave none.

use http::StatusCode;

use super::{CallError, Guard};

impl<E> CallError<E> {
    /// The status of a service's own answer when it cannot do without this call.
    ///
    /// | status | when | the same request |
    /// |---|---|---|
    /// | 502 | the dependency answered, and would say the same again | is of no use |
    /// | 503 | a guard refused, or all attempts failed for a reason that passes | may work after `retry-after` |
    /// | 504 | an attempt was cut off, or the deadline is over | may have worked already; is sent with the same key only |
    ///
    /// With the feature `axum` a handler returns the error as it is: `Result<Json<Seats>, CallError<E>>`. The answer has this
    /// status, `retry-after` where it is known, and policy and reason as `application/problem+json` with the code `dependency-failed`, never the text of the
    /// dependency's error.
    pub fn status(&self) -> StatusCode {
        if self.may_have_happened() || self.guard() == Some(Guard::Deadline) {
            StatusCode::GATEWAY_TIMEOUT
        } else if self.is_transient() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::BAD_GATEWAY
        }
    }
}

#[cfg(feature = "axum")]
impl<E> axum::response::IntoResponse for CallError<E> {
    fn into_response(self) -> axum::response::Response {
        let mut response = crate::http::problem(self.status(), "dependency-failed", &self.to_string());
        if let Some(wait) = self.retry_after() {
            let seconds = crate::rate_limit::header_seconds(wait).max(1);
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
