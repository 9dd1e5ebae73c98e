#![doc = include_str!("../../docs/bulkhead.md")]

mod blocking;
mod in_file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

pub use blocking::{BlockingError, BlockingPool};

use crate::deadline::Deadline;
use crate::error::{Check, SettingsError};

/// How many calls run at once, and how many wait for how long.
///
/// From a number: so many slots, a queue twice as long, and a wait of 250 ms. In a settings file too it is a number, or a
/// table, which may leave out `queue` and `wait`: `bulkhead = 20`, `bulkhead = { slots = 20, wait = "100ms" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BulkheadSettings {
    /// Calls at once, from 1 to 1,000,000.
    pub slots: u32,
    /// Calls that may wait for a slot; 0: none. Default in a settings file: twice the slots.
    pub queue: u32,
    /// The longest wait for a slot. Default: 250 ms. `None`: as long as the deadline allows.
    #[serde(with = "crate::duration_text::option")]
    pub wait: Option<Duration>,
}

const DEFAULT_WAIT: Duration = Duration::from_millis(250);

const MOST_SLOTS: u32 = 1_000_000;

impl From<u32> for BulkheadSettings {
    fn from(slots: u32) -> Self {
        Self { slots, queue: slots.saturating_mul(2), wait: Some(DEFAULT_WAIT) }
    }
}

impl BulkheadSettings {
    pub(crate) fn check(&self, name: &str) -> Result<(), SettingsError> {
        let check = Check::of(name);
        if self.slots == 0 || self.slots > MOST_SLOTS {
            return check.refuse("bulkhead.slots", self.slots, "a bulkhead has from 1 to 1,000,000 slots");
        }
        if self.queue > 0 && self.wait == Some(Duration::ZERO) {
            return check
                .two(("bulkhead.wait", self.wait), ("bulkhead.queue", self.queue))
                .refuse("a queue in which nobody may wait has no effect");
        }
        Ok(())
    }
}

/// Connections of the three pools of a database, kept apart so that reports never take those of commands.
///
/// Values for `sqlx::pool::PoolOptions::max_connections`, or slots of bulkheads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pools {
    /// Reads of the API. Default: 50.
    pub query: u32,
    /// Appends and units of work. Default: 20.
    pub command: u32,
    /// Reports and exports. Default: 10.
    pub reporting: u32,
}

impl Default for Pools {
    fn default() -> Self {
        Self { query: 50, command: 20, reporting: 10 }
    }
}

/// Why a bulkhead refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSlot {
    /// All slots and all places of the queue are taken.
    #[error("all {slots} slots and {queue} places of the queue are taken")]
    Full {
        /// Slots in all.
        slots: u32,
        /// Places in the queue.
        queue: u32,
    },
    /// No slot became free in time.
    #[error("no slot became free within {limit:?}")]
    WaitedTooLong {
        /// The longest wait.
        limit: Duration,
    },
    /// The deadline passed while waiting.
    #[error("the deadline passed while waiting for a slot")]
    DeadlineOver,
}

/// Slots for calls, with a bounded queue. Clones share the slots.
///
/// Slots are given in the order in which they were asked for.
#[derive(Clone)]
pub struct Bulkhead {
    settings: BulkheadSettings,
    slots: Arc<Semaphore>,
    waiting: Arc<AtomicU32>,
}

/// A slot; free again when dropped.
#[derive(Debug)]
#[must_use = "the slot is free again when this is dropped"]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Bulkhead {
    /// All slots are free. `name` appears in errors.
    ///
    /// # Errors
    /// [`SettingsError`] names the settings that cannot work.
    pub fn new(name: &str, settings: impl Into<BulkheadSettings>) -> Result<Self, SettingsError> {
        let settings = settings.into();
        settings.check(name)?;
        let slots = Arc::new(Semaphore::new(settings.slots as usize));
        Ok(Self { settings, slots, waiting: Arc::default() })
    }

    /// A slot if one is free and nobody waits for it.
    pub fn try_enter(&self) -> Option<Slot> {
        match self.slots.clone().try_acquire_owned() {
            Ok(permit) => Some(Slot { _permit: permit }),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }

    /// A slot, after waiting in the queue if need be, until the deadline at most.
    ///
    /// # Errors
    /// [`NoSlot`] says what was at its limit.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue at once.
    pub async fn enter(&self, deadline: Deadline) -> Result<Slot, NoSlot> {
        if let Some(slot) = self.try_enter() {
            return Ok(slot);
        }
        let BulkheadSettings { slots, queue, wait } = self.settings;
        let _place = Place::take(&self.waiting, queue).ok_or(NoSlot::Full { slots, queue })?;
        let until = wait.map_or(deadline, |wait| deadline.child(wait));
        match until.run(self.slots.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Slot { _permit: permit }),
            // Nobody closes the semaphore.
            Ok(Err(_)) => Err(NoSlot::Full { slots, queue }),
            Err(_) => match wait {
                Some(limit) if until != deadline => Err(NoSlot::WaitedTooLong { limit }),
                _ => Err(NoSlot::DeadlineOver),
            },
        }
    }

    /// Slots that are taken.
    pub fn in_use(&self) -> u32 {
        self.settings.slots.saturating_sub(u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX))
    }

    /// Calls that wait for a slot.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The settings.
    pub fn settings(&self) -> &BulkheadSettings {
        &self.settings
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("settings", &self.settings)
            .field("in_use", &self.in_use())
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// A place in the queue; free again when dropped.
struct Place<'a> {
    waiting: &'a AtomicU32,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU32, most: u32) -> Option<Self> {
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1))
            .ok()
            .map(|_| Self { waiting })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
