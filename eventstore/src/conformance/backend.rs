//! Where the store under test lives.

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::ManualClock;
use crate::limits::Limits;
use crate::store::EventStore;

/// A place where one store lives: an empty folder, an empty database, or nothing but memory.
///
/// # Obligations on the implementer
/// Every value is a place of its own, empty at first. It cleans up when it is dropped.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What the store that lives here can do beyond the contract's core.
    fn capabilities(&self) -> Capabilities;

    /// Opens a handle of the store that lives here; the first call creates the store.
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
}

/// What a clause wants of the store it opens.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The store's clock, if it can take one. It stands still until the clause moves it.
    pub clock: Arc<ManualClock>,
    /// How much the store accepts.
    pub limits: Limits,
}
