#![doc = include_str!("../../docs/chaos.md")]

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Check, SettingsError};
use crate::ratio::Ratio;

/// Which faults are made, how often, and the number that repeats them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChaosSettings {
    /// The same number gives the same faults to the first, second, third .. attempt. Default: 0.
    pub seed: u64,
    /// The share of attempts that wait before the call. Default: 0.
    pub latency: f64,
    /// The longest of these waits. Default: 1 s.
    #[serde(with = "crate::duration_text")]
    pub latency_up_to: Duration,
    /// The share of attempts that fail without a call. Default: 0.
    pub errors: f64,
    /// The share of attempts whose call is made, but whose answer never comes. Default: 0.
    pub timeouts_after_effect: f64,
    /// The share of attempts whose call is dropped before its end. Default: 0.
    pub cancellations: f64,
    /// The longest time that a call runs before it is dropped. Default: 100 ms.
    #[serde(with = "crate::duration_text")]
    pub cancel_within: Duration,
}

impl Default for ChaosSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            latency: 0.0,
            latency_up_to: Duration::from_secs(1),
            errors: 0.0,
            timeouts_after_effect: 0.0,
            cancellations: 0.0,
            cancel_within: Duration::from_millis(100),
        }
    }
}

impl ChaosSettings {
    pub(crate) fn check(&self, name: &str) -> Result<(), SettingsError> {
        let check = Check::of(name);
        let shares = [
            ("chaos.latency", self.latency),
            ("chaos.errors", self.errors),
            ("chaos.timeouts_after_effect", self.timeouts_after_effect),
            ("chaos.cancellations", self.cancellations),
        ];
        for (name, share) in shares {
            if Ratio::new(share).is_none() {
                return check.refuse(name, share, "a share is from 0 to 1");
            }
        }
        let sum = self.errors + self.timeouts_after_effect + self.cancellations;
        if sum > 1.0 + 1e-9 {
            return check
                .two(("chaos.errors", self.errors), ("chaos.timeouts_after_effect", self.timeouts_after_effect))
                .refuse("together with `chaos.cancellations` they are above 1, and an attempt has one fault at most");
        }
        Ok(())
    }

    /// What happens to attempt number `attempt`, counted from 0. Depends on nothing else.
    pub fn fate(&self, attempt: u64) -> Fate {
        // Multiplied by an odd number near 2^64 over the golden ratio, so that neighbours get seeds far apart.
        let mut rng = fastrand::Rng::with_seed(self.seed ^ attempt.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let latency = (rng.f64() < self.latency).then(|| self.latency_up_to.mul_f64(rng.f64()));
        let cancel_after = self.cancel_within.mul_f64(rng.f64());
        let mut rest = rng.f64();
        let mut is = |share: f64| {
            let hit = (0.0..share).contains(&rest);
            rest -= share;
            hit
        };
        let fault = if is(self.errors) {
            Fault::Error
        } else if is(self.timeouts_after_effect) {
            Fault::TimeoutAfterEffect
        } else if is(self.cancellations) {
            Fault::Cancel { after: cancel_after }
        } else {
            Fault::None
        };
        Fate { latency, fault }
    }
}

/// What happens to one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// A wait before the call.
    pub latency: Option<Duration>,
    /// What happens then.
    pub fault: Fault,
}

/// A fault of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call is made, and its result counts.
    None,
    /// The attempt fails, and the call is not made.
    Error,
    /// The call is made, and its answer is lost: the attempt runs into its timeout.
    TimeoutAfterEffect,
    /// The call is dropped in the middle, if it has not ended by then.
    Cancel {
        /// How long it runs.
        after: Duration,
    },
}

/// What an attempt under chaos came to.
pub(crate) enum Faced<R> {
    Answer(R),
    Error,
    Cancelled,
}

impl Fate {
    pub(crate) async fn around<F: Future>(self, call: impl FnOnce() -> F) -> Faced<F::Output> {
        if let Some(latency) = self.latency {
            tokio::time::sleep(latency).await;
        }
        match self.fault {
            Fault::None => Faced::Answer(call().await),
            Fault::Error => Faced::Error,
            Fault::TimeoutAfterEffect => {
                call().await;
                std::future::pending().await
            }
            Fault::Cancel { after } => {
                tokio::time::timeout(after, call()).await.map_or(Faced::Cancelled, Faced::Answer)
            }
        }
    }
}

/// The switch of a policy: off, until settings are put in.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    on: AtomicBool,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    settings: ChaosSettings,
    attempts: u64,
}

impl Switch {
    pub(crate) fn set(&self, settings: Option<ChaosSettings>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.on.store(settings.is_some(), Ordering::Relaxed);
        *running = settings.map(|settings| Running { settings, attempts: 0 });
    }

    /// The fate of the next attempt, if chaos is on.
    pub(crate) fn next(&self) -> Option<Fate> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.as_mut()?;
        let fate = running.settings.fate(running.attempts);
        running.attempts += 1;
        Some(fate)
    }
}
