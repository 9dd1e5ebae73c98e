#![doc = include_str!("../docs/deadline.md")]

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

#[cfg(feature = "axum")]
mod extract;

#[cfg(feature = "axum")]
pub use extract::LongestDeadline;

/// The moment until which an answer is of use; or that there is none.
///
/// It is absolute: handed on, it stays the same moment. See [the module](self) for how it crosses the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline(Option<Instant>);

/// The deadline has passed. What was running was dropped; it may have had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct DeadlineOver;

/// A header that is no deadline. Answer with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header `{}` must be one whole number of milliseconds from 0 to {LONGEST}", Deadline::HEADER)]
pub struct HeaderError;

/// A bit over 24 days: what a PostgreSQL setting holds.
const LONGEST: u32 = i32::MAX as u32;

impl Deadline {
    /// The header in which the time left crosses the network, in milliseconds.
    pub const HEADER: &'static str = "x-deadline-ms";

    /// No deadline.
    pub const NONE: Self = Self(None);

    /// At this moment.
    pub fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// This long from now. A time too long to be represented is no deadline.
    pub fn within(time: Duration) -> Self {
        Self(Instant::now().checked_add(time))
    }

    /// The moment, if there is one.
    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    /// The time left, `Duration::ZERO` when it is over; `None` without a deadline.
    pub fn left(self) -> Option<Duration> {
        self.0.map(|instant| instant.saturating_duration_since(Instant::now()))
    }

    /// Whether no time is left.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|instant| instant <= Instant::now())
    }

    /// The deadline of a part of the work: `time` from now, and never after this one.
    #[must_use]
    pub fn child(self, time: Duration) -> Self {
        self.earlier(Self::within(time))
    }

    /// The earlier of two.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(other)) => Self(Some(one.min(other))),
            (one, other) => Self(one.or(other)),
        }
    }

    /// Runs `future` until the deadline, then drops it.
    ///
    /// # Errors
    /// [`DeadlineOver`]; a future is not even started when no time is left.
    ///
    /// # Cancel safety
    /// As safe as `future`.
    pub async fn run<F: Future>(self, future: F) -> Result<F::Output, DeadlineOver> {
        match self.0 {
            _ if self.is_over() => Err(DeadlineOver),
            None => Ok(future.await),
            Some(instant) => tokio::time::timeout_at(instant, future).await.map_err(|_| DeadlineOver),
        }
    }

    /// The value of [`HEADER`](Self::HEADER) for a call to another service: the milliseconds left, rounded up, so never 0;
    /// `None` without a deadline. Tell the same to a database by
    /// [`statement_timeout_ms`](Self::statement_timeout_ms).
    ///
    /// # Errors
    /// [`DeadlineOver`]: do not make the call.
    pub fn to_header(self) -> Result<Option<String>, DeadlineOver> {
        Ok(self.milliseconds()?.map(|millis| millis.to_string()))
    }

    /// A deadline from the header of a request that arrived now. Clocks of the two sides are not compared.
    ///
    /// # Errors
    /// [`HeaderError`] if it is not a whole number of milliseconds within `i32`.
    pub fn from_header(value: &str) -> Result<Self, HeaderError> {
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HeaderError);
        }
        let millis: u32 = value.parse().map_err(|_| HeaderError)?;
        if millis > LONGEST {
            return Err(HeaderError);
        }
        Ok(Self::within(Duration::from_millis(millis.into())))
    }

    /// A value for PostgreSQL's `statement_timeout`: the milliseconds left, rounded up, so never 0, which would mean no
    /// limit; `None` without a deadline. Set it for the transaction only (`set_config('statement_timeout', $1, true)`),
    /// or the next borrower of the connection inherits it.
    ///
    /// # Errors
    /// [`DeadlineOver`]: do not send the statement.
    pub fn statement_timeout_ms(self) -> Result<Option<u32>, DeadlineOver> {
        self.milliseconds()
    }

    fn milliseconds(self) -> Result<Option<u32>, DeadlineOver> {
        let Some(left) = self.left() else { return Ok(None) };
        if left.is_zero() {
            return Err(DeadlineOver);
        }
        let millis = left.as_nanos().div_ceil(1_000_000);
        Ok(Some(u32::try_from(millis).unwrap_or(LONGEST).min(LONGEST)))
    }
}

/// The moment, for what knows tokio's instants only.
impl From<Deadline> for Option<Instant> {
    fn from(deadline: Deadline) -> Self {
        deadline.instant()
    }
}

#[cfg(test)]
mod tests;
