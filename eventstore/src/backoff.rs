//! How long a reader or a runner waits before it tries again after a transient error.

use std::time::Duration;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits of 50 ms and more before further tries of the same work, for those who read the log or run work of their own.
///
/// They double up to 5 s. Up to half of each is subtracted at random, so that those who wait for a recovered store do not
/// all come back at once. After a success begin anew, with another [`Backoff::default`].
///
/// ```
/// use std::time::Duration;
///
/// use annals_eventstore::Backoff;
///
/// let mut backoff = Backoff::default();
/// let first = backoff.next_wait();
/// assert!(Duration::from_millis(25) <= first && first <= Duration::from_millis(50));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    random: fastrand::Rng,
    failures: u32,
}

impl Backoff {
    /// The waits that belong to `seed`, the same each time.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), ..Self::default() }
    }

    /// Waits that double from `first` to `longest`, for work that has its own times.
    #[must_use]
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self { first, longest, ..Self::default() }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures += 1;
        whole.mul_f64(1.0 - self.random.f64() / 2.0)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: FIRST, longest: LONGEST, random: fastrand::Rng::new(), failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_first_to_the_longest_and_lose_at_most_a_half() {
        for seed in 0..200 {
            let mut backoff = Backoff::seeded(seed);
            let mut whole = FIRST;
            for _ in 0..40 {
                let wait = backoff.next_wait();
                assert!(whole / 2 <= wait && wait <= whole, "seed {seed}: {wait:?} of {whole:?}");
                whole = (whole * 2).min(LONGEST);
            }
            assert_eq!(whole, LONGEST);
        }
    }

    #[test]
    fn the_seed_alone_decides_the_waits() {
        let waits = |seed| {
            let mut backoff = Backoff::seeded(seed);
            [backoff.next_wait(), backoff.next_wait(), backoff.next_wait()]
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}
