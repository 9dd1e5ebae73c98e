//! What a supervisor should think of projections: which are in order, which are behind, and which need somebody.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::Position;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use crate::handle::Projections;
use crate::member::chain;
use crate::status::{ProjectionState, ProjectionStatus, SlotStatus};

/// After how many times of a lease a slot that no process runs has failed.
const LEASES_WITHOUT_OWNER: u32 = 3;

/// How long a projection may be behind, or retry, without coming any further.
const MOST_WITHOUT_PROGRESS: Duration = Duration::from_secs(60);

/// How long the end of the log may take to be read. A health check has a second.
const MOST_FOR_HEAD: Duration = Duration::from_millis(500);

/// How one projection fares, as [`Projections::health`] gives it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProjectionHealth {
    /// Its name.
    pub name: Arc<str>,
    /// The version of its fold that runs here.
    pub version: u32,
    /// What to think of it.
    pub verdict: Verdict,
    /// Everything in the log up to here is applied, as of [`ProjectionStatus::position`].
    pub position: Position,
    /// How many positions the end of the log is ahead: at most so many events are to be read, also such that do not concern it.
    /// `None` if the end of the log could not be read within half a second.
    pub behind: Option<u64>,
    /// How long it takes to the end of the log at its pace since its health was first asked for while it is behind.
    /// `None` if it is not behind, or its pace is not known.
    pub time_left: Option<Duration>,
}

/// What a supervisor should think of a projection. Only [`Verdict::Failed`] needs somebody at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It follows the log, here or in another process.
    Healthy,
    /// It reads what it has missed. Being behind is no failure as long as it comes further.
    CatchingUp,
    /// A fault that may pass blocks it, for less than a minute.
    Retrying {
        /// The fault.
        fault: String,
    },
    /// It goes on, but without some streams: those of [`Projections::dead_letters`].
    Degraded {
        /// How many streams are parked in the slots that this process runs. Others report theirs.
        parked: usize,
    },
    /// Somebody has paused it, and that is no failure however far it is behind.
    Paused {
        /// Who.
        by: Arc<str>,
        /// Since when.
        since: Timestamp,
    },
    /// It does not go on: it has stopped, no process runs it, or it comes no further.
    Failed {
        /// Why, what is in the way, and since when.
        why: String,
    },
}

impl Verdict {
    /// Whether somebody has to do something.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::CatchingUp => 1,
            Self::Degraded { .. } => 2,
            Self::Retrying { .. } => 3,
            Self::Paused { .. } => 4,
            Self::Failed { .. } => 5,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::CatchingUp => f.write_str("catching up"),
            Self::Retrying { fault } => write!(f, "retrying: {fault}"),
            Self::Degraded { parked } => write!(f, "degraded: {parked} streams are parked"),
            Self::Paused { by, since } => write!(f, "paused by `{by}` since {since}"),
            Self::Failed { why } => write!(f, "failed: {why}"),
        }
    }
}

impl fmt::Display for ProjectionHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, verdict, position, behind, time_left } = self;
        write!(f, "`{name}` version {version}: {verdict} (at {position}")?;
        match behind {
            Some(0) => {}
            Some(behind) => write!(f, ", {behind} behind")?,
            None => f.write_str(", the end of the log is not known")?,
        }
        if let Some(left) = time_left {
            write!(f, ", about {}s left", left.as_secs())?;
        }
        f.write_str(")")
    }
}

impl Projections {
    /// How every projection fares, in the order in which they were added: for a supervisor that asks every few seconds. It is one
    /// read of the end of the log, and takes half a second at most.
    ///
    /// A projection has failed if
    ///
    /// - it has stopped in this process,
    /// - no process has run a slot of it for three times the [lease](crate::ProjectionsBuilder::lease),
    /// - it is behind, and its position was the same for a minute, each time that this was asked, or
    /// - a fault has blocked it for a minute.
    ///
    /// One that is far behind and comes further has not, nor one that somebody has paused. One whose events do not occur is at
    /// the end of the log all the same.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use annals_projections::{ProjectionsExt, Verdict};
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(PerTill).start().await?;
    /// # views.caught_up(std::time::Duration::from_secs(2)).await?;
    /// for health in views.health().await {
    ///     assert!(!health.verdict.is_failed(), "{health}");
    /// }
    /// views.pause::<PerTill>("the night's backup").await?;
    /// # while matches!(views.health().await[0].verdict, Verdict::Healthy | Verdict::CatchingUp) {
    /// #     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    /// # }
    /// assert!(matches!(views.health().await[0].verdict, Verdict::Paused { .. }));
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn health(&self) -> Vec<ProjectionHealth> {
        let shared = self.shared();
        let head = timeout(MOST_FOR_HEAD, shared.store.head()).await;
        let head = head.ok().and_then(Result::ok).map(|head| head.position);
        let watch = Watch { now: Instant::now(), time: shared.clock.now(), lease: self.lease() };
        let mut seen = self.watched().0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.status();
        seen.resize(all.len(), None);
        all.iter().zip(seen.iter_mut()).map(|(status, seen)| watch.health(status, head, seen)).collect()
    }
}

/// What was seen of projections when their health was asked for.
#[derive(Default)]
pub(crate) struct Watched(Mutex<Vec<Option<Behind>>>);

/// A projection that is behind.
#[derive(Clone, Copy)]
struct Behind {
    /// When that was first seen, and where it was.
    first: (Instant, Position),
    /// When it was first seen where it was last seen, and where that is.
    moved: (Instant, Position),
}

impl Behind {
    /// How long it takes to get so much further.
    fn time_left(&self, now: Instant, position: Position, behind: u64) -> Option<Duration> {
        let (begun, from) = self.first;
        let done = u32::try_from(position.get() - from.get()).ok().filter(|done| *done > 0)?;
        let per_position = (now - begun).as_secs_f64() / f64::from(done);
        Duration::try_from_secs_f64(per_position * behind as f64).ok()
    }
}

/// One look at all projections.
struct Watch {
    now: Instant,
    time: Timestamp,
    lease: Duration,
}

impl Watch {
    fn health(&self, status: &ProjectionStatus, head: Option<Position>, seen: &mut Option<Behind>) -> ProjectionHealth {
        let position = status.position;
        let behind = head.map(|head| u64::try_from(head.get() - position.get()).unwrap_or_default());
        let mut verdict = self.verdict(status);
        if behind == Some(0) || matches!(verdict, Verdict::Paused { .. } | Verdict::Failed { .. }) {
            *seen = None;
        } else if behind.is_some() {
            let is_here = (self.now, position);
            let seen = seen.get_or_insert(Behind { first: is_here, moved: is_here });
            if seen.moved.1 != position {
                seen.moved = is_here;
            }
            if self.now - seen.moved.0 >= MOST_WITHOUT_PROGRESS {
                verdict = self.no_progress(status, seen.moved.0);
            }
        }
        let time_left = seen.zip(behind).and_then(|(seen, behind)| seen.time_left(self.now, position, behind));
        ProjectionHealth {
            name: Arc::clone(&status.name),
            version: status.version,
            verdict,
            position,
            behind,
            time_left,
        }
    }

    /// The worst of what its slots say.
    fn verdict(&self, status: &ProjectionStatus) -> Verdict {
        let runs_here = |slot: &&SlotStatus| !matches!(slot.state, ProjectionState::Standby { .. });
        let parked = status.slots.iter().filter(runs_here).map(|slot| slot.parked).sum();
        let degraded = if parked > 0 { Verdict::Degraded { parked } } else { Verdict::Healthy };
        let of_slots = status.slots.iter().map(|slot| self.of_slot(status, slot));
        of_slots.chain([degraded]).max_by_key(Verdict::rank).unwrap_or(Verdict::Healthy)
    }

    fn of_slot(&self, status: &ProjectionStatus, slot: &SlotStatus) -> Verdict {
        let failed = |why: String| Verdict::Failed { why: format!("{}{why}", name_of(status, slot)) };
        let (elapsed, since) = (self.now - slot.since, self.time_of(slot.since));
        match &slot.state {
            ProjectionState::Live | ProjectionState::Standby { owner: Some(_) } => Verdict::Healthy,
            ProjectionState::CatchingUp => Verdict::CatchingUp,
            ProjectionState::Retrying { fault } if elapsed >= MOST_WITHOUT_PROGRESS => {
                failed(format!("a fault blocks it since {since}: {fault}"))
            }
            ProjectionState::Retrying { fault } => Verdict::Retrying { fault: fault.clone() },
            ProjectionState::Standby { owner: None } if elapsed >= self.lease * LEASES_WITHOUT_OWNER => {
                failed(format!("no process runs it since {since}"))
            }
            ProjectionState::Standby { owner: None } => Verdict::Healthy,
            ProjectionState::Paused { by, since } => Verdict::Paused { by: Arc::clone(by), since: *since },
            ProjectionState::Stopped(stopped) => failed(chain(stopped)),
            ProjectionState::Closed => failed("it was closed".to_owned()),
        }
    }

    /// It is behind and comes no further: what is known of the slots that are the furthest behind.
    fn no_progress(&self, status: &ProjectionStatus, since: Instant) -> Verdict {
        let in_the_way = |slot: &SlotStatus| {
            let what = match &slot.state {
                ProjectionState::Retrying { fault } => fault.clone(),
                ProjectionState::Standby { owner: Some(owner) } => format!("it is run by `{owner}`; look there"),
                ProjectionState::Standby { owner: None } => "no process runs it".to_owned(),
                _ => "its database does not answer; look for locks held on its table, and at the disk".to_owned(),
            };
            format!("{}{what}", name_of(status, slot))
        };
        let last = status.slots.iter().filter(|slot| slot.position == status.position);
        let what: Vec<String> = last.map(in_the_way).collect();
        Verdict::Failed { why: format!("it comes no further since {}: {}", self.time_of(since), what.join(", ")) }
    }

    fn time_of(&self, then: Instant) -> Timestamp {
        self.time.checked_sub(self.now - then).unwrap_or(self.time)
    }
}

/// Which slot it is, if there are several.
fn name_of(status: &ProjectionStatus, slot: &SlotStatus) -> String {
    if status.slots.len() > 1 { format!("slot {}: ", slot.slot) } else { String::new() }
}
