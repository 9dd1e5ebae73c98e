#![doc = include_str!("../../docs/rate_limit.md")]

mod clock;
#[cfg(feature = "http")]
mod layer;
mod limiter;
mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(feature = "http")]
pub use layer::{RateLimitLayer, RateLimitService};
pub use limiter::RateLimiter;

use crate::duration_text::whole_millis;
use crate::error::{Check, SettingsError};

/// So many calls in so much time, and how many of them may come at once.
///
/// In any span of `per` at most `calls` + `burst` pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Calls in `per`.
    pub calls: u32,
    /// Default: 1 min.
    #[serde(with = "crate::duration_text", default = "minute")]
    pub per: Duration,
    /// Calls that may come at once after a pause. `None`: as many as `calls`.
    #[serde(default)]
    pub burst: Option<u32>,
    /// Keys that are counted apart at the same time; further ones share one quota. Default: 100,000.
    #[serde(default = "keys")]
    pub keys: u32,
}

/// A year, and a century: what can be counted in nanoseconds is five times as long.
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
const LONGEST: Duration = Duration::from_secs(100 * YEAR.as_secs());

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn keys() -> u32 {
    100_000
}

/// The quota of a tenant: 1,000 a minute, 100 of them at once.
impl Default for RateLimit {
    fn default() -> Self {
        Self { burst: Some(100), ..Self::per_minute(1_000) }
    }
}

impl RateLimit {
    /// So many a minute, all of them at once if need be.
    pub fn per_minute(calls: u32) -> Self {
        Self { calls, per: minute(), burst: None, keys: keys() }
    }

    /// So many a second, all of them at once if need be.
    pub fn per_second(calls: u32) -> Self {
        Self { per: Duration::from_secs(1), ..Self::per_minute(calls) }
    }

    /// The time between two calls in the long run, in whole nanoseconds: rounded up, or more than `calls` would pass.
    fn interval(&self) -> Duration {
        let nanoseconds = self.per.as_nanos().div_ceil(u128::from(self.calls.max(1)));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    pub(crate) fn check(&self, name: &str) -> Result<(), SettingsError> {
        let check = Check::of(name);
        check.not_zero("rate_limit.calls", self.calls)?;
        if self.burst == Some(0) {
            return check.refuse("rate_limit.burst", self.burst, "no call would ever pass");
        }
        if self.keys == 0 {
            return check.refuse("rate_limit.keys", self.keys, "it must be above zero");
        }
        if self.per < Duration::from_millis(1) || self.per > YEAR {
            return check.refuse("rate_limit.per", self.per, "a quota is for 1 ms to one year");
        }
        if (self.per / self.calls).is_zero() {
            return check
                .two(("rate_limit.calls", self.calls), ("rate_limit.per", self.per))
                .refuse("more than one call a nanosecond cannot be counted");
        }
        let burst = self.burst.unwrap_or(self.calls);
        if self.interval().saturating_mul(burst) > LONGEST {
            return check
                .two(("rate_limit.burst", burst), ("rate_limit.per", self.per))
                .refuse("it would take more than 100 years until all of them may come again");
        }
        Ok(())
    }
}

/// What a limiter says about one call: the values of the headers of an answer, refused or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Calls that may come at once.
    pub limit: u32,
    /// Calls that may still come now.
    pub remaining: u32,
    /// Until all of `limit` may come at once again.
    pub reset: Duration,
}

/// The quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit is reached; the next call passes in {:?}", whole_millis(*.retry_after))]
pub struct Limited {
    /// A caller that waits this long, and alone uses the quota, is admitted.
    pub retry_after: Duration,
    /// For the headers of the answer; nothing remains.
    pub quota: Quota,
}

/// A duration as HTTP headers hold it: whole seconds, rounded up, so that a caller who waits that long has waited long
/// enough. Zero only for zero.
pub fn header_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}
