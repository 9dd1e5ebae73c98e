use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::engine::Engine;
use super::metrics::Metrics;
use super::{Policy, PolicySettings, Profile};
use crate::breaker::{Breaker, BreakerSettings, Mode};
use crate::bulkhead::{Bulkhead, BulkheadSettings};
use crate::chaos::Switch;
use crate::error::{Check, SettingsError};
use crate::rate_limit::{RateLimit, RateLimiter};
use crate::retry::{Retry, RetryBudget};

/// Settings of a policy, given one by one.
#[derive(Debug, Clone)]
#[must_use = "`build` makes the policy"]
pub struct PolicyBuilder {
    name: Arc<str>,
    settings: PolicySettings,
    sequence: Vec<(Arc<str>, Duration)>,
}

impl PolicyBuilder {
    pub(super) fn new(name: Arc<str>, profile: Profile) -> Self {
        Self::with(name, PolicySettings { profile, ..PolicySettings::default() })
    }

    pub(super) fn with(name: Arc<str>, settings: PolicySettings) -> Self {
        Self { name, settings, sequence: Vec::new() }
    }

    /// The limit of one attempt.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// The limit of making a connection, see [`Call::connect_timeout`](super::Call::connect_timeout).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = Some(timeout);
        self
    }

    /// The limit of waiting for the next bytes, see [`Call::read_timeout`](super::Call::read_timeout).
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read_timeout = Some(timeout);
        self
    }

    /// The limit of a call with all its attempts and waits.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = Some(deadline);
        self
    }

    /// Makes calls again that failed for a reason that passes.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = Some(retry);
        self
    }

    /// So many calls at once: a number of slots, or [`BulkheadSettings`].
    pub fn bulkhead(mut self, bulkhead: impl Into<BulkheadSettings>) -> Self {
        self.settings.bulkhead = Some(bulkhead.into());
        self
    }

    /// So many calls in a span of time, all callers together.
    pub fn rate_limit(mut self, rate_limit: RateLimit) -> Self {
        self.settings.rate_limit = Some(rate_limit);
        self
    }

    /// A breaker in place of the profile's, which [`Profile::breaker`](crate::Profile::breaker) gives as a start.
    pub fn breaker(mut self, breaker: BreakerSettings) -> Self {
        self.settings.breaker = Some(breaker);
        self
    }

    /// The mode in which the breaker begins; [`Mode::Disabled`] for none.
    pub fn breaker_mode(mut self, mode: Mode) -> Self {
        self.settings.breaker_mode = mode;
        self
    }

    /// Says that each attempt makes calls through these policies, one after another; so it must be given the time for
    /// them.
    pub fn in_sequence<'p>(mut self, children: impl IntoIterator<Item = &'p Policy>) -> Self {
        self.sequence.extend(children.into_iter().map(|child| (child.engine.name.clone(), child.longest())));
        self
    }

    /// Makes the policy.
    ///
    /// Its metrics go to the recorder that is installed by then.
    ///
    /// # Errors
    /// [`SettingsError`] names the settings that cannot work, alone or together.
    pub fn build(self) -> Result<Policy, SettingsError> {
        let Self { name, settings, sequence } = self;
        let limits = settings.check(&name)?;
        let sum = sequence.iter().fold(Duration::ZERO, |sum, (_, longest)| sum.saturating_add(*longest));
        if limits.timeout < sum {
            let children: Vec<_> = sequence.iter().map(|(name, longest)| format!("`{name}` {longest:?}")).collect();
            Check::of(&name)
                .two(("timeout", limits.timeout), ("in_sequence", children.join(" + ")))
                .refuse(&format!("the calls that an attempt makes can take {sum:?}"))?;
        }
        let breaker = Breaker::new_in(settings.breaker_mode, name.clone(), limits.breaker.clone())?;
        let budget = settings.retry.as_ref().and_then(|retry| retry.budget.as_ref());
        let seed = settings.retry.as_ref().and_then(|retry| retry.seed);
        let completed = settings.completed(&limits);
        let engine = Engine {
            settings: completed,
            metrics: Metrics::new(&name),
            rate_limit: settings.rate_limit.map(|limit| RateLimiter::new(&name, limit)).transpose()?,
            budget: budget.map(|budget| RetryBudget::new(&name, budget)).transpose()?,
            bulkhead: settings.bulkhead.map(|bulkhead| Bulkhead::new(&name, bulkhead)).transpose()?,
            rng: Mutex::new(seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)),
            retry: settings.retry,
            chaos: Switch::default(),
            breaker,
            limits,
            name,
        };
        Ok(Policy { engine: Arc::new(engine) })
    }
}
