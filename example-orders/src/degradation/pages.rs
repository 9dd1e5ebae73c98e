//! Pages of lists. When the read model cannot be read, the last page that was is better than none, if it says how old it is.
//!
//! A page knows up to which position of the log it shows everything. So a client that has seen more, and says so by `at_least`, is
//! never given an older page as if it were a new one.

use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use annals::resilience::fallback::{CacheSettings, StaleCache};
use annals::resilience::toggle::Toggle;
use annals::resilience::{Call, CallError, Classify, Deadline, SettingsError};
use annals::{Position, Tenant};

use super::Reads;

/// A page holds up to a hundred rows, so all of them together are some 30 MB at most.
const MOST_PAGES: u64 = 1_000;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub value: T,
    /// It shows everything up to here.
    pub position: Position,
}

/// A page as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown<T> {
    /// What is on it.
    pub value: T,
    /// It shows everything up to here.
    pub position: Position,
    /// The read model could not be read, and this page was read so many seconds ago.
    pub stale_seconds: Option<u64>,
    /// It does not show all that the client has seen.
    pub older_than_asked: bool,
}

/// The last pages of all shops, by what was asked for.
pub struct Pages<Q, T> {
    reads: Reads,
    last: StaleCache<(Tenant, Q), Page<T>>,
    toggle: Toggle<bool>,
}

impl<Q, T> Pages<Q, T>
where
    Q: Hash + Eq + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Pages that are read through `reads`, of each shop through its own policy. While `toggle` is off, an error is an error.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(reads: impl Into<Reads>, toggle: Toggle<bool>) -> Result<Self, SettingsError> {
        // Each read is a new one, as clients want to see what they wrote.
        let settings = CacheSettings { fresh: Duration::ZERO, keys: MOST_PAGES, ..CacheSettings::default() };
        Ok(Self { last: StaleCache::new("pages", settings)?, reads: reads.into(), toggle })
    }

    /// The page that `read` reads; or the last one, which says that it is.
    ///
    /// # Errors
    /// As of the policy, where there is no page of the last five minutes, or the call itself is at fault.
    pub async fn get<E, F, Fut>(
        &self,
        shop: &Tenant,
        query: &Q,
        at_least: Option<Position>,
        deadline: Deadline,
        mut read: F,
    ) -> Result<Shown<T>, CallError<E>>
    where
        E: Classify + Send,
        F: FnMut(Call) -> Fut + Send,
        Fut: Future<Output = Result<Page<T>, E>> + Send,
    {
        let policy = self.reads.of(shop);
        if !self.toggle.is_on() {
            return Ok(shown(policy.idempotent(read).deadline(deadline).run().await?, None, at_least));
        }
        let entry = self.last.entry((shop.clone(), query.clone()));
        let answer = policy.idempotent(&mut read).deadline(deadline).or_cached(&entry).await?;
        let is_older = at_least.is_some_and(|at_least| answer.value.position < at_least);
        if is_older && !answer.stale {
            // Another one has asked for it, who had not seen so much.
            return Ok(shown(policy.idempotent(read).deadline(deadline).run().await?, None, at_least));
        }
        let stale = answer.age.filter(|_| answer.stale).map(|age| age.as_secs());
        Ok(shown(answer.value, stale, at_least))
    }
}

fn shown<T>(page: Page<T>, stale_seconds: Option<u64>, at_least: Option<Position>) -> Shown<T> {
    let Page { value, position } = page;
    let older_than_asked = at_least.is_some_and(|at_least| position < at_least);
    Shown { value, position, stale_seconds, older_than_asked }
}
