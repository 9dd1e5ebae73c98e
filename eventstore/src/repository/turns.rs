//! The commands of a repository on one stream run one after the other, so that they do not lose races against each other.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::error::AppendError;
use crate::store::EventStore;
use crate::stream::{StreamId, Tenant};

/// How long a command keeps its turn while others wait. A caller may poll its command no more, and the store, not the turn, is
/// what keeps versions right.
const LONGEST_TURN: Duration = Duration::from_secs(10);

/// Who runs and who waits, by stream. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<Streams>>);

#[derive(Default)]
struct Streams {
    /// Those on which a command runs.
    queues: HashMap<StreamId, Queue>,
    /// How many commands of a tenant wait.
    waiting: HashMap<Tenant, usize>,
    next_number: u64,
}

/// The commands on one stream.
struct Queue {
    /// The number of the command that runs.
    running: u64,
    /// When it began to run, or the first other began to wait for it if that was later.
    since: Option<Instant>,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The turn of a command on a stream, or its place in the queue. Dropping it leaves either to those behind it.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    stream: &'t StreamId,
    number: u64,
}

impl Turns {
    /// Waits until no earlier command runs on `stream`, not beyond `deadline`.
    pub(super) async fn take<'t>(
        &'t self,
        stream: &'t StreamId,
        deadline: Option<Instant>,
        store: &dyn EventStore,
    ) -> Result<Turn<'t>, AppendError> {
        let (turn, given) = self.enter(stream, store)?;
        match given {
            None => Ok(turn),
            Some(given) => turn.wait(given, deadline).await.map(|()| turn),
        }
    }

    /// Begins a turn, or queues up for it.
    fn enter<'t>(
        &'t self,
        stream: &'t StreamId,
        store: &dyn EventStore,
    ) -> Result<(Turn<'t>, Option<oneshot::Receiver<()>>), AppendError> {
        let limit = store.limits().queued_appends;
        let mut streams = self.lock();
        let Streams { queues, waiting, next_number } = &mut *streams;
        *next_number += 1;
        let number = *next_number;
        let turn = Turn { turns: self, stream, number };
        let queue = match queues.entry(stream.clone()) {
            Entry::Vacant(place) => {
                place.insert(Queue { running: number, since: None, waiting: BTreeMap::new() });
                return Ok((turn, None));
            }
            Entry::Occupied(queue) => queue.into_mut(),
        };
        let queued = waiting.get(stream.tenant()).copied().unwrap_or_default();
        if queued >= limit {
            let tenant = stream.tenant().clone();
            drop(streams);
            return Err(AppendError::Overloaded { tenant, queued, more: 1, limit, unit: "commands" });
        }
        *waiting.entry(stream.tenant().clone()).or_default() += 1;
        let (give, given) = oneshot::channel();
        queue.since.get_or_insert_with(Instant::now);
        queue.waiting.insert(number, give);
        Ok((turn, Some(given)))
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams {
    /// Puts the queue of a stream back, with the turn of the command that has waited longest, unless none waits.
    fn give_to_next(&mut self, stream: &StreamId, mut queue: Queue) -> Option<oneshot::Sender<()>> {
        let (number, give) = queue.waiting.pop_first()?;
        queue.running = number;
        queue.since = (!queue.waiting.is_empty()).then(Instant::now);
        self.queues.insert(stream.clone(), queue);
        self.waits_no_more(stream.tenant());
        Some(give)
    }

    fn waits_no_more(&mut self, tenant: &Tenant) {
        if let Some(count) = self.waiting.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(tenant);
            }
        }
    }
}

impl Turn<'_> {
    async fn wait(&self, mut given: oneshot::Receiver<()>, deadline: Option<Instant>) -> Result<(), AppendError> {
        while let Some(ends) = self.ends() {
            let until = deadline.map_or(ends, |deadline| deadline.min(ends));
            // The sender is dropped only with this turn, so what ends the wait is the turn or the time.
            if timeout_at(until, &mut given).await.is_ok() {
                break;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(AppendError::DeadlineExceeded { stream: self.stream.clone() });
            }
            self.end_the_turn_before();
        }
        Ok(())
    }

    /// When the command that runs loses its turn; `None` if that is this one.
    fn ends(&self) -> Option<Instant> {
        let streams = self.turns.lock();
        let queue = streams.queues.get(self.stream).filter(|queue| queue.running != self.number)?;
        queue.since.map(|since| since + LONGEST_TURN)
    }

    /// Ends the turn of a command that has run for too long.
    fn end_the_turn_before(&self) {
        let mut streams = self.turns.lock();
        let is_over = |queue: &&Queue| queue.since.is_some_and(|since| since + LONGEST_TURN <= Instant::now());
        if streams.queues.get(self.stream).filter(is_over).is_some()
            && let Some(queue) = streams.queues.remove(self.stream)
        {
            let next = streams.give_to_next(self.stream, queue);
            drop(streams);
            tracing::warn!(stream = %self.stream, after = ?LONGEST_TURN, "a command has not ended, the next one begins");
            give(next);
        }
    }
}

/// Wakes the command that was given its turn.
fn give(next: Option<oneshot::Sender<()>>) {
    if let Some(next) = next {
        // If it is being dropped, its own drop passes the turn on.
        let _ = next.send(());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut streams = self.turns.lock();
        // Taken out at once: usually nobody waits.
        let Some(mut queue) = streams.queues.remove(self.stream) else { return };
        if queue.running == self.number {
            let next = streams.give_to_next(self.stream, queue);
            drop(streams);
            give(next);
            return;
        }
        if queue.waiting.remove(&self.number).is_some() {
            streams.waits_no_more(self.stream.tenant());
        }
        streams.queues.insert(self.stream.clone(), queue);
    }
}
