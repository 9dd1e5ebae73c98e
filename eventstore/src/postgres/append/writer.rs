//! The writers: while one statement runs, appends queue up; the next statement stores all of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::append::{Appended, CheckedAppend};
use crate::error::{AppendError, BackendError, Holder};
use crate::limits::Limits;
use crate::position::Position;
use crate::postgres::append::blocked_streams::{BlockedStreams, StreamTurn};
use crate::postgres::append::group::WriterConnection;
use crate::postgres::append::shares::{Share, Shares};
use crate::postgres::append::single::append;
use crate::postgres::connection::pool::{Pool, PooledConnection};
use crate::postgres::fault::NoConnection;
use crate::queue::{Bounds, EndOfQueue, Queue, Taken};

/// The writers of one handle. Dropping it lets them finish the queued appends.
pub(crate) struct Writers {
    queues: Vec<Arc<Queue>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What the writers share with their handle.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) limits: Limits,
    pub(crate) bounds: Bounds,
    pub(crate) blocked_streams: BlockedStreams,
    pub(crate) shares: Shares,
    /// The last known position, written by any handle.
    pub(crate) head: watch::Sender<Position>,
    /// The last position that this handle has written.
    pub(crate) own: watch::Sender<Position>,
}

impl Shared {
    /// Reports that this handle has committed events up to `position`.
    pub(crate) fn committed(&self, position: Position) {
        announce(&self.head, position);
        announce(&self.own, position);
    }
}

impl Writers {
    /// Starts `count` writers, each with its own connection.
    pub(crate) fn start(count: usize, shared: &Shared) -> Self {
        let queues: Vec<_> = (0..count).map(|_| Arc::new(Queue::new(shared.bounds.clone()))).collect();
        let start = |queue: &Arc<Queue>| {
            let connection = WriterConnection::new(shared.pool.clone());
            tokio::spawn(write(EndOfQueue(Arc::clone(queue)), connection, shared.clone()))
        };
        let tasks = queues.iter().map(start).collect();
        Self { queues, tasks: Mutex::new(tasks) }
    }

    /// Passes a small append to a writer and waits for its answer.
    pub(crate) async fn append(&self, append: CheckedAppend, limits: &Limits) -> Result<Appended, AppendError> {
        // Appends to one stream go to one writer, which stores them in the order of their arrival; two writers would block
        // each other.
        let mut hasher = DefaultHasher::new();
        append.parts[0].stream.hash(&mut hasher);
        let count = u64::try_from(self.queues.len()).unwrap_or(1);
        let writer = usize::try_from(hasher.finish() % count).unwrap_or_default();
        self.queues[writer].append(append, limits).await
    }

    /// Refuses further appends and waits until all queued ones are answered.
    pub(crate) async fn close(&self) {
        for queue in &self.queues {
            queue.close();
        }
        for task in self.tasks.lock().await.drain(..) {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "a writer of the store panicked");
            }
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.close();
        }
    }
}

/// Runs until the queue is closed and empty.
async fn write(end: EndOfQueue, mut connection: WriterConnection, shared: Shared) {
    let queue = &end.0;
    let mut last_batch = 1;
    let mut beside = JoinSet::new();
    while queue.wait().await {
        if last_batch > 1 {
            // Callers that were just answered are ready to run. Let them run first, so that the next batch includes their next
            // appends. This waits for nothing else.
            tokio::task::yield_now().await;
        }
        // While the server cannot be reached they wait in the queue, where their deadlines take them out.
        let begun = Instant::now();
        if let Err(error) = connection.reach().await {
            // Those that came later have not waited for as long.
            for reply in queue.take_until(begun).replies {
                reply.send(Err(error.clone().into_append()));
            }
            continue;
        }
        let Taken { appends, replies } = queue.gather(&shared.limits);
        if appends.is_empty() {
            continue;
        }
        last_batch = appends.len();
        let answers = connection.store(&appends).await;
        if let Some(last) = answers.iter().filter_map(|a| Some(a.as_ref()?.as_ref().ok()?.position)).max() {
            shared.committed(last);
        }
        for ((reply, answer), append) in replies.into_iter().zip(answers).zip(appends) {
            match answer {
                Some(answer) => reply.send(answer),
                None => {
                    let (shared, turn_in_stream) =
                        (shared.clone(), shared.blocked_streams.enter(&append.parts[0].stream));
                    beside.spawn(async move {
                        reply.send(append_outside_groups(&shared, &append, Some(turn_in_stream)).await);
                    });
                }
            }
        }
        while beside.try_join_next().is_some() {}
    }
    beside.join_all().await;
}

/// Appends on a connection of the pool, after earlier ones that wait for the same stream, and within the tenant's share.
pub(crate) async fn append_outside_groups(
    shared: &Shared,
    to_append: &CheckedAppend,
    turn_in_stream: Option<StreamTurn>,
) -> Result<Appended, AppendError> {
    let ready = ready(shared, to_append, turn_in_stream.as_ref());
    let taken = match to_append.deadline {
        Some(deadline) if deadline <= Instant::now() => None,
        Some(deadline) => timeout_at(deadline, ready).await.ok(),
        None => Some(ready.await),
    };
    let late = || AppendError::DeadlineExceeded { stream: to_append.first_stream() };
    let (_turn, _share, mut connection) = taken.ok_or_else(late)??;
    let sent = append(&mut connection, to_append);
    let appended = match to_append.deadline {
        Some(deadline) => timeout_at(deadline, sent).await,
        None => Ok(sent.await),
    };
    let appended = appended.unwrap_or_else(|_| Err(AppendError::unanswered(to_append.first_stream())))?;
    drop(connection);
    shared.committed(appended.position);
    Ok(appended)
}

/// What an append needs before it is sent.
async fn ready(
    shared: &Shared,
    to_append: &CheckedAppend,
    turn_in_stream: Option<&StreamTurn>,
) -> Result<(Option<OwnedMutexGuard<()>>, Share, PooledConnection), AppendError> {
    let begun = Instant::now();
    let share = async {
        let turn = match turn_in_stream {
            Some(turn_in_stream) => Some(turn_in_stream.turn().await),
            None => None,
        };
        (turn, shared.shares.take(&to_append.tenant, turn_in_stream.is_some()).await)
    };
    let Ok((turn, share)) = timeout(shared.pool.timeout(), share).await else {
        let waited = begun.elapsed();
        if turn_in_stream.is_some() {
            return Err(AppendError::Busy { waited, holder: Holder::Transaction });
        }
        let why =
            format!("other appends of tenant `{}` used its share of the connections for {waited:?}", to_append.tenant);
        return Err(AppendError::Unavailable { source: BackendError::new(why) });
    };
    let connection = shared.pool.take().await.map_err(NoConnection::into_append)?;
    Ok((turn, share, connection))
}

/// Wakes readers when the head may have moved to `position`. It is lower than before if the log was rewound.
pub(crate) fn announce(head: &watch::Sender<Position>, position: Position) {
    head.send_if_modified(|head| std::mem::replace(head, position) != position);
}
