//! How many appends of each tenant wait for a connection: bounded, so that none fills the memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::append::CheckedAppend;
use crate::error::AppendError;
use crate::limits::Limits;
use crate::stream::Tenant;

/// The appends of one handle that wait.
#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<Tenant, Line>>);

/// Those of one tenant.
#[derive(Default)]
struct Line {
    appends: usize,
    bytes: usize,
}

impl Waiting {
    /// Counts one more append until the guard is dropped.
    pub(super) fn enter<'w>(&'w self, append: &CheckedAppend, limits: &Limits) -> Result<Waits<'w>, AppendError> {
        let tenant = &append.tenant;
        let mut waiting = self.lock();
        let (appends, bytes) = waiting.get(tenant).map_or((0, 0), |line| (line.appends, line.bytes));
        let refused =
            |unit, queued, limit| Err(AppendError::Overloaded { tenant: tenant.clone(), queued, limit, unit });
        if appends >= limits.queued_appends {
            return refused("appends", appends, limits.queued_appends);
        }
        if appends > 0 && bytes + append.bytes > limits.queued_bytes {
            return refused("bytes", bytes, limits.queued_bytes);
        }
        let line = waiting.entry(tenant.clone()).or_default();
        line.appends += 1;
        line.bytes += append.bytes;
        Ok(Waits { waiting: self, tenant: tenant.clone(), bytes: append.bytes })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One append that waits.
pub(super) struct Waits<'w> {
    waiting: &'w Waiting,
    tenant: Tenant,
    bytes: usize,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        if let Some(line) = waiting.get_mut(&self.tenant) {
            line.appends -= 1;
            line.bytes -= self.bytes;
            if line.appends == 0 {
                waiting.remove(&self.tenant);
            }
        }
    }
}
