//! The choices of a memory store.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::clock::{Clock, IdSource, SystemClock, TimeOrderedIds};
use crate::limits::Limits;
use crate::memory::log::Log;
use crate::memory::{Inner, MemoryStore};
use crate::position::{Incarnation, Position};
use crate::snapshot::SnapshotQueue;

/// Chooses clock, ids and limits of a [`MemoryStore`].
///
/// ```
/// use annals_eventstore::{EventStore, MemoryStore, SeededIds};
///
/// let store = || MemoryStore::builder().ids(SeededIds::new(7)).build();
/// assert_eq!(store().ids().next_id(), store().ids().next_id());
/// ```
#[must_use = "nothing is built before `build`"]
pub struct MemoryStoreBuilder {
    clock: Box<dyn Clock>,
    ids: Box<dyn IdSource>,
    limits: Limits,
}

impl Default for MemoryStoreBuilder {
    fn default() -> Self {
        Self { clock: Box::new(SystemClock), ids: Box::new(TimeOrderedIds), limits: Limits::default() }
    }
}

impl MemoryStoreBuilder {
    /// The clock that `recorded_at` and the expiry of request keys follow; the machine's by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The source of the ids that [`EventStore::ids`](crate::EventStore::ids) returns; [`TimeOrderedIds`] by default.
    /// The store's incarnation is its first id.
    pub fn ids(mut self, ids: impl IdSource) -> Self {
        self.ids = Box::new(ids);
        self
    }

    /// How much the store accepts; [`Limits::default`] by default.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The store, empty.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        MemoryStore {
            inner: Arc::new(Inner {
                incarnation: Incarnation(self.ids.next_id()),
                limits: self.limits,
                clock: self.clock,
                ids: self.ids,
                log: Mutex::new(Log::default()),
                snapshots: SnapshotQueue::new(),
                head: watch::Sender::new(Position::START),
            }),
        }
    }
}

impl std::fmt::Debug for MemoryStoreBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStoreBuilder").field("limits", &self.limits).finish_non_exhaustive()
    }
}
