//! Following a breaker without a task: the readers wait for results of calls and for the end of the open period
//! themselves.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::machine::Machine;
use super::shell::{Core, Shared};
use super::{BreakerSnapshot, Transition};

/// The newest state of a breaker, from [`Breaker::watch`](super::Breaker::watch).
///
/// The moment at which an open breaker becomes half-open is seen although nobody calls.
#[derive(Debug)]
pub struct Watch {
    follower: Follower,
}

impl Watch {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { follower: Follower::new(shared) }
    }

    /// The state now; `None` if the breaker was dropped.
    pub fn now(&self) -> Option<BreakerSnapshot> {
        Some(self.follower.breaker.upgrade()?.with(|machine, now| machine.snapshot(now)))
    }

    /// Waits until the state is another than at the last call, and gives the newest; `None` if the breaker was dropped.
    ///
    /// Cancel-safe.
    pub async fn changed(&mut self) -> Option<BreakerSnapshot> {
        loop {
            let look = |machine: &mut Machine, now| (machine.snapshot(now), machine.sequence());
            let (snapshot, newest) = self.follower.look(look);
            if newest > self.follower.seen {
                self.follower.seen = newest;
                return Some(snapshot);
            }
            self.follower.wait().await?;
        }
    }
}

/// Every transition of a breaker in order, from [`Breaker::transitions`](super::Breaker::transitions).
///
/// The breaker keeps the last 256. A reader that falls further behind gets [`Missed`] with their number.
#[derive(Debug)]
pub struct Transitions {
    follower: Follower,
}

/// A reader of transitions was too slow; it goes on with the oldest that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} transitions are no longer kept")]
pub struct Missed {
    /// How many transitions it did not see.
    pub count: u64,
}

impl Transitions {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { follower: Follower::new(shared) }
    }

    /// The next transition; `None` if the breaker was dropped.
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Transition, Missed>> {
        loop {
            let seen = self.follower.seen;
            let next = self.follower.look(|machine, now| {
                machine.tick(now);
                machine.transition_after(seen)
            });
            match next {
                Some((transition, 0)) => {
                    self.follower.seen = transition.number;
                    return Some(Ok(transition));
                }
                Some((transition, missed)) => {
                    self.follower.seen = transition.number - 1;
                    return Some(Err(Missed { count: missed }));
                }
                None => self.follower.wait().await?,
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Transition, Missed>> + Send {
        futures::stream::unfold(self, |mut transitions| async {
            let next = transitions.next().await?;
            Some((next, transitions))
        })
    }
}

/// Weak, so that a reader does not keep a dropped breaker; what it was is kept until all was read.
struct Follower {
    breaker: Weak<Shared>,
    core: Arc<Core>,
    receiver: Receiver<u64>,
    seen: u64,
}

impl Follower {
    fn new(shared: &Arc<Shared>) -> Self {
        let receiver = shared.subscribe();
        let seen = shared.with(|machine, now| {
            machine.tick(now);
            machine.sequence()
        });
        Self { breaker: Arc::downgrade(shared), core: shared.core().clone(), receiver, seen }
    }

    fn look<R>(&self, look: impl FnOnce(&mut Machine, Duration) -> R) -> R {
        match self.breaker.upgrade() {
            Some(shared) => shared.with(look),
            None => look(&mut self.core.lock(), self.core.now()),
        }
    }

    /// Until there may be a further transition; `None` if the breaker was dropped.
    async fn wait(&mut self) -> Option<()> {
        let due = self.core.lock().due().and_then(|due| self.core.instant(due));
        tokio::select! {
            biased;
            changed = self.receiver.changed() => match changed {
                Ok(()) => Some(()),
                // Dropped since the last look: what happened before that is still to be read.
                Err(_) => (self.core.lock().sequence() > self.seen).then_some(()),
            },
            () = until(due) => Some(()),
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("seen", &self.seen).finish_non_exhaustive()
    }
}
