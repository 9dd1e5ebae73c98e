//! How fast something goes, averaged over the last seconds.

use std::time::Duration;

use tokio::time::Instant;

/// Over about how long it is averaged: what lies further back has a share of less than 1/e.
const OVER: Duration = Duration::from_secs(10);

/// An average that forgets exponentially.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// How much a second it was when something was last counted, and when that was.
    last: Option<(f64, Instant)>,
}

impl Pace {
    /// Counts so many, now.
    pub(crate) fn count(&mut self, more: usize, now: Instant) {
        if more > 0 {
            self.last = Some((self.per_second(now) + more as f64 / OVER.as_secs_f64(), now));
        }
    }

    /// How many a second it is.
    pub(crate) fn per_second(&self, now: Instant) -> f64 {
        self.last.map_or(0.0, |(then, at)| then * (-(now - at).as_secs_f64() / OVER.as_secs_f64()).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_of_something_steady_is_known_after_half_a_minute_and_forgotten_after_another() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        assert_eq!(pace.per_second(begin), 0.0);
        for tenth in 1..=300 {
            pace.count(50, begin + Duration::from_millis(100) * tenth);
        }
        let after = |seconds| pace.per_second(begin + Duration::from_secs(seconds));
        assert!((450.0..505.0).contains(&after(30)), "{}", after(30));
        assert!((1.0..30.0).contains(&after(60)), "{}", after(60));
    }
}
