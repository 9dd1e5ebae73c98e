//! Waiting until queries by the stable names see a position, whichever process sees to that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_eventstore::Position;
use futures::future::join_all;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::database::{Fault, Model, Shown, Shows, Switch};
use crate::error::{Elsewhere, ProjectionProgress, WaitError};
use crate::member::chain;
use crate::pass::Shared;
use crate::status::{ProjectionState, ProjectionStatus};
use crate::switch::SWITCH_AGAIN;

/// How often the database is asked again. The runner of this process says when there is something to see; another process,
/// which may feed the version shown, does not.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A projection that was started, and what its runner says of it.
pub(crate) struct Fed {
    pub(crate) model: Model,
    pub(crate) status: watch::Receiver<ProjectionStatus>,
}

/// The read models of a handle, by their stable names.
pub(crate) struct Names {
    shared: Shared,
    pub(crate) fed: Vec<Fed>,
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
        Self { shared, fed, models, begun: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// Waits until queries by the names of the projections `of` see everything up to `position`.
    pub(crate) async fn wait(&self, of: &[usize], position: Position, most: Duration) -> Result<(), WaitError> {
        let mut wait = Wait { names: self, of, position, look: None, fault: None };
        match timeout(most, wait.run()).await {
            Ok(ended) => ended,
            Err(_) => Err(WaitError::TimedOut { position, waited: most, reached: wait.reached() }),
        }
    }

    /// What the names show at a moment after this was called.
    async fn look(&self) -> Result<Arc<Look>, Fault> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.number > before) {
            return Ok(Arc::clone(look));
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let look = Arc::new(Look { number, shown: self.shared.database.shown(&self.models).await? });
        *last = Some(Arc::clone(&look));
        Ok(look)
    }

    /// Lets the name of projection `at` show the version that runs here, as soon as that has read what is shown now.
    pub(crate) async fn show(&self, at: usize, most: Duration) -> Result<(), WaitError> {
        let Fed { model, status } = &self.fed[at];
        let mut why = "the database has not answered".to_owned();
        let shown = async {
            let how = Switch { even_down: true, foreign: None };
            loop {
                let pause = match self.shared.database.show(model, how).await {
                    Ok(Shows::This) => return Ok(()),
                    Ok(Shows::Stays(shown)) => {
                        why = format!("it shows version {shown}");
                        LOOK_AGAIN
                    }
                    Ok(Shows::Further(shown)) => {
                        let own = status.borrow().clone();
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

/// Somebody who waits.
struct Wait<'a> {
    names: &'a Names,
    of: &'a [usize],
    position: Position,
    /// What was seen last.
    look: Option<Arc<Look>>,
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
        let look = match self.names.look().await {
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
            there &= self.is_there(at, look.shown[at]).await?;
        }
        if !there {
            self.check_open()?;
        }
        Ok(there)
    }

    async fn is_there(&mut self, at: usize, shown: Option<Shown>) -> Result<bool, WaitError> {
        let status = self.names.fed[at].status.borrow().clone();
        let position = self.position;
        match shown {
            Some(shown) if shown.version != status.version => {
                if shown.checkpoint.position < position {
                    return Ok(false);
                }
                // Nobody here has read with that version, so nobody here has seen that it is of this log.
                let checked = self.names.shared.store.check_checkpoint(&shown.checkpoint).await;
                self.fault = checked.as_ref().err().map(|error| chain(error));
                Ok(checked.is_ok())
            }
            Some(shown) if position_of(&status, &shown) >= position => Ok(true),
            _ => match status.state {
                ProjectionState::Stopped(stopped) => Err(WaitError::Stopped(stopped)),
                _ => Ok(false),
            },
        }
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
        self.of.iter().map(|&at| self.reach(at)).collect()
    }

    fn reach(&self, at: usize) -> ProjectionProgress {
        let status = self.names.fed[at].status.borrow().clone();
        let shown = self.look.as_ref().and_then(|look| look.shown[at]);
        let retrying_after = match &status.state {
            ProjectionState::Retrying { fault } => Some(fault.clone()),
            _ => self.fault.clone(),
        };
        let elsewhere = shown.filter(|shown| shown.version != status.version).map(|shown| Elsewhere {
            version: shown.version,
            moved_at: shown.moved_at,
            here: status.version,
            here_position: status.position,
        });
        let position = shown.map_or(status.position, |shown| position_of(&status, &shown));
        ProjectionProgress { projection: status.name, position, retrying_after, elsewhere }
    }
}

/// Up to where queries see the log in a version that is shown.
fn position_of(status: &ProjectionStatus, shown: &Shown) -> Position {
    let stored = shown.checkpoint.position;
    if shown.version != status.version {
        return stored;
    }
    if shown.checkpoint.incarnation != status.saved.incarnation {
        // Another log is read into the table, of which this one's positions say nothing.
        return Position::START;
    }
    // Where nothing concerns the projection, its checkpoint is stored a little later.
    if stored >= status.saved.position { stored.max(status.position) } else { stored }
}

/// Waits until the runner says that it has reached `position`, or that it runs no more.
async fn arrive(mut status: watch::Receiver<ProjectionStatus>, position: Position) {
    // A runner that is gone has left a last word, which is looked at next.
    status.wait_for(|status| status.position >= position || !status.state.is_running()).await.map(drop).ok();
}
