use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::{NotUntil, nanos::Nanos};

use super::clock::TokioClock;
use super::store::Bounded;
use super::{Limited, Quota, RateLimit};
use crate::error::SettingsError;

type Governor<K> = governor::RateLimiter<K, Bounded<K>, TokioClock, StateInformationMiddleware>;

/// A quota for each key.
///
/// Memory is bounded: at most [`RateLimit::keys`] keys are counted apart. Those whose quota is full again are forgotten
/// when there is no room; while there is none, all new keys together share one quota, and known keys keep theirs.
pub struct RateLimiter<K: Hash + Eq + Clone> {
    governor: Governor<K>,
    store: Bounded<K>,
    clock: TokioClock,
    settings: RateLimit,
    /// The time between two calls in the long run.
    interval: Duration,
    burst: u32,
}

impl<K: Hash + Eq + Clone> RateLimiter<K> {
    /// `name` appears in errors.
    ///
    /// # Errors
    /// [`SettingsError`] names the settings that cannot work.
    pub fn new(name: &str, settings: RateLimit) -> Result<Self, SettingsError> {
        settings.check(name)?;
        let interval = settings.interval();
        let burst = settings.burst.unwrap_or(settings.calls);
        let quota = governor::Quota::with_period(interval).expect("the interval was checked to be above zero");
        let quota = quota.allow_burst(NonZeroU32::new(burst).expect("the burst was checked to be above zero"));
        let clock = TokioClock::new();
        let store = Bounded::new(settings.keys, clock.clone());
        Ok(Self {
            governor: Governor::new(quota, store.clone(), clock.clone()),
            store,
            clock,
            settings,
            interval,
            burst,
        })
    }

    /// Counts one call of `key`, if its quota allows it. A refused call counts nothing.
    ///
    /// # Errors
    /// [`Limited`] says when the next one passes.
    pub fn check(&self, key: &K) -> Result<Quota, Limited> {
        match self.governor.check_key(key) {
            Ok(state) => Ok(self.quota(state.remaining_burst_capacity())),
            Err(until) => Err(self.limited(&until)),
        }
    }

    /// Keys that are counted apart at this moment.
    pub fn keys(&self) -> usize {
        self.store.len()
    }

    /// The settings.
    pub fn settings(&self) -> &RateLimit {
        &self.settings
    }

    fn quota(&self, remaining: u32) -> Quota {
        Quota { limit: self.burst, remaining, reset: self.interval * (self.burst - remaining.min(self.burst)) }
    }

    fn limited(&self, until: &NotUntil<Nanos>) -> Limited {
        let retry_after = until.wait_time_from(self.clock.now());
        // One call passes then; the rest of the burst comes back one by one.
        let reset = retry_after + self.interval * (self.burst - 1);
        Limited { retry_after, quota: Quota { reset, ..self.quota(0) } }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("settings", &self.settings).field("keys", &self.keys()).finish()
    }
}
