use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Retry;

/// How waits are spread, so that callers that failed together do not come back together.
///
/// With `e` = `base` times `factor` for each wait before, at most `cap`; from the article *Exponential Backoff And
/// Jitter* of the AWS Architecture Blog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// `e` itself.
    None,
    /// Anything from 0 to `e`.
    Full,
    /// Anything from half of `e` to `e`.
    Equal,
    /// Anything from `base` to three times the wait before, at most `cap`.
    #[default]
    Decorrelated,
}

/// The waits of one call, without an end; a [backon](https://docs.rs/backon) backoff.
#[derive(Debug, Clone)]
pub struct Delays {
    jitter: Jitter,
    base: f64,
    cap: Duration,
    factor: f64,
    /// How many waits there were.
    number: u32,
    /// The wait before, in seconds.
    previous: f64,
    rng: fastrand::Rng,
}

impl Retry {
    /// The waits of one call; the same ones each time if there is a seed.
    pub fn delays(&self) -> Delays {
        self.delays_with(self.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed))
    }

    pub(crate) fn delays_with(&self, rng: fastrand::Rng) -> Delays {
        let base = self.base.as_secs_f64();
        Delays { jitter: self.jitter, base, cap: self.cap, factor: self.factor, number: 0, previous: base, rng }
    }
}

impl Delays {
    /// Goes on with wait number `number`, counted from 0.
    #[must_use]
    pub fn starting_at(mut self, number: u32) -> Self {
        self.number = number;
        self
    }

    /// Numbers beyond what a float holds become infinite, and the cap makes them finite again.
    fn exponential(&self) -> f64 {
        (self.base * self.factor.powf(f64::from(self.number))).min(self.cap.as_secs_f64())
    }

    fn seconds(&mut self) -> f64 {
        let exponential = self.exponential();
        match self.jitter {
            Jitter::None => exponential,
            Jitter::Full => exponential * self.rng.f64(),
            Jitter::Equal => exponential * (0.5 + 0.5 * self.rng.f64()),
            Jitter::Decorrelated => {
                let longest = (self.previous * 3.0).min(self.cap.as_secs_f64());
                self.base + (longest - self.base).max(0.0) * self.rng.f64()
            }
        }
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = self.seconds();
        self.previous = seconds;
        self.number = self.number.saturating_add(1);
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(self.cap).min(self.cap))
    }
}
