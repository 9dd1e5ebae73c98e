//! How results are judged.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use crate::breaker::Outcome;

/// What a result says about the dependency, and whether the same call may work later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It did its work.
    Success,
    /// It failed for a reason that may pass: counted by the breaker, and the call may be made again.
    Transient {
        /// The wait that the dependency asked for.
        retry_after: Option<Duration>,
    },
    /// It failed, and would fail again: counted by the breaker, not made again.
    Failure,
    /// The call was at fault, as in 400 or 404: not counted, not made again.
    Ignored,
}

impl Class {
    /// Transient, without a wait that was asked for.
    pub const TRANSIENT: Self = Self::Transient { retry_after: None };

    /// The class of an HTTP status. `retry_after` is the header of that name, if the answer has it.
    ///
    /// 408, 429, 502, 503 and 504 are transient, other 5xx are failures, other 4xx are ignored.
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            408 | 429 | 502 | 503 | 504 => Self::Transient { retry_after },
            500.. => Self::Failure,
            400.. => Self::Ignored,
            _ => Self::Success,
        }
    }

    /// The class of an answer over HTTP, by its status and its `retry-after`.
    ///
    /// `retry-after` is read if it is a number of seconds. A date, which would need equal clocks on both sides, and anything
    /// else counts as no wait that was asked for.
    ///
    /// ```
    /// use annals_resilience::Class;
    /// use http::{HeaderMap, HeaderValue, StatusCode};
    /// use std::time::Duration;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert("retry-after", HeaderValue::from_static("2"));
    /// let class = Class::of_answer(StatusCode::TOO_MANY_REQUESTS, &headers);
    /// assert_eq!(class, Class::Transient { retry_after: Some(Duration::from_secs(2)) });
    /// ```
    #[cfg(feature = "http")]
    pub fn of_answer(status: http::StatusCode, headers: &http::HeaderMap) -> Self {
        let wait = headers.get(http::header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
        Self::of_status(status.as_u16(), wait.map(Duration::from_secs))
    }

    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Success => Outcome::Success,
            Self::Transient { .. } | Self::Failure => Outcome::Failure,
            Self::Ignored => Outcome::Ignored,
        }
    }
}

/// An error that knows its [`Class`].
///
/// Implement it for the error of your client, or give the policy a closure, see
/// [`Pending::judged_by`](crate::Pending::judged_by).
pub trait Classify {
    /// The class of this error. Never [`Class::Success`].
    fn class(&self) -> Class;
}

impl Classify for io::Error {
    fn class(&self) -> Class {
        match self.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::Interrupted
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::TimedOut
            | io::ErrorKind::WouldBlock => Class::TRANSIENT,
            io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => Class::Ignored,
            _ => Class::Failure,
        }
    }
}

impl Classify for Infallible {
    fn class(&self) -> Class {
        match *self {}
    }
}

/// Judges the results of one call. Implemented by [`ByError`], [`ErrorJudge`] and [`ResultJudge`].
pub trait Judge<T, E> {
    /// The class of a result.
    fn judge(&self, result: &Result<T, E>) -> Class;
}

/// Each error says its own class; every `Ok` is a success.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByError;

impl<T, E: Classify> Judge<T, E> for ByError {
    fn judge(&self, result: &Result<T, E>) -> Class {
        result.as_ref().map_or_else(Classify::class, |_| Class::Success)
    }
}

/// A closure over errors; every `Ok` is a success.
#[derive(Debug, Clone, Copy)]
pub struct ErrorJudge<F>(pub(crate) F);

impl<T, E, F: Fn(&E) -> Class> Judge<T, E> for ErrorJudge<F> {
    fn judge(&self, result: &Result<T, E>) -> Class {
        result.as_ref().map_or_else(&self.0, |_| Class::Success)
    }
}

/// A closure over whole results, for clients that answer 503 as `Ok`.
#[derive(Debug, Clone, Copy)]
pub struct ResultJudge<F>(pub(crate) F);

impl<T, E, F: Fn(&Result<T, E>) -> Class> Judge<T, E> for ResultJudge<F> {
    fn judge(&self, result: &Result<T, E>) -> Class {
        (self.0)(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_class_that_the_documentation_says() {
        let wait = Some(Duration::from_secs(9));
        for status in [408, 429, 502, 503, 504] {
            assert_eq!(Class::of_status(status, wait), Class::Transient { retry_after: wait }, "{status}");
        }
        for status in [500, 501, 505, 507] {
            assert_eq!(Class::of_status(status, wait), Class::Failure, "{status}");
        }
        for status in [400, 401, 403, 404, 409, 422] {
            assert_eq!(Class::of_status(status, wait), Class::Ignored, "{status}");
        }
        for status in [200, 204, 304] {
            assert_eq!(Class::of_status(status, wait), Class::Success, "{status}");
        }
    }
}
