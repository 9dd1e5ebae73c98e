#![doc = include_str!("../../docs/policy.md")]

mod builder;
mod call;
mod engine;
#[cfg(feature = "tower")]
mod layer;
mod metrics;
mod pending;
mod registry;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use builder::PolicyBuilder;
pub use call::{Call, IdempotencyKey, KeyError};
#[cfg(feature = "tower")]
pub use layer::{PolicyLayer, PolicyService};
pub use pending::Pending;
pub use registry::{DuplicatePolicy, Policies, UnknownPolicy};
pub use settings::{PolicySettings, Profile};

use crate::breaker::{Breaker, BreakerSnapshot};
use crate::bulkhead::Bulkhead;
use crate::chaos::ChaosSettings;
use crate::class::ByError;
use crate::error::SettingsError;
use crate::retry::RetryBudget;
use engine::Engine;

/// The guards around calls to one dependency, see [the module](self). Clones share one state.
#[derive(Clone)]
pub struct Policy {
    engine: Arc<Engine>,
}

impl Policy {
    /// For a dependency that answers within 100 ms, see [`Profile::Fast`].
    pub fn fast(name: impl Into<Arc<str>>) -> PolicyBuilder {
        PolicyBuilder::new(name.into(), Profile::Fast)
    }

    /// For a dependency that answers within 1 s, see [`Profile::Medium`].
    pub fn medium(name: impl Into<Arc<str>>) -> PolicyBuilder {
        PolicyBuilder::new(name.into(), Profile::Medium)
    }

    /// For a dependency that takes longer, see [`Profile::Slow`].
    pub fn slow(name: impl Into<Arc<str>>) -> PolicyBuilder {
        PolicyBuilder::new(name.into(), Profile::Slow)
    }

    /// A policy from a settings file.
    ///
    /// # Errors
    /// [`SettingsError`] names the settings that cannot work.
    pub fn from_settings(name: impl Into<Arc<str>>, settings: PolicySettings) -> Result<Self, SettingsError> {
        PolicyBuilder::with(name.into(), settings).build()
    }

    /// A call that may be made several times: it reads, or doing it twice is the same as once.
    pub fn idempotent<'a, F, Fut>(&self, call: F) -> Pending<'a, F, ByError>
    where
        F: FnMut(Call) -> Fut + 'a,
    {
        Pending::new(self.clone(), true, call)
    }

    /// A call that has its effect once for each key, however often it is made: each attempt is handed the key, to send it
    /// along.
    pub fn keyed<'a, F, Fut>(
        &self,
        key: &'a IdempotencyKey,
        mut call: F,
    ) -> Pending<'a, impl FnMut(Call) -> Fut + 'a, ByError>
    where
        F: FnMut(Call, &'a IdempotencyKey) -> Fut + 'a,
    {
        Pending::new(self.clone(), true, move |attempt| call(attempt, key))
    }

    /// A call that must not be made twice: it is never made again.
    pub fn once<'a, F, Fut>(&self, call: F) -> Pending<'a, impl FnMut(Call) -> Fut + 'a, ByError>
    where
        F: FnOnce(Call) -> Fut + 'a,
    {
        let mut call = Some(call);
        Pending::new(self.clone(), false, move |attempt| {
            let call = call.take().expect("a call that is not repeated has one attempt");
            call(attempt)
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.engine.name
    }

    /// What the policy was made of, with the profile's values filled in: for a page that a person reads.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use annals_resilience::Policy;
    ///
    /// let settings = Policy::fast("stock").bulkhead(20).build()?.settings().clone();
    /// assert_eq!(settings.timeout, Some(Duration::from_secs(5)));
    /// assert_eq!(settings.breaker.map(|breaker| breaker.open), Some(Duration::from_secs(10)));
    /// assert_eq!((settings.bulkhead.map(|bulkhead| bulkhead.slots), settings.retry), (Some(20), None));
    /// # Ok::<(), annals_resilience::SettingsError>(())
    /// ```
    pub fn settings(&self) -> &PolicySettings {
        &self.engine.settings
    }

    /// The longest that a call can take, with all attempts and waits; a wait that the dependency asks for is included.
    pub fn longest(&self) -> Duration {
        self.engine.limits.longest
    }

    /// The breaker, to watch it or to hold it open or closed.
    pub fn breaker(&self) -> &Breaker {
        &self.engine.breaker
    }

    /// Switches [chaos](crate::chaos) on, with its first attempt next, or off. It is off until then.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that cannot work; nothing is changed.
    pub fn set_chaos(&self, settings: Option<ChaosSettings>) -> Result<(), SettingsError> {
        if let Some(settings) = &settings {
            settings.check(&self.engine.name)?;
            tracing::warn!(policy = &*self.engine.name, seed = settings.seed, "chaos is on");
        }
        self.engine.chaos.set(settings);
        Ok(())
    }

    /// The state at this moment.
    pub fn state(&self) -> PolicyState {
        let Engine { name, breaker, bulkhead, budget, .. } = &*self.engine;
        PolicyState {
            name: name.to_string(),
            breaker: breaker.snapshot(),
            in_use: bulkhead.as_ref().map(Bulkhead::in_use),
            waiting: bulkhead.as_ref().map(Bulkhead::waiting),
            retries_left: budget.as_ref().map(RetryBudget::left),
        }
    }
}

/// A policy at one moment, for a page that a person reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyState {
    /// The policy.
    pub name: String,
    /// Its breaker.
    pub breaker: BreakerSnapshot,
    /// Slots of the bulkhead that are taken.
    pub in_use: Option<u32>,
    /// Calls that wait for a slot.
    pub waiting: Option<u32>,
    /// Retries that the budget allows now.
    pub retries_left: Option<u64>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("state", &self.state()).finish()
    }
}
