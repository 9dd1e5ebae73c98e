//! How long to wait before trying again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(5);

/// Waits that double up to five seconds, each cut down at random by up to a half, so that many runners do not come back at
/// the same moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.tries.min(10)).min(MOST);
        self.tries += 1;
        whole.mul_f64(1.0 - fastrand::f64() / 2.0)
    }
}
