//! What all handlers share.

use std::ops::Deref;
use std::sync::Arc;

use annals::engine::TimeOrderedIds;
use tokio::sync::Semaphore;

use crate::checkout::Checkouts;
use crate::service::access::{Keys, Rights};
use crate::service::problem::Problem;
use crate::shop::Shop;

/// The state of the service; a clone shares it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What it is made of.
pub struct Parts {
    /// Events, commands and read models.
    pub shop: Shop,
    /// Checkouts, which call the services.
    pub checkouts: Checkouts,
    /// Who may come.
    pub keys: Keys,
    /// Who may go where.
    pub rights: Rights,
    /// Requests that wait for a read model hold a connection; so many may.
    pub waits: Semaphore,
    /// A list as of a time folds the log of a shop; so many may at once.
    pub replays: Semaphore,
    /// Makes the ids of requests.
    pub ids: TimeOrderedIds,
}

impl App {
    /// Puts the parts together.
    pub fn new(shop: Shop, checkouts: Checkouts, keys: Keys, rights: Rights) -> Self {
        let (waits, replays) = (Semaphore::new(256), Semaphore::new(2));
        Self(Arc::new(Parts { shop, checkouts, keys, rights, waits, replays, ids: TimeOrderedIds }))
    }

    /// Room for one more read of the past; none waits for it for long.
    pub async fn room_to_replay(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        let full = || Problem::later("too-many-replays", "other lists of the past are being made");
        let room = tokio::time::timeout(std::time::Duration::from_secs(1), self.replays.acquire()).await;
        room.ok().and_then(Result::ok).ok_or_else(full)
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
