//! Appends that wait for a writer: one queue per tenant, and one append of each tenant after the other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::bounds::{Bounds, Counted};
use crate::append::{Appended, CheckedAppend};
use crate::error::{AppendError, BackendError};
use crate::event::EventId;
use crate::limits::Limits;
use crate::stream::Tenant;

/// The most rows of one batch, unless one append alone has more. Larger batches are not
/// faster, and the appends behind them wait longer.
const MOST_ROWS: usize = 4_096;

/// The state of an append. Only the side that changes it from `QUEUED` may decide how the append ends.
#[derive(Debug, Default)]
struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    fn take(&self) -> bool {
        self.0.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the append back, unless the writer has it already.
    fn withdraw(&self) -> bool {
        self.0.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Where the answer to an append goes. Until then it counts among those of its tenant.
pub(crate) struct Reply {
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    counted: Counted,
}

impl Reply {
    /// Answers. The caller may have dropped its future; what is stored is stored all the same.
    pub(crate) fn send(self, answer: Result<Appended, AppendError>) {
        // First, so that the caller finds room for the next one.
        drop(self.counted);
        drop(self.answer.send(answer));
    }
}

/// An append in the queue.
struct Job {
    append: CheckedAppend,
    reply: Reply,
    ticket: Arc<Ticket>,
    arrived: Instant,
}

/// Appends that a writer has taken to write them together, and where their answers go.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) appends: Vec<CheckedAppend>,
    pub(crate) replies: Vec<Reply>,
}

/// The queue of one writer.
pub(crate) struct Queue {
    bounds: Bounds,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    tenants: HashMap<Tenant, VecDeque<Job>>,
    /// Tenants with a waiting append, in the order in which they are served.
    order: VecDeque<Tenant>,
    closed: bool,
}

/// Answers the appends that are still queued when their writer ends, even by a panic.
pub(crate) struct EndOfQueue(pub(crate) Arc<Queue>);

impl Drop for EndOfQueue {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Queue {
    /// An empty queue, whose appends count among those of `bounds`.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: Mutex::default(), arrived: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing waits.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().order.is_empty()
    }

    /// Puts an append at the end of its tenant's queue and waits for its answer, not beyond its deadline. That takes it out again,
    /// unless a writer has taken it by then: its outcome is unknown then.
    pub(crate) async fn append(&self, append: CheckedAppend, limits: &Limits) -> Result<Appended, AppendError> {
        let (reply, mut answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let (stream, deadline) = (append.first_stream(), append.deadline);
        self.push(append, reply, Arc::clone(&ticket), limits)?;
        let gone = |_| AppendError::OutcomeUnknown {
            stream: stream.clone(),
            source: BackendError::new("the store's writer task ended before it answered"),
        };
        if let Some(deadline) = deadline {
            match tokio::time::timeout_at(deadline, &mut answer).await {
                Ok(answer) => return answer.map_err(gone)?,
                Err(_) if ticket.withdraw() => return Err(AppendError::DeadlineExceeded { stream }),
                Err(_) => return Err(AppendError::unanswered(stream)),
            }
        }
        answer.await.map_err(gone)?
    }

    fn push(
        &self,
        append: CheckedAppend,
        answer: oneshot::Sender<Result<Appended, AppendError>>,
        ticket: Arc<Ticket>,
        limits: &Limits,
    ) -> Result<(), AppendError> {
        {
            let mut waiting = self.lock();
            if waiting.closed {
                return Err(AppendError::Closed);
            }
            let counted = self.bounds.enter(&append, limits)?;
            let tenant = append.tenant.clone();
            let queue = waiting.tenants.entry(tenant.clone()).or_default();
            let first = queue.is_empty();
            queue.push_back(Job { append, reply: Reply { answer, counted }, ticket, arrived: Instant::now() });
            if first {
                waiting.order.push_back(tenant);
            }
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Refuses later appends; those that wait are still answered.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Refuses later appends, and those that wait, because no writer is left.
    fn abandon(&self) {
        let tenants = {
            let mut waiting = self.lock();
            waiting.closed = true;
            waiting.order.clear();
            std::mem::take(&mut waiting.tenants)
        };
        for job in tenants.into_values().flatten() {
            job.reply.send(Err(AppendError::Closed));
        }
    }

    /// Waits until there is an append; false when there will never be one again.
    pub(crate) async fn wait(&self) -> bool {
        loop {
            {
                let waiting = self.lock();
                if !waiting.order.is_empty() {
                    return true;
                }
                if waiting.closed {
                    return false;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Takes every append that was there at `time`, for one answer to all of them.
    pub(crate) fn take_until(&self, time: Instant) -> Taken {
        let mut waiting = self.lock();
        let Waiting { tenants, order, .. } = &mut *waiting;
        let mut taken = Taken::default();
        for queue in tenants.values_mut() {
            while let Some(Job { append, reply, ticket, .. }) = queue.pop_front_if(|job| job.arrived <= time) {
                if ticket.take() {
                    taken.appends.push(append);
                    taken.replies.push(reply);
                }
            }
        }
        tenants.retain(|_, queue| !queue.is_empty());
        order.retain(|tenant| tenants.contains_key(tenant));
        taken
    }

    /// Takes the next batch: one append of each tenant after the other, until the batch is full or the next append must see
    /// the outcome of one before it, because it repeats an event id or a request key.
    pub(crate) fn gather(&self, limits: &Limits) -> Taken {
        let mut waiting = self.lock();
        let mut batch = Taken::default();
        let (mut bytes, mut rows) = (0, 0);
        let mut ids: HashSet<EventId> = HashSet::new();
        let mut keys: HashSet<(Tenant, String)> = HashSet::new();
        let now = Instant::now();
        while let Some(tenant) = waiting.order.pop_front() {
            let Some(queue) = waiting.tenants.get_mut(&tenant) else { continue };
            let Some(job) = queue.pop_front() else { continue };
            let append = &job.append;
            if append.deadline.is_some_and(|deadline| deadline <= now) || job.reply.answer.is_closed() {
                if job.ticket.withdraw() {
                    let error = AppendError::DeadlineExceeded { stream: append.first_stream() };
                    job.reply.send(Err(error));
                }
            } else {
                let full = !batch.appends.is_empty()
                    && (bytes + append.bytes > limits.batch_bytes || rows + append.event_count > MOST_ROWS);
                let repeats = append.events().any(|(_, event)| ids.contains(&event.event_id))
                    || append.request.as_ref().is_some_and(|r| keys.contains(&(tenant.clone(), r.key().to_owned())));
                if full || repeats {
                    queue.push_front(job);
                    waiting.order.push_front(tenant);
                    break;
                }
                if job.ticket.take() {
                    bytes += append.bytes;
                    rows += append.event_count;
                    ids.extend(append.events().map(|(_, event)| event.event_id));
                    keys.extend(append.request.as_ref().map(|r| (tenant.clone(), r.key().to_owned())));
                    let Job { append, reply, .. } = job;
                    batch.appends.push(append);
                    batch.replies.push(reply);
                }
            }
            if queue.is_empty() {
                waiting.tenants.remove(&tenant);
            } else {
                waiting.order.push_back(tenant);
            }
        }
        batch
    }
}
