use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moka::policy::EvictionPolicy;
use tokio::time::Instant;

use super::{CacheSettings, Cached};
use crate::deadline::Deadline;
use crate::error::{CallError, Guard, Reason, Refusal, SettingsError, TimeLimit};

/// Answers by key, kept for when they are fresh and for when there is nothing better. Clones share them.
pub struct StaleCache<K, T> {
    slots: moka::sync::Cache<K, Arc<Slot<T>>>,
    settings: CacheSettings,
}

/// What is known of one key.
struct Slot<T> {
    state: Mutex<State<T>>,
    /// Held by the one that loads, so that there is one call at a time.
    loading: tokio::sync::Mutex<()>,
}

struct State<T> {
    answer: Option<(T, Instant)>,
    /// Grows with each invalidation: what was loaded before is not stored after it.
    generation: u64,
    /// Answers that were stored.
    answers: u64,
    /// Loads whose call was at fault, which is no answer for another's call.
    faults: u64,
    /// Loads that ended in another error, and the last one.
    failures: u64,
    last_failure: Option<Failure>,
}

/// An error without its source, which only the one that made the call has.
#[derive(Clone)]
struct Failure {
    policy: Arc<str>,
    attempts: u32,
    cut_off: u32,
    reason: Reason,
}

impl<T> Slot<T> {
    fn new() -> Self {
        let state = State { answer: None, generation: 0, answers: 0, faults: 0, failures: 0, last_failure: None };
        Self { state: Mutex::new(state), loading: tokio::sync::Mutex::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, T: Clone + Send + Sync + 'static> StaleCache<K, T> {
    /// An empty cache. `name` appears in errors.
    ///
    /// # Errors
    /// [`SettingsError`] names the settings that cannot work.
    pub fn new(name: &str, settings: CacheSettings) -> Result<Self, SettingsError> {
        settings.check(name)?;
        // Each new key must get its slot, or its callers would not find each other: moka's own policy admits popular ones only.
        let slots =
            moka::sync::Cache::builder().max_capacity(settings.keys).eviction_policy(EvictionPolicy::lru()).build();
        Ok(Self { slots, settings })
    }

    /// The entry of a key, for `or_cached`. It need not be there yet.
    pub fn entry(&self, key: K) -> Entry<T> {
        let slots = self.slots.clone();
        let slot = move || slots.get_with(key.clone(), || Arc::new(Slot::new()));
        Entry { slot: Box::new(slot), settings: self.settings.clone() }
    }

    /// Forgets the answer of a key. A load that is under way gives its answer to its callers, but not to the cache.
    pub fn invalidate(&self, key: &K) {
        if let Some(slot) = self.slots.get(key) {
            let mut state = slot.lock();
            state.generation += 1;
            state.answer = None;
        }
    }
}

/// What a [`StaleCache`] knows of one key. It may be held for as long as one likes.
pub struct Entry<T> {
    /// Looked up for each question: a slot that had to leave the cache is not reached by an invalidation.
    slot: Box<dyn Fn() -> Arc<Slot<T>> + Send + Sync>,
    settings: CacheSettings,
}

impl<T: Clone> Entry<T> {
    /// The fresh answer, or that of `call`, or a stale one. Of many callers one calls, and the others get what it got, or
    /// a stale answer when their deadline comes first.
    pub(super) async fn get<E>(
        &self,
        policy: Arc<str>,
        deadline: Deadline,
        call: impl Future<Output = Result<T, CallError<E>>>,
    ) -> Result<Cached<T>, CallError<E>> {
        let slot = (self.slot)();
        let (answers, failures, faults) = {
            let state = slot.lock();
            if let Some(fresh) = self.fresh(&state) {
                return Ok(fresh);
            }
            (state.answers, state.failures, state.faults)
        };
        let Ok(loading) = deadline.run(slot.loading.lock()).await else {
            let reason = Reason::Refused(Refusal::DeadlineOver);
            let error = CallError { policy, attempts: 0, cut_off: 0, reason, source: None };
            return self.stale(&slot.lock()).ok_or(error);
        };
        let mut loading = Some(loading);
        let generation = {
            let state = slot.lock();
            if let Some(fresh) = self.fresh(&state) {
                return Ok(fresh);
            }
            // The answer that this one waited for is its own, also if nothing is fresh for as long as that.
            if let Some((value, at)) = state.answer.as_ref().filter(|_| state.answers > answers) {
                return Ok(Cached { value: value.clone(), age: Some(at.elapsed()), stale: false });
            }
            // The call that this one waited for failed: making it again would only fail again, one after another.
            if let Some(failure) = state.last_failure.clone().filter(|_| state.failures > failures) {
                let Failure { policy, attempts, cut_off, reason } = failure;
                let error = CallError { policy, attempts, cut_off, reason, source: None };
                return self.stale(&state).ok_or(error);
            }
            // The call that this one waited for was at fault. If all are, they must not be made one after another.
            if state.faults > faults {
                drop(loading.take());
            }
            state.generation
        };
        let result = call.await;
        // `loading` is held until the answer is stored, or the next one would call again.
        let mut state = slot.lock();
        match result {
            Ok(value) => {
                if state.generation == generation {
                    state.answer = Some((value.clone(), Instant::now()));
                    state.answers += 1;
                }
                Ok(Cached { value, age: Some(std::time::Duration::ZERO), stale: false })
            }
            Err(error) if error.call_at_fault() => {
                state.faults += 1;
                Err(error)
            }
            Err(error) => {
                // This caller's deadline says nothing to those who have more time.
                let in_a_hurry = error.guard() == Some(Guard::Deadline)
                    || matches!(error.reason, Reason::TimedOut { limit: TimeLimit::Deadline });
                if !in_a_hurry {
                    let CallError { policy, attempts, cut_off, reason, .. } = &error;
                    let (policy, attempts, cut_off, reason) = (policy.clone(), *attempts, *cut_off, *reason);
                    state.failures += 1;
                    state.last_failure = Some(Failure { policy, attempts, cut_off, reason });
                }
                self.stale(&state).ok_or(error)
            }
        }
    }

    fn fresh(&self, state: &State<T>) -> Option<Cached<T>> {
        let (value, at) = state.answer.as_ref()?;
        let age = at.elapsed();
        (age < self.settings.fresh).then(|| Cached { value: value.clone(), age: Some(age), stale: false })
    }

    fn stale(&self, state: &State<T>) -> Option<Cached<T>> {
        let (value, at) = state.answer.as_ref()?;
        let age = at.elapsed();
        (age <= self.settings.stale).then(|| Cached { value: value.clone(), age: Some(age), stale: true })
    }
}

impl<K, T> Clone for StaleCache<K, T> {
    fn clone(&self) -> Self {
        Self { slots: self.slots.clone(), settings: self.settings.clone() }
    }
}

impl<K, T> fmt::Debug for StaleCache<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleCache").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("settings", &self.settings).finish_non_exhaustive()
    }
}
