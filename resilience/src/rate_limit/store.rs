use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::nanos::Nanos;
use governor::state::StateStore;

use super::clock::TokioClock;

/// What governor remembers of each key, for a bounded number of keys; the others share one state.
#[derive(Debug, Clone)]
pub(super) struct Bounded<K> {
    clock: TokioClock,
    most: usize,
    kept: Arc<Mutex<Kept<K>>>,
}

#[derive(Debug)]
struct Kept<K> {
    keys: HashMap<K, Nanos>,
    others: Option<Nanos>,
    /// When the keys were last looked through.
    swept: Option<Duration>,
}

/// All keys are looked through at most this often.
const SWEEP: Duration = Duration::from_millis(100);
/// The limiter began to count a moment after the clock.
const MARGIN: Duration = Duration::from_millis(1);

impl<K: Hash + Eq> Bounded<K> {
    pub(super) fn new(most: u32, clock: TokioClock) -> Self {
        let kept = Kept { keys: HashMap::new(), others: None, swept: None };
        Self { clock, most: most as usize, kept: Arc::new(Mutex::new(kept)) }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().keys.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets those whose quota is full again, which are as good as new.
    fn sweep(&self, kept: &mut Kept<K>) {
        let now = self.clock.elapsed();
        if kept.swept.is_some_and(|swept| now.saturating_sub(swept) < SWEEP) {
            return;
        }
        kept.swept = Some(now);
        kept.keys.retain(|_, full_at| Duration::from(*full_at) + MARGIN > now);
    }
}

impl<K: Hash + Eq + Clone> StateStore for Bounded<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut kept = self.lock();
        if let Some(state) = kept.keys.get_mut(key) {
            let (answer, next) = decide(Some(*state))?;
            *state = next;
            return Ok(answer);
        }
        if kept.keys.len() >= self.most {
            self.sweep(&mut kept);
        }
        if kept.keys.len() < self.most {
            let (answer, next) = decide(None)?;
            kept.keys.insert(key.clone(), next);
            return Ok(answer);
        }
        let (answer, next) = decide(kept.others)?;
        kept.others = Some(next);
        Ok(answer)
    }
}
