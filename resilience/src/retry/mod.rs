#![doc = include_str!("../../docs/retry.md")]

mod backoff;
mod budget;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use backoff::{Delays, Jitter};
pub use budget::{Budget, RetryBudget, Withdrawal};

use crate::error::{Check, SettingsError};

/// How often, after which waits and within which budget a call is made again.
///
/// ```
/// use std::time::Duration;
/// use annals_resilience::retry::{Jitter, Retry};
///
/// let retry = Retry { attempts: 4, base: Duration::from_millis(50), jitter: Jitter::Full, ..Retry::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included; at most 10. Default: 3.
    pub attempts: u32,
    /// How the waits are spread. Default: [`Jitter::Decorrelated`].
    pub jitter: Jitter,
    /// The first wait, or the shortest one with decorrelated jitter. Default: 100 ms.
    #[serde(with = "crate::duration_text")]
    pub base: Duration,
    /// No wait is longer than this, unless the dependency itself asks for it. Default: 2 s.
    #[serde(with = "crate::duration_text")]
    pub cap: Duration,
    /// Each wait is this many times longer than the one before, until the cap. Default: 2. Decorrelated waits do not use it.
    pub factor: f64,
    /// How many retries the policy may make in all. Default: a fifth of the successful calls, and 3 more, in 10 s.
    /// `None`: as many as there are failures.
    pub budget: Option<Budget>,
    /// Makes the waits repeatable. Default: `None`.
    pub seed: Option<u64>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            jitter: Jitter::Decorrelated,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(2),
            factor: 2.0,
            budget: Some(Budget::default()),
            seed: None,
        }
    }
}

const MOST_ATTEMPTS: u32 = 10;

impl Retry {
    pub(crate) fn check(&self, name: &str) -> Result<(), SettingsError> {
        let check = Check::of(name);
        if self.attempts == 0 || self.attempts > MOST_ATTEMPTS {
            return check.refuse("retry.attempts", self.attempts, "a call is made from 1 to 10 times");
        }
        check.not_zero("retry.base", self.base)?;
        check.factor("retry.factor", self.factor, ("retry.base", self.base))?;
        if self.cap < self.base {
            return check
                .two(("retry.cap", self.cap), ("retry.base", self.base))
                .refuse("the longest wait is below the first one");
        }
        self.budget.as_ref().map_or(Ok(()), |budget| budget.check(name))
    }

    /// The longest that all waits together can take.
    pub(crate) fn longest_waits(&self) -> Duration {
        self.cap.saturating_mul(self.attempts - 1)
    }
}

/// The waits can be used with `backon` directly.
impl backon::BackoffBuilder for Retry {
    type Backoff = std::iter::Take<Delays>;

    fn build(self) -> Self::Backoff {
        let waits = self.attempts.saturating_sub(1) as usize;
        self.delays().take(waits)
    }
}
