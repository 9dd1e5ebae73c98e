use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{Bulkhead, BulkheadSettings, NoSlot};
use crate::deadline::Deadline;
use crate::error::SettingsError;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of its own for work that blocks, so that it takes none from the runtime or from other blocking work.
///
/// As many threads as the bulkhead has slots. Dropping the last handle ends them after the work under way.
#[derive(Debug, Clone)]
pub struct BlockingPool {
    bulkhead: Bulkhead,
    jobs: Sender<Job>,
}

/// Blocking work gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// It was not started.
    #[error(transparent)]
    NoSlot(#[from] NoSlot),
    /// It panicked. The thread goes on with other work.
    #[error("the blocking work panicked")]
    Panicked,
}

impl BlockingPool {
    /// Starts the threads, named `name`.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that cannot work, also if the system gives no more threads.
    pub fn new(name: &str, settings: impl Into<BulkheadSettings>) -> Result<Self, SettingsError> {
        let bulkhead = Bulkhead::new(name, settings)?;
        let threads = bulkhead.settings().slots;
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = queue.clone();
            let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&queue));
            if let Err(error) = started {
                crate::error::Check::of(name).refuse("bulkhead.slots", threads, &error.to_string())?;
            }
        }
        Ok(Self { bulkhead, jobs })
    }

    /// Runs `work` on one of the threads, after waiting for one if need be, until the deadline at most.
    ///
    /// # Errors
    /// [`BlockingError`] if it was not started, or panicked.
    ///
    /// # Cancel safety
    /// Work that has begun runs to its end, and keeps its slot until then; its result is lost.
    pub async fn run<R: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, BlockingError> {
        let slot = self.bulkhead.enter(deadline).await?;
        let (answer, result) = oneshot::channel();
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            // The slot is free before the caller goes on, or it could find none with all work done.
            drop(slot);
            // A caller that left wants no result.
            let _ = answer.send(result.map_err(|_| BlockingError::Panicked));
        };
        // A thread waits for jobs as long as there is a handle, so there is always a receiver.
        let _ = self.jobs.send(Box::new(job));
        result.await.unwrap_or(Err(BlockingError::Panicked))
    }

    /// The slots and the queue in front of the threads.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // What the work gave is dropped here if its caller has left, which may panic as the work itself may.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(job))),
            Err(_) => return,
        }
    }
}
