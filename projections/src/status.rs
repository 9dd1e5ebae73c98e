//! How projections fare, for people and for those who wait.

use std::sync::Arc;

use annals_eventstore::{Checkpoint, Position};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::database::Place;
use crate::error::Stopped;
use crate::pace::Pace;

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
    pub(crate) pace: Pace,
    /// Stored names that no event which it wants had, when it was built in this process from the beginning to the end of the
    /// log. They may be misspelt, or new: the first event with such a name takes it out.
    pub unseen: Vec<&'static str>,
    /// What it is doing: the worst of what its slots do here; what other processes do with slots of theirs counts only if
    /// none is run here.
    pub state: ProjectionState,
    /// Each slot of it; one if it is not split.
    pub slots: Vec<SlotStatus>,
}

/// The state of one slot of a projection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotStatus {
    /// Its number, from 0.
    pub slot: u32,
    /// Everything up to here that concerns the slot is applied, as far as this process knows: it looks now and then at what
    /// other processes do.
    pub position: Position,
    /// What is being done with it.
    pub state: ProjectionState,
    /// Who runs it: the name of this process or of another one. `None` if nobody does.
    pub owner: Option<Arc<str>>,
    /// The last fault that it met in this process, also one that has passed since.
    pub last_error: Option<LastError>,
    /// How many streams are parked in it, if this process runs it; [`Projections::dead_letters`] has those of all processes.
    ///
    /// [`Projections::dead_letters`]: crate::Projections::dead_letters
    pub parked: usize,
    /// The event at `position`.
    pub(crate) progress: Checkpoint,
    /// Where its stored checkpoint was, at or before `position`; in between is nothing that concerns it.
    pub(crate) saved: Checkpoint,
    /// Since when it is in such a state.
    pub(crate) since: Instant,
}

impl ProjectionStatus {
    pub(crate) fn new(name: Arc<str>, version: u32, places: &[Place]) -> Self {
        let slots = places.iter().map(|place| SlotStatus {
            slot: place.slot,
            position: place.checkpoint.position,
            state: ProjectionState::Standby { owner: None },
            owner: None,
            last_error: None,
            parked: 0,
            progress: place.checkpoint,
            saved: place.checkpoint,
            since: Instant::now(),
        });
        let slots: Vec<SlotStatus> = slots.collect();
        let (position, state) = (lowest(&slots), ProjectionState::Standby { owner: None });
        Self { name, version, position, applied: 0, pace: Pace::default(), unseen: Vec::new(), state, slots }
    }

    /// How many events a second this process applies, on average over about the last ten seconds.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.pace.per_second(Instant::now())
    }

    /// The last fault that one of its slots met in this process, also one that has passed since.
    #[must_use]
    pub fn last_error(&self) -> Option<&LastError> {
        self.slots.iter().filter_map(|slot| slot.last_error.as_ref()).max_by_key(|error| error.at)
    }

    /// Changes what is said of a slot, and so of the whole.
    pub(crate) fn of_slot(&mut self, slot: u32, change: impl FnOnce(&mut SlotStatus)) {
        if let Some(status) = self.slots.iter_mut().find(|status| status.slot == slot) {
            let before = status.state.kind();
            change(status);
            if status.state.kind() != before {
                status.since = Instant::now();
            }
        }
        self.position = lowest(&self.slots);
        let worst = self.slots.iter().max_by_key(|status| status.state.weight());
        if let Some(worst) = worst {
            self.state = worst.state.clone();
        }
    }

    /// None of its slots goes any further.
    pub(crate) fn stop_all(&mut self, stopped: &Stopped) {
        for status in self.slots.iter_mut().filter(|status| status.state.is_running()) {
            status.state = ProjectionState::Stopped(stopped.clone());
        }
        self.state = ProjectionState::Stopped(stopped.clone());
    }

    /// The checkpoint of the slot that is furthest behind, as it is reported.
    pub(crate) fn progress(&self) -> Option<Checkpoint> {
        self.slots.iter().map(|status| status.progress).min_by_key(|progress| progress.position)
    }

    /// Whether all of it is read by this process.
    pub(crate) fn is_read_here(&self) -> bool {
        let elsewhere = |state: &ProjectionState| {
            matches!(state, ProjectionState::Standby { .. } | ProjectionState::Paused { .. } | ProjectionState::Closed)
        };
        !self.slots.iter().any(|status| elsewhere(&status.state))
    }

    /// Why it has stopped, if that is because the log is another one than it has read.
    pub(crate) fn stopped_by_rewind(&self) -> Option<&Stopped> {
        match &self.state {
            ProjectionState::Stopped(stopped) => Some(stopped).filter(|stopped| stopped.cause.is_rewind()),
            _ => None,
        }
    }
}

/// A fault, and when it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// What went wrong, with everything behind it, in one line.
    pub text: Arc<str>,
    /// When, by the clock of the projections.
    pub at: Timestamp,
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
    /// Another process runs it. This one takes over if that ends.
    Standby {
        /// The name of the process; `None` if none has claimed it yet.
        owner: Option<Arc<str>>,
    },
    /// Somebody has asked all processes to leave it alone, by [`Projections::pause`](crate::Projections::pause).
    Paused {
        /// Who.
        by: Arc<str>,
        /// Since when.
        since: Timestamp,
    },
    /// It was closed.
    Closed,
}

impl ProjectionState {
    /// How much it says of a projection some of whose slots are in another state.
    fn weight(&self) -> u8 {
        match self {
            Self::Stopped(_) => 6,
            Self::Paused { .. } => 5,
            Self::Retrying { .. } => 4,
            Self::CatchingUp => 3,
            Self::Live => 2,
            Self::Standby { .. } => 1,
            Self::Closed => 0,
        }
    }

    /// What is the same as long as nothing happens to it but progress.
    pub(crate) fn kind(&self) -> (u8, bool) {
        (self.weight(), matches!(self, Self::Standby { owner: None }))
    }

    /// The names of all states in metrics.
    pub(crate) const METRICS: [&str; 8] =
        ["live", "catching_up", "retrying", "stopped", "standby", "unowned", "paused", "closed"];

    /// Its name in metrics.
    pub(crate) fn metric(&self) -> &'static str {
        match self {
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Retrying { .. } => "retrying",
            Self::Stopped(_) => "stopped",
            Self::Standby { owner: Some(_) } => "standby",
            Self::Standby { owner: None } => "unowned",
            Self::Paused { .. } => "paused",
            Self::Closed => "closed",
        }
    }

    /// Whether it is, or may be, continued without anybody starting it again.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !matches!(self, Self::Stopped(_) | Self::Closed)
    }
}

fn lowest(slots: &[SlotStatus]) -> Position {
    slots.iter().map(|status| status.position).min().unwrap_or_default()
}

/// The channel to which a runner writes the state of a projection; waits read it.
pub(crate) type StatusSender = watch::Sender<ProjectionStatus>;
