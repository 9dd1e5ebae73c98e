//! Percentiles of latencies.

use std::fmt;
use std::time::Duration;

/// Latencies, the least first. They are all kept, so that each percentile is one that was measured.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(all: I) -> Self {
        let mut all: Vec<Duration> = all.into_iter().collect();
        all.sort_unstable();
        Self(all)
    }
}

impl Latencies {
    /// So many in a thousand took at most this; nothing if there are none.
    pub fn in_a_thousand(&self, so_many: usize) -> Duration {
        let rank = (self.0.len() * so_many).div_ceil(1_000);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, so_many) in [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999), ("at most", 1_000)] {
            let milliseconds = self.in_a_thousand(so_many).as_secs_f64() * 1e3;
            let space = if so_many == 500 { "" } else { "   " };
            write!(f, "{space}{name} {milliseconds:.1} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_latency_that_so_many_do_not_exceed() {
        let all: Latencies = (1..=1_000).rev().map(Duration::from_millis).collect();
        let milliseconds = [1, 500, 999, 1_000].map(|so_many| all.in_a_thousand(so_many).as_millis());
        assert_eq!(milliseconds, [1, 500, 999, 1_000]);
        let few: Latencies = [3, 1, 2].map(Duration::from_millis).into_iter().collect();
        assert_eq!([500, 990].map(|so_many| few.in_a_thousand(so_many).as_millis()), [2, 3]);
        assert_eq!(Latencies::default().in_a_thousand(990), Duration::ZERO);
    }
}
