//! Waiting until queries by the stable names see a position, whichever process sees to that.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_eventstore::{BackendError, Checkpoint, Position};
use futures::future::join_all;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::commit::check_log;
use crate::database::{Fault, Model, Shown, Shows, Switch, UnitId};
use crate::error::{Elsewhere, ProjectionProgress, WaitError};
use crate::member::{AnyProjection, chain};
use crate::pass::Shared;
use crate::status::{ProjectionState, ProjectionStatus, SlotStatus};
use crate::switch::SWITCH_AGAIN;

/// How often the database is asked again. The runner of this process says when there is something to see; another process,
/// which may feed the version shown, does not.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After so long without an answer the database is what is waited for.
const NO_ANSWER: Duration = Duration::from_millis(100);

/// A projection that was started, and what its runner says of it.
pub(crate) struct Fed {
    pub(crate) model: Model,
    pub(crate) status: watch::Receiver<ProjectionStatus>,
    pub(crate) projection: Arc<dyn AnyProjection>,
}

/// The read models of a handle, by their stable names.
pub(crate) struct Names {
    pub(crate) shared: Shared,
    pub(crate) fed: Vec<Fed>,
    looks: Arc<Looks>,
    /// Where the runner is, and looks are: the runtime of a caller may be driven no more.
    runtime: Handle,
}

/// What is asked of the database for all who wait.
struct Looks {
    shared: Shared,
    models: Vec<Model>,
    /// How many looks were begun.
    begun: AtomicU64,
    /// The last answer. Its lock is held while the database is asked: those who come meanwhile wait for it in turn, and the
    /// first of them asks for all.
    last: Mutex<Option<Arc<Look>>>,
}

/// What all names showed at one moment.
struct Look {
    number: u64,
    shown: Vec<Option<Shown>>,
}

impl Names {
    pub(crate) fn new(shared: Shared, fed: Vec<Fed>) -> Self {
        let models = fed.iter().map(|fed| fed.model).collect();
        let looks = Looks { shared: shared.clone(), models, begun: AtomicU64::new(0), last: Mutex::new(None) };
        Self { shared, fed, looks: Arc::new(looks), runtime: Handle::current() }
    }

    /// Waits until queries by the names of the projections `of` see everything up to `position`.
    pub(crate) async fn wait(&self, of: &[usize], position: Position, most: Duration) -> Result<(), WaitError> {
        let behind = self.fed.iter().map(|fed| fed.status.borrow().position < position).collect();
        let mut wait = Wait { names: self, of, position, behind, checked: None, look: None, asked: None, fault: None };
        match timeout(most, wait.run()).await {
            Ok(ended) => ended,
            Err(_) if wait.asked.is_some_and(|asked| asked.elapsed() >= NO_ANSWER) => {
                Err(WaitError::Unavailable(BackendError::new(format!("it has not answered within {most:?}"))))
            }
            Err(_) => Err(WaitError::TimedOut { position, waited: most, reached: wait.reached() }),
        }
    }

    /// The same of all names.
    pub(crate) async fn wait_for_all(&self, position: Position, most: Duration) -> Result<(), WaitError> {
        let all: Vec<usize> = (0..self.fed.len()).collect();
        self.wait(&all, position, most).await
    }

    /// The same up to where the log ends now.
    pub(crate) async fn wait_for_head(&self, most: Duration) -> Result<(), WaitError> {
        let begun = Instant::now();
        let unknown = |cause| WaitError::HeadUnknown { waited: most, cause };
        let head = timeout(most, self.shared.store.head()).await.map_err(|_| unknown(None))?;
        let head = head.map_err(|error| unknown(Some(error)))?;
        self.wait_for_all(head.position, most.saturating_sub(begun.elapsed())).await
    }

    /// What the names show at a moment after this was called. It is asked in a task of its own: a caller who does not poll would keep
    /// its turn, and a connection, from all others.
    async fn look(&self) -> Result<Arc<Look>, Fault> {
        let looks = Arc::clone(&self.looks);
        let (_caller, gone) = oneshot::channel();
        match self.runtime.spawn(async move { looks.look(gone).await }).await {
            Ok(look) => look,
            Err(failed) if failed.is_panic() => resume_unwind(failed.into_panic()),
            Err(ended) => Err(unanswered(ended)),
        }
    }

    /// Up to where queries by each name see the log.
    pub(crate) async fn progress(&self) -> Result<Vec<ProjectionProgress>, WaitError> {
        let look = self.look().await.map_err(|fault| match fault.transient {
            true => WaitError::Unavailable(fault.source),
            false => WaitError::Database(fault.source),
        })?;
        let progress = |at: usize| self.progress_of(at, look.shown[at].clone(), None);
        Ok((0..self.fed.len()).map(progress).collect())
    }

    /// How far projection `at` is, with what its name showed; `fault` is why nothing was seen since.
    fn progress_of(&self, at: usize, shown: Option<Shown>, fault: Option<String>) -> ProjectionProgress {
        let status = self.fed[at].status.borrow().clone();
        let retrying_after = match &status.state {
            ProjectionState::Retrying { fault } => Some(fault.clone()),
            _ => fault,
        };
        let elsewhere = shown.as_ref().filter(|shown| shown.version != status.version).map(|shown| Elsewhere {
            version: shown.version,
            moved_at: shown.moved_at,
            here: status.version,
            here_position: status.position,
        });
        let position =
            shown.as_ref().and_then(|shown| seen_up_to(&status, shown)).map_or(status.position, |c| c.position);
        let in_the_way = in_the_way(&status);
        ProjectionProgress { projection: status.name, position, retrying_after, in_the_way, elsewhere }
    }

    /// Lets the name of projection `at` show the version that runs here, as soon as that has read what is shown now.
    pub(crate) async fn show(&self, at: usize, most: Duration) -> Result<(), WaitError> {
        let Fed { model, status, .. } = &self.fed[at];
        let mut why = "the database has not answered".to_owned();
        let shown = async {
            let mut how = Switch { even_down: true, foreign: None };
            loop {
                let own = status.borrow().clone();
                if let Some(stopped) = own.stopped_by_rewind() {
                    return Err(WaitError::Stopped(stopped.clone()));
                }
                let progress = own.progress().unwrap_or(Checkpoint::start(self.shared.store.incarnation()));
                if let Err(error) = check_log(self.shared.store.as_ref(), &progress).await {
                    why = chain(&error);
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
                let pause = match self.shared.database.show(model, how).await {
                    Ok(Shows::This) => return Ok(()),
                    Ok(Shows::Stays(shown)) => {
                        why = format!("it shows version {shown}");
                        LOOK_AGAIN
                    }
                    Ok(Shows::Further(shown)) if how.foreign != Some(shown) && self.shared.is_foreign(&shown).await => {
                        how.foreign = Some(shown);
                        continue;
                    }
                    Ok(Shows::Further(shown)) => {
                        why = format!(
                            "version {} is at {}, and what is shown at {}",
                            own.version, own.position, shown.position
                        );
                        if let ProjectionState::Stopped(stopped) = own.state {
                            return Err(WaitError::Stopped(stopped));
                        }
                        LOOK_AGAIN
                    }
                    Err(fault) if fault.transient => {
                        why = chain(&fault.source);
                        SWITCH_AGAIN
                    }
                    Err(fault) => return Err(WaitError::Database(fault.source)),
                };
                sleep(pause).await;
            }
        };
        let shown = timeout(most, shown).await;
        shown.unwrap_or_else(|_| {
            let Model { projection, version, table } = *model;
            Err(WaitError::NotShown { projection, version, read_model: table.name, waited: most, why })
        })
    }
}

impl Looks {
    /// What the names show for a caller, until whose end it waits for its turn.
    async fn look(&self, caller: oneshot::Receiver<()>) -> Result<Arc<Look>, Fault> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = tokio::select! {
            last = self.last.lock() => last,
            _ = caller => return Err(unanswered("nobody waits for the answer any more")),
        };
        if let Some(look) = last.as_ref().filter(|look| look.number > before) {
            return Ok(Arc::clone(look));
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let mut shown = self.shared.database.shown(&self.models).await?;
        self.look_at_transactions(&mut shown).await?;
        let look = Arc::new(Look { number, shown });
        *last = Some(Arc::clone(&look));
        Ok(look)
    }

    /// A transaction projection has no name that shows a version: what counts is the one that runs here.
    async fn look_at_transactions(&self, shown: &mut [Option<Shown>]) -> Result<(), Fault> {
        let own: Vec<usize> = (0..self.models.len()).filter(|&at| self.models[at].is_in_transaction()).collect();
        if own.is_empty() {
            return Ok(());
        }
        let unit = |&at: &usize| {
            let Model { projection, version, .. } = self.models[at];
            UnitId { projection, version, slot: 0 }
        };
        let units: Vec<UnitId> = own.iter().map(unit).collect();
        for (at, place) in own.into_iter().zip(self.shared.database.places(&units).await?) {
            // When it was moved is asked only of a version that runs elsewhere.
            let moved_at = Timestamp::UNIX_EPOCH;
            let version = self.models[at].version;
            shown[at] = place.map(|place| Shown { version, places: vec![(0, place.checkpoint)], moved_at });
        }
        Ok(())
    }
}

/// A look that was not made; the next may be.
fn unanswered(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault { transient: true, blocked: false, part: None, source: BackendError::new(why) }
}

/// Somebody who waits.
struct Wait<'a> {
    names: &'a Names,
    of: &'a [usize],
    position: Position,
    /// Which projections had not reached the position when the wait began.
    behind: Vec<bool>,
    /// The checkpoint that was compared with the log since, and is of it.
    checked: Option<Checkpoint>,
    /// What was seen last.
    look: Option<Arc<Look>>,
    /// Since when the database is asked, while it has not answered.
    asked: Option<Instant>,
    /// Why nothing could be seen since.
    fault: Option<String>,
}

impl Wait<'_> {
    async fn run(&mut self) -> Result<(), WaitError> {
        loop {
            let arriving = self.of.iter().map(|&at| arrive(self.names.fed[at].status.clone(), self.position));
            let arrived = timeout(LOOK_AGAIN, join_all(arriving)).await.is_ok();
            if self.there().await? {
                return Ok(());
            }
            if arrived {
                // So there is more to wait for than the runner of this process.
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Whether all names show what is waited for; an error if one will not.
    async fn there(&mut self) -> Result<bool, WaitError> {
        self.asked = Some(Instant::now());
        let look = self.names.look().await;
        self.asked = None;
        let look = match look {
            Ok(look) => look,
            Err(fault) => {
                self.check_open()?;
                if !fault.transient {
                    return Err(WaitError::Database(fault.source));
                }
                self.fault = Some(chain(&fault.source));
                return Ok(false);
            }
        };
        self.look = Some(Arc::clone(&look));
        self.fault = None;
        let mut there = true;
        for &at in self.of {
            there &= self.is_there(at, look.shown[at].as_ref()).await?;
        }
        if !there {
            self.check_open()?;
        }
        Ok(there)
    }

    async fn is_there(&mut self, at: usize, shown: Option<&Shown>) -> Result<bool, WaitError> {
        let status = self.names.fed[at].status.borrow().clone();
        let is_own = shown.is_none_or(|shown| shown.version == status.version);
        if is_own && let Some(stopped) = status.stopped_by_rewind() {
            return Err(WaitError::Stopped(stopped.clone()));
        }
        match shown.and_then(|shown| seen_up_to(&status, shown)) {
            Some(seen) if seen.position >= self.position => {
                // What the runner of this process has reached since the wait began, it has read from this log. Anything else
                // may have been stored before the log was restored, or before another server took over.
                let was_read = is_own && status.is_read_here() && self.behind[at] && status.position >= self.position;
                Ok(was_read || self.is_of_this_log(seen).await)
            }
            _ => match status.state {
                ProjectionState::Stopped(stopped) if is_own => Err(WaitError::Stopped(stopped)),
                _ => Ok(false),
            },
        }
    }

    /// Compares a checkpoint with the log, once.
    async fn is_of_this_log(&mut self, checkpoint: Checkpoint) -> bool {
        if self.checked == Some(checkpoint) {
            return true;
        }
        match check_log(self.names.shared.store.as_ref(), &checkpoint).await {
            Ok(()) => self.checked = Some(checkpoint),
            Err(error) => self.fault = Some(chain(&error)),
        }
        self.checked == Some(checkpoint)
    }

    /// Fails if the projections were closed.
    fn check_open(&self) -> Result<(), WaitError> {
        let closed = |at: &usize| matches!(self.names.fed[*at].status.borrow().state, ProjectionState::Closed);
        match self.of.iter().any(closed) {
            true => Err(WaitError::Closed { position: self.position, reached: self.reached() }),
            false => Ok(()),
        }
    }

    /// How far each has got.
    fn reached(&self) -> Vec<ProjectionProgress> {
        let shown = |at: usize| self.look.as_ref().and_then(|look| look.shown[at].clone());
        self.of.iter().map(|&at| self.names.progress_of(at, shown(at), self.fault.clone())).collect()
    }
}

/// Why slots of a projection do not go on in this process.
fn in_the_way(status: &ProjectionStatus) -> Option<String> {
    let what_of = |own: &SlotStatus| {
        Some(match &own.state {
            ProjectionState::Paused { by, since } => format!("paused by `{by}` since {since}"),
            ProjectionState::Standby { owner: Some(owner) } => format!("run by {owner}"),
            ProjectionState::Standby { owner: None } => "run by no process at the moment".to_owned(),
            _ => return None,
        })
    };
    let mut slots_of: Vec<(String, Vec<String>)> = Vec::new();
    for (own, what) in status.slots.iter().filter_map(|own| Some((own, what_of(own)?))) {
        match slots_of.iter_mut().find(|(other, _)| *other == what) {
            Some((_, slots)) => slots.push(own.slot.to_string()),
            None => slots_of.push((what, vec![own.slot.to_string()])),
        }
    }
    let all = slots_of.into_iter().map(|(what, slots)| match slots.len() {
        all if all == status.slots.len() => what,
        1 => format!("slot {}: {what}", slots[0]),
        _ => format!("slots {}: {what}", slots.join(", ")),
    });
    Some(all.collect::<Vec<_>>().join(", ")).filter(|all| !all.is_empty())
}

/// Up to where queries see the log in a version that is shown: the slot that is furthest behind.
fn seen_up_to(status: &ProjectionStatus, shown: &Shown) -> Option<Checkpoint> {
    let slots = shown.places.iter().map(|(slot, stored)| {
        let own = status.slots.iter().find(|own| own.slot == *slot && shown.version == status.version);
        own.map_or(*stored, |own| seen_of_slot(own, *stored))
    });
    slots.min_by_key(|seen| seen.position)
}

fn seen_of_slot(status: &SlotStatus, stored: Checkpoint) -> Checkpoint {
    if stored.incarnation != status.saved.incarnation {
        // Another log is read into the table, of which this one's positions say nothing.
        return Checkpoint::start(status.saved.incarnation);
    }
    // Where nothing concerns the projection, its checkpoint is stored a little later.
    let later = stored.position >= status.saved.position && status.position > stored.position;
    if later { status.progress } else { stored }
}

/// Waits until the runner says that it has reached `position`, or that it runs no more.
async fn arrive(mut status: watch::Receiver<ProjectionStatus>, position: Position) {
    // A runner that is gone has left a last word, which is looked at next.
    status.wait_for(|status| status.position >= position || !status.state.is_running()).await.map(drop).ok();
}
