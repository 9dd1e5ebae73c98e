//! The queue of snapshots that are to be saved, and the task that saves them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::key::Health;
use super::store::Snapshot;
use crate::contained::contained;
use crate::store::EventStore;
use crate::stream::{StreamId, StreamVersion};

/// How many snapshots may wait. Each keeps a state in memory.
const MOST_WAITING: usize = 64;
/// How long the task waits for further snapshots, which are then saved together: nobody waits for them.
const GATHER: Duration = Duration::from_millis(50);
/// How many bytes of states are written at once.
const MOST_BYTES: usize = 8 << 20;
/// The largest state that is saved, in bytes of JSON.
const MOST_BYTES_OF_ONE: usize = 16 << 20;

/// The snapshots of one handle that are to be saved: a bounded queue, and one task that saves them beside the commands.
///
/// The task begins with the first snapshot, in the tokio runtime of the command that led to it, which needs timers. If the
/// queue is full, snapshots are skipped and counted: [`Repository::snapshot_stats`](crate::Repository::snapshot_stats).
#[derive(Default)]
pub struct SnapshotQueue {
    state: Mutex<State>,
    keys: Mutex<HashMap<Arc<str>, Arc<Health>>>,
    task: Arc<Task>,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Running(mpsc::Sender<Job>),
    Closed,
}

struct Task {
    /// The permit of the one task that may run.
    running: Arc<Semaphore>,
    closing: Notify,
}

impl Default for Task {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(1)), closing: Notify::new() }
    }
}

/// A snapshot that is to be saved.
pub(crate) struct Job {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) health: Arc<Health>,
    pub(crate) stream: StreamId,
    pub(crate) version: StreamVersion,
    /// Writes the state as JSON, or says why that is impossible.
    pub(crate) write: Box<dyn FnOnce() -> Result<Snapshot, String> + Send>,
}

impl SnapshotQueue {
    /// An empty queue, without a task yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Saves what waits and ends the task. Snapshots that are due later are skipped. Closing twice is harmless.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue closed, perhaps with a task that is still at it; closing again waits for it.
    pub async fn close(&self) {
        *lock(&self.state) = State::Closed;
        self.task.closing.notify_one();
        // It fails only if the semaphore were closed, which it never is.
        drop(self.task.running.acquire().await);
    }

    /// What is known about the snapshots under a key.
    pub(crate) fn health_of(&self, aggregate_type: &'static str, key: &Arc<str>) -> Arc<Health> {
        let mut keys = lock(&self.keys);
        // Two types may fold alike.
        let name = format!("{aggregate_type} {key}");
        Arc::clone(keys.entry(name.into()).or_insert_with(|| Arc::new(Health::new(aggregate_type))))
    }

    /// Takes a snapshot to be saved, or counts it as skipped.
    pub(crate) fn offer(&self, job: Job) {
        if let Err(job) = self.send(job) {
            tracing::debug!(stream = %job.stream, version = %job.version, "a snapshot is skipped");
            job.health.skipped();
        }
    }

    fn send(&self, job: Job) -> Result<(), Box<Job>> {
        let mut state = lock(&self.state);
        let job = match &*state {
            State::Closed => return Err(Box::new(job)),
            State::Idle => job,
            State::Running(sender) => match sender.try_send(job) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(job)) => return Err(Box::new(job)),
                // The runtime of the task has ended.
                Err(TrySendError::Closed(job)) => job,
            },
        };
        let permit = Arc::clone(&self.task.running).try_acquire_owned();
        let (Ok(runtime), Ok(permit)) = (tokio::runtime::Handle::try_current(), permit) else {
            return Err(Box::new(job));
        };
        let (sender, jobs) = mpsc::channel(MOST_WAITING);
        let task = Arc::clone(&self.task);
        runtime.spawn(async move {
            save_all(jobs, &task.closing).await;
            drop(permit);
        });
        let sent = sender.try_send(job);
        *state = State::Running(sender);
        sent.map_err(|e| Box::new(e.into_inner()))
    }
}

impl fmt::Debug for SnapshotQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotQueue").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn save_all(mut jobs: mpsc::Receiver<Job>, closing: &Notify) {
    let mut is_failing = false;
    while let Some(first) = jobs.recv().await {
        // No matter which: the queue is closing, or the time has passed.
        let _ = tokio::time::timeout(GATHER, closing.notified()).await;
        let mut batch = Batch::default();
        batch.add(first);
        while let Ok(job) = jobs.try_recv() {
            if batch.bytes >= MOST_BYTES {
                std::mem::take(&mut batch).save(&mut is_failing).await;
            }
            batch.add(job);
        }
        batch.save(&mut is_failing).await;
    }
}

/// Snapshots that are saved together.
#[derive(Default)]
struct Batch {
    snapshots: Vec<Snapshot>,
    bytes: usize,
    healths: Vec<Arc<Health>>,
    /// That of the queue, as every job has it.
    store: Option<Arc<dyn EventStore>>,
}

impl Batch {
    fn add(&mut self, job: Job) {
        let Job { store, health, stream, version, write } = job;
        match written(write) {
            Ok(snapshot) => {
                self.bytes += snapshot.body.as_str().len();
                self.snapshots.push(snapshot);
                self.healths.push(health);
                self.store = Some(store);
            }
            Err(why) => {
                tracing::error!(%stream, %version, why, "a state cannot be saved in a snapshot; fix its `Serialize` or `Deserialize`, or declare `snapshot(never)`");
                health.skipped();
            }
        }
    }

    async fn save(self, was_failing: &mut bool) {
        let Some(snapshots) = self.store.as_deref().and_then(EventStore::snapshots) else { return };
        let result = snapshots.save_snapshots(&self.snapshots).await;
        let count = if result.is_ok() { Health::saved } else { Health::skipped };
        self.healths.iter().for_each(|health| count(health));
        let is_failing = result.is_err();
        match result {
            Ok(()) => {}
            Err(error) if *was_failing => {
                tracing::debug!(error = &error as &dyn std::error::Error, "snapshots are not saved");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "snapshots are not saved; loads take longer, and nothing else follows from it");
            }
        }
        *was_failing = is_failing;
    }
}

/// Runs the user's `Serialize` and `Deserialize`, which may panic.
fn written(write: Box<dyn FnOnce() -> Result<Snapshot, String> + Send>) -> Result<Snapshot, String> {
    let snapshot = contained(write)?;
    match snapshot.body.as_str().len() {
        bytes if bytes > MOST_BYTES_OF_ONE => Err(format!("it has {bytes} bytes; the most are {MOST_BYTES_OF_ONE}")),
        _ => Ok(snapshot),
    }
}
