use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::breaker::{BreakerSettings, Mode};
use crate::bulkhead::BulkheadSettings;
use crate::error::{Check, SettingsError};
use crate::rate_limit::RateLimit;
use crate::retry::Retry;

/// How quick a dependency is, and the limits that follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// 99 of 100 answers come within 100 ms: attempts of 5 s, connections within 2 s, open for 10 s.
    Fast,
    /// Within 1 s: attempts of 10 s, connections within 3 s, open for 30 s.
    #[default]
    Medium,
    /// Longer: attempts of 30 s, connections within 5 s, open for 60 s.
    Slow,
}

impl Profile {
    /// The limit of one attempt.
    pub fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Fast => 5,
            Self::Medium => 10,
            Self::Slow => 30,
        })
    }

    /// The limit of making a connection.
    pub fn connect_timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Fast => 2,
            Self::Medium => 3,
            Self::Slow => 5,
        })
    }

    /// How long the breaker stays open.
    pub fn open(self) -> Duration {
        Duration::from_secs(match self {
            Self::Fast => 10,
            Self::Medium => 30,
            Self::Slow => 60,
        })
    }

    /// The breaker of a policy that is given none: the defaults, open for as long as [`Profile::open`] says. A start for one
    /// that differs in a few settings.
    ///
    /// ```
    /// use annals_resilience::{Policy, Profile, breaker::BreakerSettings};
    ///
    /// let breaker = BreakerSettings { failure_rate: Some(0.3), ..Profile::Slow.breaker() };
    /// assert_eq!(breaker.open.as_secs(), 60);
    /// let reports = Policy::slow("reports").breaker(breaker).build()?;
    /// # Ok::<(), annals_resilience::SettingsError>(())
    /// ```
    pub fn breaker(self) -> BreakerSettings {
        BreakerSettings { open: self.open(), ..BreakerSettings::default() }
    }
}

/// A policy as a settings file has it. What is left out comes from the profile, or is not used. Durations are texts with a
/// unit: `250ms`, `1.5s`, `10min`. The [page of defaults](crate::defaults) has an example in TOML.
///
/// ```
/// use annals_resilience::{Policy, PolicySettings};
///
/// let text = r#"{"profile": "fast", "timeout": "800ms", "retry": {"attempts": 2}, "bulkhead": 20}"#;
/// let settings: PolicySettings = serde_json::from_str(text)?;
/// let stock = Policy::from_settings("stock", settings)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// Where the limits come from that are not given. Default: medium.
    pub profile: Profile,
    /// The limit of one attempt.
    #[serde(with = "crate::duration_text::option")]
    pub timeout: Option<Duration>,
    /// The limit of making a connection, handed to the closure.
    #[serde(with = "crate::duration_text::option")]
    pub connect_timeout: Option<Duration>,
    /// The limit of waiting for the next bytes, handed to the closure. Default: the attempt's limit.
    #[serde(with = "crate::duration_text::option")]
    pub read_timeout: Option<Duration>,
    /// The limit of a call with all its attempts and waits. Default: what they can take together.
    #[serde(with = "crate::duration_text::option")]
    pub deadline: Option<Duration>,
    /// Calls in a span of time. Default: no limit.
    pub rate_limit: Option<RateLimit>,
    /// Further attempts. Default: none.
    pub retry: Option<Retry>,
    /// The breaker, in place of the profile's. What it leaves out has the breaker's defaults, not the profile's: without
    /// `open` it is open for 30 s.
    pub breaker: Option<BreakerSettings>,
    /// The mode in which the breaker begins; `disabled` for none.
    pub breaker_mode: Mode,
    /// Calls at once. Default: no limit.
    pub bulkhead: Option<BulkheadSettings>,
}

/// Settings with the profile's values filled in, checked.
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) connect: Duration,
    pub(super) read: Duration,
    pub(super) breaker: BreakerSettings,
    /// What attempts and waits can take together.
    pub(super) longest: Duration,
}

impl PolicySettings {
    /// The same with the profile's values filled in.
    pub(super) fn completed(&self, limits: &Limits) -> Self {
        Self {
            timeout: Some(limits.timeout),
            connect_timeout: Some(limits.connect),
            read_timeout: Some(limits.read),
            deadline: Some(limits.longest),
            breaker: Some(limits.breaker.clone()),
            ..self.clone()
        }
    }

    pub(super) fn check(&self, name: &str) -> Result<Limits, SettingsError> {
        let check = Check::of(name);
        let timeout = self.timeout.unwrap_or_else(|| self.profile.timeout());
        check.not_zero("timeout", timeout)?;
        for (name, time) in [("connect_timeout", self.connect_timeout), ("read_timeout", self.read_timeout)] {
            if time == Some(Duration::ZERO) {
                check.refuse(name, time, "it must be above zero")?;
            }
            if time.is_some_and(|time| time > timeout) {
                check.two((name, time), ("timeout", timeout)).refuse("the attempt would end before it")?;
            }
        }
        if let Some(bulkhead) = &self.bulkhead {
            bulkhead.check(name)?;
            if bulkhead.queue > 0 && bulkhead.wait.is_none() && self.deadline.is_none() {
                check
                    .two(("bulkhead.wait", bulkhead.wait), ("deadline", self.deadline))
                    .refuse("a call could wait for a slot for ever")?;
            }
        }
        if let Some(rate_limit) = &self.rate_limit {
            rate_limit.check(name)?;
        }
        if let Some(retry) = &self.retry {
            retry.check(name)?;
        }
        let breaker = self.breaker.clone().unwrap_or_else(|| {
            // A probe may take as long as an attempt.
            let lease = Duration::from_secs(60).max(timeout.saturating_mul(2));
            BreakerSettings { probe_lease: lease, ..self.profile.breaker() }
        });
        breaker.check(name)?;
        if breaker.probe_lease < timeout {
            check
                .two(("breaker.probe_lease", breaker.probe_lease), ("timeout", timeout))
                .refuse("a probe would lose its place before its attempt ends")?;
        }
        if breaker.slow_call.is_some_and(|slow| slow >= timeout) {
            check
                .two(("breaker.slow_call", breaker.slow_call), ("timeout", timeout))
                .refuse("attempts are cut off before they are slow")?;
        }
        let longest = self.longest(timeout);
        if let Some(deadline) = self.deadline
            && deadline < longest
        {
            check
                .two(("deadline", deadline), ("timeout", timeout))
                .refuse(&format!("attempts, waits and queueing can take {longest:?} in all"))?;
        }
        Ok(Limits {
            timeout,
            connect: self.connect_timeout.unwrap_or_else(|| self.profile.connect_timeout().min(timeout)),
            read: self.read_timeout.unwrap_or(timeout),
            breaker,
            longest: self.deadline.unwrap_or(longest),
        })
    }

    fn longest(&self, timeout: Duration) -> Duration {
        let queueing = self.bulkhead.as_ref().filter(|bulkhead| bulkhead.queue > 0).and_then(|bulkhead| bulkhead.wait);
        let attempt = timeout.saturating_add(queueing.unwrap_or_default());
        let (attempts, waits) =
            self.retry.as_ref().map_or((1, Duration::ZERO), |retry| (retry.attempts, retry.longest_waits()));
        attempt.saturating_mul(attempts).saturating_add(waits)
    }
}
