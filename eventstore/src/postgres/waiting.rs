//! How many appends of each tenant wait for a connection: bounded, so that none fills the memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::error::AppendError;
use crate::stream::Tenant;

/// The appends of one handle that wait.
#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<Tenant, usize>>);

impl Waiting {
    /// Counts one more append of `tenant` until the guard is dropped.
    pub(super) fn enter<'w>(&'w self, tenant: &Tenant, limit: usize) -> Result<Waits<'w>, AppendError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queued = waiting.entry(tenant.clone()).or_default();
        if *queued >= limit {
            return Err(AppendError::Overloaded { tenant: tenant.clone(), queued: *queued, limit });
        }
        *queued += 1;
        Ok(Waits { waiting: self, tenant: tenant.clone() })
    }
}

/// One append that waits.
pub(super) struct Waits<'w> {
    waiting: &'w Waiting,
    tenant: Tenant,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queued) = waiting.get_mut(&self.tenant) {
            *queued -= 1;
            if *queued == 0 {
                waiting.remove(&self.tenant);
            }
        }
    }
}
