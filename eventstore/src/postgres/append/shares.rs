//! How many connections the appends of one tenant have at a time outside of groups, so that some are left for others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::postgres::connection::pool::Pool;
use crate::stream::Tenant;

/// The shares of all tenants of one handle.
#[derive(Clone)]
pub(crate) struct Shares {
    all: Kind,
    blocked: Kind,
}

/// Of each tenant so many appends may run.
#[derive(Clone)]
struct Kind {
    most: usize,
    tenants: Arc<Mutex<HashMap<Tenant, Arc<Semaphore>>>>,
}

/// The right of one append to a connection.
pub(crate) struct Share {
    _blocked: Option<Place>,
    _any: Place,
}

struct Place {
    kind: Kind,
    tenant: Tenant,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// A tenant has at most four fifths of the connections, and a quarter for streams that are known to be blocked: such an append
    /// keeps its connection for as long as it is blocked.
    pub(crate) fn of(pool: &Pool) -> Self {
        let size = pool.size();
        let kind = |most: usize| Kind { most: most.max(1), tenants: Arc::default() };
        Self { all: kind(size - (size / 5).max(1)), blocked: kind(size / 4) }
    }

    /// Waits until fewer appends of the tenant run than may.
    pub(crate) async fn take(&self, tenant: &Tenant, is_blocked: bool) -> Share {
        let blocked = match is_blocked {
            true => Some(self.blocked.enter(tenant).await),
            false => None,
        };
        Share { _blocked: blocked, _any: self.all.enter(tenant).await }
    }
}

impl Kind {
    async fn enter(&self, tenant: &Tenant) -> Place {
        let most = self.most;
        let places = Arc::clone(self.lock().entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(most))));
        // Made first, so that it is removed also if this future is dropped.
        let mut place = Place { kind: self.clone(), tenant: tenant.clone(), permit: None };
        place.permit = places.acquire_owned().await.ok();
        place
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, Arc<Semaphore>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tenants = self.kind.lock();
        drop(self.permit.take());
        if tenants.get(&self.tenant).is_some_and(|places| Arc::strong_count(places) == 1) {
            tenants.remove(&self.tenant);
        }
    }
}
