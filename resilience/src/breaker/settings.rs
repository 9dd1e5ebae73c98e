use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Check, SettingsError};
use crate::ratio::Ratio;

/// What opens a breaker, for how long, and what closes it again.
///
/// ```
/// use std::time::Duration;
/// use annals_resilience::breaker::{Breaker, BreakerSettings, WindowSettings};
///
/// let settings = BreakerSettings {
///     window: WindowSettings::Calls(20),
///     failure_rate: Some(0.25),
///     open: Duration::from_secs(10),
///     ..BreakerSettings::default()
/// };
/// let breaker = Breaker::new("stock", settings)?;
/// # Ok::<(), annals_resilience::SettingsError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// Which finished calls count while the breaker is closed. Default: the last 10 calls.
    pub window: WindowSettings,
    /// Rates are looked at only with this many calls in the window. Default: 10.
    pub minimum_calls: u32,
    /// Opens at this share of failed calls in the window, above 0 and at most 1. Default: 0.5. `None`: not looked at.
    pub failure_rate: Option<f64>,
    /// A call is slow from this duration on. Default: `None`, no call is slow.
    ///
    /// Must be given together with `slow_rate`. A slow probe counts as a failed one, and a call that is dropped after
    /// this time counts as slow.
    #[serde(with = "crate::duration_text::option")]
    pub slow_call: Option<Duration>,
    /// Opens at this share of slow calls in the window, above 0 and at most 1. Default: `None`, not looked at.
    pub slow_rate: Option<f64>,
    /// Opens after this many failures one after another, whatever `minimum_calls` says. Default: `None`, not looked at.
    pub consecutive_failures: Option<u32>,
    /// How long the breaker stays open. Default: 30 s.
    #[serde(with = "crate::duration_text")]
    pub open: Duration,
    /// Each further opening without a closing in between stays open this many times longer. Default: 2; 1: no growth.
    pub open_growth: f64,
    /// An upper bound of the grown period. Default: 5 min.
    #[serde(with = "crate::duration_text")]
    pub open_cap: Duration,
    /// A grown period is shortened by a random share of up to this, so that many processes do not probe at the same
    /// moment; it never falls below `open`. Default: 0.1.
    pub open_jitter: f64,
    /// How many calls are admitted while the breaker is half-open. Default: 3.
    pub probes: u32,
    /// Closes after this many successful probes one after another; at most `probes`. Default: 2.
    pub closes_after: u32,
    /// A probe without a result gives its place back after this time; its result counts no more. Default: 60 s.
    #[serde(with = "crate::duration_text")]
    pub probe_lease: Duration,
    /// Makes the jitter repeatable. Default: `None`, another one in each process.
    pub seed: Option<u64>,
}

/// The calls that a closed breaker looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowSettings {
    /// The last so many calls, at most 100,000.
    Calls(u32),
    /// The calls that ended within this time. A tenth of it is forgotten at once, so between 0.9 and 1 of it counts.
    Time(#[serde(with = "crate::duration_text")] Duration),
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            window: WindowSettings::Calls(10),
            minimum_calls: 10,
            failure_rate: Some(0.5),
            slow_call: None,
            slow_rate: None,
            consecutive_failures: None,
            open: Duration::from_secs(30),
            open_growth: 2.0,
            open_cap: Duration::from_secs(300),
            open_jitter: 0.1,
            probes: 3,
            closes_after: 2,
            probe_lease: Duration::from_secs(60),
            seed: None,
        }
    }
}

const LARGEST_WINDOW: u32 = 100_000;
const MOST_PROBES: u32 = 1_000;

impl BreakerSettings {
    /// Refuses settings that cannot work, alone or together.
    pub(crate) fn check(&self, name: &str) -> Result<(), SettingsError> {
        let check = Check::of(name);
        match self.window {
            WindowSettings::Calls(calls) => {
                if calls == 0 || calls > LARGEST_WINDOW {
                    return check.refuse("breaker.window", calls, "a window holds from 1 to 100,000 calls");
                }
                if self.minimum_calls > calls {
                    let calls = format!("{calls} calls");
                    return check
                        .two(("breaker.minimum_calls", self.minimum_calls), ("breaker.window", calls))
                        .refuse("the window never holds that many calls, so no rate would ever open the breaker");
                }
            }
            WindowSettings::Time(time) if time < Duration::from_millis(1) => {
                return check.refuse("breaker.window", time, "a window is at least 1 ms long");
            }
            WindowSettings::Time(_) => {}
        }
        check.not_zero("breaker.minimum_calls", self.minimum_calls)?;
        check.rate("breaker.failure_rate", self.failure_rate)?;
        check.rate("breaker.slow_rate", self.slow_rate)?;
        if self.slow_call.is_some() != self.slow_rate.is_some() {
            return check
                .two(("breaker.slow_call", self.slow_call), ("breaker.slow_rate", self.slow_rate))
                .refuse("one of them has no effect without the other");
        }
        if self.slow_call == Some(Duration::ZERO) {
            return check.refuse("breaker.slow_call", Duration::ZERO, "every call would be slow");
        }
        if self.consecutive_failures == Some(0) {
            return check.refuse("breaker.consecutive_failures", 0_u32, "it would open without a failure");
        }
        if self.failure_rate.is_none() && self.slow_rate.is_none() && self.consecutive_failures.is_none() {
            return check
                .two(("breaker.failure_rate", "none"), ("breaker.consecutive_failures", "none"))
                .refuse("nothing would ever open the breaker");
        }
        check.not_zero("breaker.open", self.open)?;
        check.factor("breaker.open_growth", self.open_growth, ("breaker.open", self.open))?;
        if self.open_cap < self.open {
            return check
                .two(("breaker.open_cap", self.open_cap), ("breaker.open", self.open))
                .refuse("the cap of the open period is below the period");
        }
        if Ratio::new(self.open_jitter).is_none() {
            return check.refuse("breaker.open_jitter", self.open_jitter, "a share is from 0 to 1");
        }
        if self.probes == 0 || self.probes > MOST_PROBES {
            return check.refuse("breaker.probes", self.probes, "a half-open breaker admits from 1 to 1,000 calls");
        }
        check.not_zero("breaker.closes_after", self.closes_after)?;
        if self.closes_after > self.probes {
            return check
                .two(("breaker.closes_after", self.closes_after), ("breaker.probes", self.probes))
                .refuse("there are fewer probes than successes asked for, so it would never close");
        }
        check.not_zero("breaker.probe_lease", self.probe_lease)
    }
}
