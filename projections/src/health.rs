//! What a supervisor should think of projections and reactors: which are in order, which are behind, and which need somebody.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::Position;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use crate::error::{Elsewhere, ProjectionProgress};
use crate::handle::Projections;
use crate::member::chain;
use crate::status::{ProjectionState, ProjectionStatus, SlotStatus};

/// After how many times of a lease a slot that no process runs has failed.
pub(crate) const LEASES_WITHOUT_OWNER: u32 = 3;

/// How long a projection may be behind, or retry, without coming any further.
pub(crate) const MOST_WITHOUT_PROGRESS: Duration = Duration::from_secs(60);

/// How long the end of the log, and what names show, may take to be read. A health check has a second.
const MOST_FOR_READS: Duration = Duration::from_millis(500);

/// How one projection or reactor fares, as [`Projections::health`] gives it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProjectionHealth {
    /// Its name.
    pub name: Arc<str>,
    /// The version of its fold that runs here; 0 for a reactor, which has none.
    pub version: u32,
    /// What to think of it.
    pub verdict: Verdict,
    /// Everything in the log up to here is applied, as of [`ProjectionStatus::position`]; or handled, as of
    /// [`ReactorStatus::position`](crate::ReactorStatus::position).
    pub position: Position,
    /// How many positions the end of the log is ahead: at most so many events are to be read, also such that do not concern it.
    /// `None` if the end of the log could not be read within half a second.
    pub behind: Option<u64>,
    /// How long it takes to the end of the log at its pace since its health was first asked for while it is behind.
    /// `None` if it is not behind, or its pace is not known.
    pub time_left: Option<Duration>,
}

/// What a supervisor should think of a projection or a reactor. Only [`Verdict::Failed`] needs somebody at once.
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
    /// It goes on, but without some streams: those of [`Projections::dead_letters`], or of [`Projections::parked`].
    Degraded {
        /// How many streams are parked in what this process runs. Others report theirs.
        parked: usize,
    },
    /// Somebody has paused it, and that is no failure however far it is behind.
    Paused {
        /// Who.
        by: Arc<str>,
        /// Since when.
        since: Timestamp,
    },
    /// It does not go on: it has stopped, no process runs it, it comes no further, or queries see another version, which does not.
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
            Self::Degraded { parked: 1 } => f.write_str("degraded: 1 stream is parked"),
            Self::Degraded { parked } => write!(f, "degraded: {parked} streams are parked"),
            Self::Paused { by, since } => write!(f, "paused by `{by}` since {since}"),
            Self::Failed { why } => write!(f, "failed: {why}"),
        }
    }
}

impl fmt::Display for ProjectionHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, verdict, position, behind, time_left } = self;
        match version {
            0 => write!(f, "reactor `{name}`: {verdict} (at {position}")?,
            _ => write!(f, "`{name}` version {version}: {verdict} (at {position}")?,
        }
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
    /// How every projection and then every reactor fares, in the order in which they were added: for a supervisor that asks every
    /// few seconds. It is one read of the end of the log and one of the database of the read models, at once, and takes half a
    /// second at most.
    ///
    /// A projection has failed if
    ///
    /// - it has stopped in this process,
    /// - no process has run a slot of it for three times the [lease](crate::ProjectionsBuilder::lease),
    /// - it is behind, and its position was the same for a minute, each time that this was asked,
    /// - a fault has blocked it for a minute, or
    /// - its stable name shows another version, as after a deploy that was taken back without [`Projections::show`], and that one
    ///   is behind and has not moved for a minute.
    ///
    /// One that is far behind and comes further has not, nor one that somebody has paused. One whose events do not occur is at
    /// the end of the log all the same.
    ///
    /// For a reactor the same counts, except that it is not stuck as long as it waits for a handler. If it has not come further
    /// for a minute because an event is tried again and again, it has failed, and says why. Where another process runs it, that
    /// one says how it fares.
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
        let (head, progress) =
            tokio::join!(timeout(MOST_FOR_READS, shared.store.head()), timeout(MOST_FOR_READS, self.progress()));
        let head = head.ok().and_then(Result::ok).map(|head| head.position);
        let progress = progress.ok().and_then(Result::ok);
        let watch = Watch { now: Instant::now(), time: shared.clock.now(), lease: self.lease(), head };
        let mut seen = self.watched().0.lock().unwrap_or_else(PoisonError::into_inner);
        let (projections, reactors) = (self.status(), self.reactors());
        seen.resize(projections.len() + reactors.len(), Seen::default());
        let (of_projections, of_reactors) = seen.split_at_mut(projections.len());
        let projections = projections.iter().zip(of_projections).enumerate().map(|(at, (status, seen))| {
            watch.projection(status, progress.as_ref().and_then(|progress| progress.get(at)), seen)
        });
        let reactors = reactors.iter().zip(of_reactors).map(|(status, seen)| watch.reactor(status, seen));
        projections.chain(reactors).collect()
    }
}

/// What was seen of projections, and then of reactors, when their health was asked for.
#[derive(Default)]
pub(crate) struct Watched(Mutex<Vec<Seen>>);

/// What was seen of one.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) behind: Option<Behind>,
    /// The version that the stable name shows, if another one runs here.
    shown: Option<(u32, Behind)>,
    /// Since when a reactor is in a state.
    pub(crate) state: Option<(crate::reactor::StateKind, Instant)>,
}

/// A projection that is behind.
#[derive(Clone, Copy)]
pub(crate) struct Behind {
    /// When that was first seen, and where it was.
    first: (Instant, Position),
    /// When it was first seen where it was last seen, and where that is.
    moved: (Instant, Position),
}

impl Behind {
    fn at(now: Instant, position: Position) -> Self {
        Self { first: (now, position), moved: (now, position) }
    }

    /// Since when it is where it is now.
    fn since(&mut self, now: Instant, position: Position) -> Instant {
        if self.moved.1 != position {
            self.moved = (now, position);
        }
        self.moved.0
    }

    /// How long it takes to get so much further.
    fn time_left(&self, now: Instant, position: Position, behind: u64) -> Option<Duration> {
        let (begun, from) = self.first;
        let done = u32::try_from(position.get() - from.get()).ok().filter(|done| *done > 0)?;
        let per_position = (now - begun).as_secs_f64() / f64::from(done);
        Duration::try_from_secs_f64(per_position * behind as f64).ok()
    }
}

/// One look at all projections and reactors.
pub(crate) struct Watch {
    pub(crate) now: Instant,
    time: Timestamp,
    pub(crate) lease: Duration,
    head: Option<Position>,
}

impl Watch {
    fn projection(
        &self,
        status: &ProjectionStatus,
        progress: Option<&ProjectionProgress>,
        seen: &mut Seen,
    ) -> ProjectionHealth {
        let shown = self.shown(progress, &mut seen.shown);
        let verdict = match self.verdict(status) {
            own @ (Verdict::Paused { .. } | Verdict::Failed { .. }) => own,
            own => shown.unwrap_or(own),
        };
        let no_progress = |since| Some(self.no_progress(status, since));
        self.health(&status.name, status.version, status.position, verdict, &mut seen.behind, no_progress)
    }

    /// How something fares whose state says `verdict`, if it comes further; else, as far as that is known, what `no_progress` gives
    /// for the moment since which it does not.
    pub(crate) fn health(
        &self,
        name: &Arc<str>,
        version: u32,
        position: Position,
        mut verdict: Verdict,
        seen: &mut Option<Behind>,
        no_progress: impl FnOnce(Instant) -> Option<Verdict>,
    ) -> ProjectionHealth {
        let behind = self.behind(position);
        if behind == Some(0) || matches!(verdict, Verdict::Paused { .. } | Verdict::Failed { .. }) {
            *seen = None;
        } else if behind.is_some() {
            let since = seen.get_or_insert(Behind::at(self.now, position)).since(self.now, position);
            if self.now - since >= MOST_WITHOUT_PROGRESS {
                verdict = no_progress(since).unwrap_or(verdict);
            }
        }
        let time_left = seen.zip(behind).and_then(|(seen, behind)| seen.time_left(self.now, position, behind));
        ProjectionHealth { name: Arc::clone(name), version, verdict, position, behind, time_left }
    }

    /// How many positions the end of the log is ahead.
    fn behind(&self, position: Position) -> Option<u64> {
        self.head.map(|head| u64::try_from(head.get() - position.get()).unwrap_or_default())
    }

    /// A failure if queries see another version than the one that runs here, and nobody feeds that.
    fn shown(&self, progress: Option<&ProjectionProgress>, seen: &mut Option<(u32, Behind)>) -> Option<Verdict> {
        let ProjectionProgress { projection, position, elsewhere, .. } = progress?;
        let Some(Elsewhere { version, here, .. }) = elsewhere else {
            *seen = None;
            return None;
        };
        let is_there = self.behind(*position)? == 0;
        let (_, behind) = match seen {
            Some(known) if known.0 == *version && !is_there => known,
            _ => seen.insert((*version, Behind::at(self.now, *position))),
        };
        let since = behind.since(self.now, *position);
        (self.now - since >= MOST_WITHOUT_PROGRESS).then(|| Verdict::Failed {
            why: format!(
                "queries of it see version {version}, which is at {position} and comes no further since {}; start a build of \
                 `{projection}` with version {version}, or show version {here} by `Projections::show`",
                self.time_of(since)
            ),
        })
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

    pub(crate) fn time_of(&self, then: Instant) -> Timestamp {
        self.time.checked_sub(self.now - then).unwrap_or(self.time)
    }
}

/// Which slot it is, if there are several.
fn name_of(status: &ProjectionStatus, slot: &SlotStatus) -> String {
    if status.slots.len() > 1 { format!("slot {}: ", slot.slot) } else { String::new() }
}
