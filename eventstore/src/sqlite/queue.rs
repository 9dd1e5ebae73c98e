//! Appends that wait for the writer: one bounded queue per tenant, taken in turn.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::append::{Appended, CheckedAppend};
use crate::error::AppendError;
use crate::event::EventId;
use crate::limits::Limits;
use crate::stream::Tenant;

/// The most rows of one batch, unless one append alone has more. Larger batches gain nothing more and make those who
/// wait behind them wait longer.
const MOST_ROWS: usize = 4_096;

/// Where an append stands. Only the one that moves it on from `QUEUED` may decide its end.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    fn take(&self) -> bool {
        self.0.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the append back, unless the writer has it already.
    pub(super) fn withdraw(&self) -> bool {
        self.0.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// An append in the queue, and where its answer goes.
pub(super) struct Job {
    pub(super) append: CheckedAppend,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
    pub(super) ticket: Arc<Ticket>,
}

/// The queue of one store handle.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    tenants: HashMap<Tenant, Line>,
    /// Tenants with a waiting append, in the order of their turns.
    turns: VecDeque<Tenant>,
    closed: bool,
}

/// The appends of one tenant, in the order of their arrival.
#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    bytes: usize,
}

impl Line {
    fn push(&mut self, job: Job, tenant: &Tenant, limits: &Limits) -> Result<(), AppendError> {
        let refused =
            |unit, queued, limit| Err(AppendError::Overloaded { tenant: tenant.clone(), queued, limit, unit });
        if self.jobs.len() >= limits.queued_appends {
            return refused("appends", self.jobs.len(), limits.queued_appends);
        }
        if !self.jobs.is_empty() && self.bytes + job.append.bytes > limits.queued_bytes {
            return refused("bytes", self.bytes, limits.queued_bytes);
        }
        self.bytes += job.append.bytes;
        self.jobs.push_back(job);
        Ok(())
    }

    fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.bytes -= job.append.bytes;
        Some(job)
    }

    fn put_back(&mut self, job: Job) {
        self.bytes += job.append.bytes;
        self.jobs.push_front(job);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().turns.is_empty()
    }

    /// Puts an append at the end of its tenant's queue.
    pub(super) fn push(&self, job: Job, limits: &Limits) -> Result<(), AppendError> {
        {
            let mut waiting = self.lock();
            if waiting.closed {
                return Err(AppendError::Closed);
            }
            let tenant = job.append.tenant.clone();
            let line = waiting.tenants.entry(tenant.clone()).or_default();
            let first = line.jobs.is_empty();
            line.push(job, &tenant, limits)?;
            if first {
                waiting.turns.push_back(tenant);
            }
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Lets nothing more in; what waits is still answered.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Lets nothing more in and refuses what waits, because nobody will write it.
    pub(super) fn abandon(&self) {
        let tenants = {
            let mut waiting = self.lock();
            waiting.closed = true;
            waiting.turns.clear();
            std::mem::take(&mut waiting.tenants)
        };
        for job in tenants.into_values().flat_map(|line| line.jobs) {
            // A caller that has gone away needs no answer.
            drop(job.reply.send(Err(AppendError::Closed)));
        }
    }

    /// Waits until there is an append; false when there will never be one again.
    pub(super) async fn wait(&self) -> bool {
        loop {
            {
                let waiting = self.lock();
                if !waiting.turns.is_empty() {
                    return true;
                }
                if waiting.closed {
                    return false;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Takes the next batch: one append of each tenant in turn, until the batch is full or the next append must see
    /// the outcome of one before it, because it repeats an event id or a request key.
    pub(super) fn gather(&self, limits: &Limits) -> Vec<Job> {
        let mut waiting = self.lock();
        let mut batch: Vec<Job> = Vec::new();
        let (mut bytes, mut rows) = (0, 0);
        let mut ids: HashSet<EventId> = HashSet::new();
        let mut keys: HashSet<(Tenant, String)> = HashSet::new();
        let now = Instant::now();
        while let Some(tenant) = waiting.turns.pop_front() {
            let Some(line) = waiting.tenants.get_mut(&tenant) else { continue };
            let Some(job) = line.pop() else { continue };
            let append = &job.append;
            if job.append.deadline.is_some_and(|deadline| deadline <= now) || job.reply.is_closed() {
                if job.ticket.withdraw() {
                    let error = AppendError::DeadlineExceeded { stream: append.first_stream() };
                    // A caller that has gone away needs no answer.
                    drop(job.reply.send(Err(error)));
                }
            } else {
                let full = !batch.is_empty()
                    && (bytes + append.bytes > limits.batch_bytes || rows + append.event_count > MOST_ROWS);
                let repeats = append.events().any(|(_, event)| ids.contains(&event.event_id))
                    || append.request.as_ref().is_some_and(|r| keys.contains(&(tenant.clone(), r.key().to_owned())));
                if full || repeats {
                    line.put_back(job);
                    waiting.turns.push_front(tenant);
                    break;
                }
                if job.ticket.take() {
                    bytes += append.bytes;
                    rows += append.event_count;
                    ids.extend(append.events().map(|(_, event)| event.event_id));
                    keys.extend(append.request.as_ref().map(|r| (tenant.clone(), r.key().to_owned())));
                    batch.push(job);
                }
            }
            if line.jobs.is_empty() {
                waiting.tenants.remove(&tenant);
            } else {
                waiting.turns.push_back(tenant);
            }
        }
        batch
    }
}
