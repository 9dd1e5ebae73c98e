//! How long a subscription waits before it reads again after a transient error.

use std::time::Duration;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// Delays that double up to a maximum. Up to half of each is subtracted at random, so that the readers of a recovered
/// store do not all retry at once.
pub(super) struct Backoff {
    random: fastrand::Rng,
    failures: u32,
}

impl Backoff {
    /// The waits that belong to `seed`.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), failures: 0 }
    }

    /// The wait after one more failure.
    pub(super) fn next_wait(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        whole.mul_f64(1.0 - self.random.f64() / 2.0)
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
