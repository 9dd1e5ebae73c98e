//! What the parts of a runner share, and the run of one instance.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::{Clock, Repository, StreamId};
use annals_projections::{ProjectionStatus, Projections, slot_of};
use futures::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::any_saga::{AnySaga, Key};
use super::in_flight::{Begin, InFlight};
use super::instances::SLOTS;
use super::look::has;
use crate::control::Control;
use crate::instance::Instance;

/// An instance that waits no longer than this goes on in its task, which the table need not wake.
const SHORT: Duration = Duration::from_millis(200);

pub(crate) struct Shared {
    pub(crate) sagas: BTreeMap<String, Arc<dyn AnySaga>>,
    pub(crate) instances: Repository<Instance>,
    pub(crate) views: Projections,
    /// The state of the projection.
    pub(crate) state: watch::Receiver<ProjectionStatus>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lease: Duration,
    pub(crate) look_every: Duration,
    /// Something may have to be looked for.
    pub(crate) wake: Notify,
    pub(crate) tracker: TaskTracker,
    /// Ends the runs that are under way.
    pub(crate) abort: CancellationToken,
    pub(crate) seen: Mutex<Seen>,
}

/// What is reported to people.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) missing: Vec<String>,
    pub(crate) error: Option<String>,
}

impl Shared {
    /// The slots that this process has.
    pub(crate) fn slots(&self) -> Vec<u32> {
        let state = self.state.borrow();
        state.slots.iter().filter(|slot| has(&slot.state)).map(|slot| slot.slot).collect()
    }

    /// Runs an instance in a task of its own, if its slot is this process's and there is room. Whether it does.
    pub(crate) fn run(self: &Arc<Self>, key: Key, saga: &str, row: Option<i64>) -> bool {
        let Some(saga) = self.sagas.get(saga).cloned() else { return false };
        let Ok(stream) = self.stream(&key) else { return false };
        let slot = slot_of(&stream, SLOTS);
        let is_here = self.state.borrow().slots.iter().any(|status| status.slot == slot && has(&status.state));
        if !is_here {
            return false;
        }
        let Begin::Run(control) = self.in_flight.begin(&key, slot, row, self.lease) else { return false };
        let shared = Arc::clone(self);
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = shared.abort.cancelled() => drop(shared.in_flight.ended(&key, None)),
                () = run(&shared, &*saga, &key, &control) => {}
            }
            if shared.in_flight.take_was_full() {
                shared.wake.notify_one();
            }
        });
        true
    }

    fn stream(&self, key: &Key) -> Result<StreamId, annals_eventstore::Invalid> {
        self.instances.with(annals_eventstore::Context::of(key.tenant.clone())).stream(&key.id)
    }

    fn seen(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The table was read, or not for this reason.
    pub(crate) fn looked(&self, error: Option<String>) {
        self.seen(|seen| seen.error = error);
    }

    pub(crate) fn set_missing(&self, missing: Vec<String>) {
        self.seen(|seen| seen.missing = missing);
    }
}

/// Runs an instance until it waits, ends, is stuck, or the run fails.
async fn run(shared: &Shared, saga: &dyn AnySaga, key: &Key, control: &Control) {
    loop {
        // A step may panic; that is as if the process had ended in it.
        let ended = AssertUnwindSafe(saga.run(key, control)).catch_unwind().await;
        // What is said of its end is in its trace.
        let span = control.take_span();
        let version = match ended {
            Ok(Ok(status)) => {
                drop(span);
                let wait = status.wake_at.map(|at| at.duration_since(shared.clock.now()));
                let wait = wait.filter(|wait| wait.is_positive()).and_then(|wait| Duration::try_from(wait).ok());
                if let Some(wait) = wait.filter(|wait| *wait <= SHORT && !control.is_stopped()) {
                    sleep(wait).await;
                    continue;
                }
                Some(status.version.get())
            }
            Ok(Err(error)) => {
                let error = &error as &(dyn std::error::Error + 'static);
                let _span = span.entered();
                tracing::warn!(tenant = %key.tenant, saga = %key.id, error, "a saga could not be run; it is run again");
                None
            }
            Err(_) => {
                let _span = span.entered();
                tracing::error!(tenant = %key.tenant, saga = %key.id, "a step panicked; it is tried again");
                None
            }
        };
        if !shared.in_flight.ended(key, version) {
            return;
        }
    }
}
