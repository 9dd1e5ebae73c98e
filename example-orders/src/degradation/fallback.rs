//! An answer that may be a lesser one, and says so: the one of now, one that was kept, or a default.

use std::future::Future;
use std::hash::Hash;

use annals::resilience::fallback::{CacheSettings, StaleCache};
use annals::resilience::toggle::Toggle;
use annals::resilience::{Call, Classify, Deadline, Policy, SettingsError};
use serde::Serialize;
use utoipa::ToSchema;

/// Where an answer comes from: the `source`, now or a minute ago; a `cache`, which says what the source did some minutes ago; or it is a
/// `default`, as there is nothing else, or the feature is off.
#[derive(Serialize, ToSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// It is as of now, or of a minute ago.
    Source,
    /// The source fails, and this is what it said some minutes ago.
    Cache,
    /// There is nothing else, or the feature is off.
    Default,
}

/// An answer, and where it comes from.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The answer.
    pub value: T,
    /// Where it comes from.
    pub from: AnsweredBy,
}

/// A source that may fail, the cache in front of it, and the default behind it.
pub struct WithFallback<K, T> {
    policy: Policy,
    cache: StaleCache<K, T>,
    toggle: Toggle<bool>,
    default: T,
}

impl<K, T> WithFallback<K, T>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Answers by `policy` while `toggle` is on, else `default`.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(
        policy: Policy,
        toggle: Toggle<bool>,
        default: T,
        settings: CacheSettings,
    ) -> Result<Self, SettingsError> {
        Ok(Self { cache: StaleCache::new(policy.name(), settings)?, policy, toggle, default })
    }

    /// The answer for a key, which `read` reads. It never fails.
    pub async fn get<E, F, Fut>(&self, key: K, deadline: Deadline, read: F) -> Given<T>
    where
        E: Classify + Send,
        F: FnMut(Call) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let default = || Given { value: self.default.clone(), from: AnsweredBy::Default };
        if !self.toggle.is_on() {
            // A call that is not made is no failure.
            return default();
        }
        let entry = self.cache.entry(key);
        match self.policy.idempotent(read).deadline(deadline).or_cached(&entry).await {
            Ok(answer) if answer.stale => Given { value: answer.value, from: AnsweredBy::Cache },
            Ok(answer) => Given { value: answer.value, from: AnsweredBy::Source },
            Err(_) => default(),
        }
    }

    /// Forgets what was kept for a key: it has changed.
    pub fn changed(&self, key: &K) {
        self.cache.invalidate(key);
    }
}
