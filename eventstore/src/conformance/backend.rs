//! The environment of a store under test.

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::ManualClock;
use crate::limits::Limits;
use crate::store::EventStore;

/// The environment of one store: an empty folder, an empty database, or memory.
///
/// # Obligations on the implementer
/// Every value is a new environment, empty at first. It cleans up when it is dropped.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The optional capabilities of the store.
    fn capabilities(&self) -> Capabilities;

    /// Opens a handle of the store; the first call creates the store.
    ///
    /// If the store is durable, all handles, at the same time or one after another, are handles of one store. If it is
    /// not, every call gives an empty store. It panics if the store cannot be opened, as the clause then fails.
    ///
    /// # Cancel safety
    /// Clauses never drop the future before it is done.
    async fn open(&self, setup: &Setup) -> Arc<dyn EventStore>;
}

/// What a store can do beyond the contract's core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether the events outlive the handle, and several handles can be open at the same time.
    pub durable: bool,
    /// Whether the store's time is the clock of [`Setup`], and not that of a server.
    pub clock: bool,
    /// Whether it has a place for snapshots.
    pub snapshots: bool,
}

/// The options with which a clause opens the store.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The store's clock, if it can take one. It moves only when the clause sets it.
    pub clock: Arc<ManualClock>,
    /// How much the store accepts.
    pub limits: Limits,
}
