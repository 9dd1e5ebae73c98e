//! How reactors fare, for people and for alerts.

use std::sync::Arc;

use annals_eventstore::Position;
use tokio::time::Instant;

use crate::error::Stopped;
use crate::pace::Pace;
use crate::status::ProjectionState;

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
    /// Who runs it: the name of this process or of another one. `None` if nobody does.
    pub owner: Option<Arc<str>>,
    /// What it is doing.
    pub state: ReactorState,
    pub(crate) pace: Pace,
    /// Since when it is in such a state.
    pub(crate) since: Instant,
}

impl ReactorStatus {
    pub(crate) fn new(name: &str, position: Position) -> Self {
        Self {
            name: name.into(),
            position,
            handled: 0,
            in_flight: 0,
            retrying: 0,
            parked: 0,
            last_error: None,
            owner: None,
            state: ReactorState::Standby { owner: None },
            pace: Pace::default(),
            since: Instant::now(),
        }
    }

    /// How many events a second this process handles, on average over about the last ten seconds.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.pace.per_second(Instant::now())
    }

    pub(crate) fn set_state(&mut self, state: ReactorState) {
        if state.as_projection().kind() != self.state.as_projection().kind() {
            self.since = Instant::now();
        }
        self.state = state;
    }
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

impl ReactorState {
    /// The same, of a projection.
    pub(crate) fn as_projection(&self) -> ProjectionState {
        match self {
            Self::CatchingUp => ProjectionState::CatchingUp,
            Self::Live => ProjectionState::Live,
            Self::Retrying { fault } => ProjectionState::Retrying { fault: fault.clone() },
            Self::Stopped(stopped) => ProjectionState::Stopped(stopped.clone()),
            Self::Standby { owner } => ProjectionState::Standby { owner: owner.clone() },
            Self::Closed => ProjectionState::Closed,
        }
    }

    /// Whether it is, or may be, continued without anybody starting it again.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !matches!(self, Self::Stopped(_) | Self::Closed)
    }
}
