//! How many appends and bytes of each tenant are unanswered. Both are bounded, so that no tenant fills the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::append::CheckedAppend;
use crate::error::AppendError;
use crate::limits::Limits;
use crate::stream::Tenant;

/// The unanswered appends of one handle, counted. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Bounds(Arc<Mutex<HashMap<Tenant, Count>>>);

/// Those of one tenant.
#[derive(Default)]
struct Count {
    appends: usize,
    bytes: usize,
}

impl Bounds {
    /// Counts one more append until its [`Counted`] is dropped.
    pub(crate) fn enter(&self, append: &CheckedAppend, limits: &Limits) -> Result<Counted, AppendError> {
        let tenant = &append.tenant;
        let mut counts = self.lock();
        let (appends, bytes) = counts.get(tenant).map_or((0, 0), |count| (count.appends, count.bytes));
        let refused = |unit, queued, more, limit| {
            Err(AppendError::Overloaded { tenant: tenant.clone(), queued, more, limit, unit })
        };
        if appends >= limits.queued_appends {
            return refused("appends", appends, 1, limits.queued_appends);
        }
        if appends > 0 && bytes + append.bytes > limits.queued_bytes {
            return refused("bytes", bytes, append.bytes, limits.queued_bytes);
        }
        let count = counts.entry(tenant.clone()).or_default();
        count.appends += 1;
        count.bytes += append.bytes;
        Ok(Counted { bounds: self.clone(), tenant: tenant.clone(), bytes: append.bytes })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One append that waits, as it is counted.
pub(crate) struct Counted {
    bounds: Bounds,
    tenant: Tenant,
    bytes: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.bounds.lock();
        if let Some(count) = counts.get_mut(&self.tenant) {
            count.appends -= 1;
            count.bytes -= self.bytes;
            if count.appends == 0 {
                counts.remove(&self.tenant);
            }
        }
    }
}
