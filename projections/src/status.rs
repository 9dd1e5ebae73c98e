//! How projections fare, for people and for those who wait.

use std::sync::Arc;

use annals_eventstore::{Checkpoint, Position};
use tokio::sync::watch;

use crate::error::Stopped;

/// The state of one projection, as [`Projections::status`](crate::Projections::status) gives it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The version of its fold, from 1.
    pub version: u32,
    /// Everything in the log up to here is applied to this version's table. Where nothing concerned it, the stored
    /// checkpoint may be a little behind. What queries by the stable name see is another matter while a new version is
    /// deployed: [`Projections::progress`](crate::Projections::progress) looks at that, and
    /// [`Projections::wait_for`](crate::Projections::wait_for).
    pub position: Position,
    /// How many events it has applied since it was started, in this process.
    pub applied: u64,
    /// Stored names that no event which it wants had, when it was built in this process from the beginning to the end of the
    /// log. They may be misspelt, or new: the first event with such a name takes it out.
    pub unseen: Vec<&'static str>,
    /// What it is doing.
    pub state: ProjectionState,
    /// The event at `position`.
    pub(crate) progress: Checkpoint,
    /// Where its stored checkpoint was, at or before `position`; in between is nothing that concerns it.
    pub(crate) saved: Checkpoint,
}

impl ProjectionStatus {
    /// Why it has stopped, if that is because the log is another one than it has read.
    pub(crate) fn stopped_by_rewind(&self) -> Option<&Stopped> {
        match &self.state {
            ProjectionState::Stopped(stopped) => Some(stopped).filter(|stopped| stopped.cause.is_rewind()),
            _ => None,
        }
    }
}

/// What a projection is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProjectionState {
    /// It is reading what it has missed.
    CatchingUp,
    /// It has reached the end of the log and follows it.
    Live,
    /// A fault that may pass blocks it; it tries again with growing pauses.
    Retrying {
        /// The fault.
        fault: String,
    },
    /// It goes no further. Fix what it says and start the projections again.
    Stopped(Stopped),
    /// It was closed.
    Closed,
}

impl ProjectionState {
    /// Whether it continues by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !matches!(self, Self::Stopped(_) | Self::Closed)
    }
}

/// The channel to which a runner writes the state of a projection; waits read it.
pub(crate) type StatusSender = watch::Sender<ProjectionStatus>;
