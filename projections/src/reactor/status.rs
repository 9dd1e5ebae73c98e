//! How reactors fare, for people and for alerts.

use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use annals_eventstore::Position;

use crate::error::Stopped;

/// The state of one reactor, as [`Projections::reactors`](crate::Projections::reactors) gives it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReactorStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Every event up to here is handled, except those of parked streams. The stored position may be 200 ms or 100 events
    /// behind, or a second where nothing concerned it.
    pub position: Position,
    /// How many events it has handled since it was started, in this process.
    pub handled: u64,
    /// How many events are being handled.
    pub in_flight: usize,
    /// How many streams wait for another try of an event, if this process runs it.
    pub retrying: usize,
    /// How many streams are parked, if this process runs it; [`Projections::parked`](crate::Projections::parked) has them
    /// in every process.
    pub parked: usize,
    /// The last error, until an event that has failed is handled: event and reason, if this process runs it.
    pub last_error: Option<String>,
    /// What it is doing.
    pub state: ReactorState,
}

/// What a reactor is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReactorState {
    /// It is handling what it has missed.
    CatchingUp,
    /// It has reached the end of the log and follows it.
    Live,
    /// A fault of the store or of the database that may pass blocks it; it tries again with growing pauses.
    Retrying {
        /// The fault.
        fault: String,
    },
    /// It goes no further in this process. Fix what it says, and start the process again, or a build with the fix.
    Stopped(Stopped),
    /// Another process runs it. This one takes over if that ends.
    Standby {
        /// The name of the process; `None` if none has claimed it yet.
        owner: Option<Arc<str>>,
    },
    /// It was closed.
    Closed,
}

/// A state, without what it says in detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateKind(Discriminant<ReactorState>, bool);

impl ReactorState {
    /// What is the same as long as nothing happens to it but progress.
    pub(super) fn kind(&self) -> StateKind {
        StateKind(discriminant(self), matches!(self, Self::Standby { owner: None }))
    }

    /// Whether it is, or may be, continued without anybody starting it again.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !matches!(self, Self::Stopped(_) | Self::Closed)
    }
}
