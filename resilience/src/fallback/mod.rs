#![doc = include_str!("../../docs/fallback.md")]

mod cache;
mod pending;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cache::{Entry, StaleCache};
pub use pending::OrCached;

use crate::error::{Check, SettingsError};

/// How long answers are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// An answer younger than this is given without a call. Default: 1 min.
    #[serde(with = "crate::duration_text")]
    pub fresh: Duration,
    /// An answer is given in place of an error up to this age. Default: 5 min.
    #[serde(with = "crate::duration_text")]
    pub stale: Duration,
    /// Keys kept; those that were not used for the longest time leave first. Default: 10,000.
    pub keys: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { fresh: Duration::from_secs(60), stale: Duration::from_secs(300), keys: 10_000 }
    }
}

impl CacheSettings {
    fn check(&self, name: &str) -> Result<(), SettingsError> {
        let check = Check::of(name);
        check.not_zero("cache.keys", self.keys)?;
        if self.stale < self.fresh {
            return check
                .two(("cache.stale", self.stale), ("cache.fresh", self.fresh))
                .refuse("an answer would be too old for errors while it is still given without a call");
        }
        Ok(())
    }
}

/// An answer, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cached<T> {
    /// The answer.
    pub value: T,
    /// How old it is; `None` for a last resort, which has no age.
    pub age: Option<Duration>,
    /// Whether it stands in for an error.
    pub stale: bool,
}

impl<T> std::ops::Deref for Cached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
