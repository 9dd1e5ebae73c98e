//! What a supervisor should think of projections and reactors: which are in order, which are behind, and which need somebody.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::{Clock, EventStore, Filter, Position};
use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::handle::Projections;
use crate::member::chain;
use crate::metrics;
use crate::reactor::ReactorStatus;
use crate::status::{ProjectionState, ProjectionStatus};

/// After how many times of a lease a slot that no process runs has failed.
const LEASES_WITHOUT_OWNER: u32 = 3;

/// How long a projection may be behind, or retry, without coming any further.
const MOST_WITHOUT_PROGRESS: Duration = Duration::from_secs(60);

/// How long the log may take to be read. A health check has a second.
const MOST_FOR_READS: Duration = Duration::from_millis(500);

/// How often the metrics are brought up to date.
const OBSERVE_EVERY: Duration = Duration::from_secs(5);

/// Whose health it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthOf {
    /// That of a projection.
    Projection {
        /// The version of its fold that runs here.
        version: u32,
    },
    /// That of a reactor.
    Reactor,
}

/// How one projection or reactor fares, as [`Projections::health`] gives it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProjectionHealth {
    /// Which of them it is.
    pub of: HealthOf,
    /// Its name.
    pub name: Arc<str>,
    /// What to think of it.
    pub verdict: Verdict,
    /// Everything in the log up to here is applied, as of [`ProjectionStatus::position`], or handled, as of
    /// [`ReactorStatus::position`].
    pub position: Position,
    /// How many positions the end of the log is ahead: at most so many events are to be read, also such that do not concern it.
    /// `None` if the end of the log could not be read within half a second.
    pub behind: Option<u64>,
    /// How long ago the first event behind its position was recorded, whether it concerns it or not; zero if it is not behind.
    /// `None` if that event could not be read within half a second.
    pub lag: Option<Duration>,
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
            Self::Degraded { parked: 1 } => f.write_str("degraded: 1 stream is parked"),
            Self::Degraded { parked } => write!(f, "degraded: {parked} streams are parked"),
            Self::Paused { by, since } => write!(f, "paused by `{by}` since {since}"),
            Self::Failed { why } => write!(f, "failed: {why}"),
        }
    }
}

impl fmt::Display for ProjectionHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, name, verdict, position, behind, lag, time_left } = self;
        match of {
            HealthOf::Projection { version } => write!(f, "`{name}` version {version}: {verdict} (at {position}")?,
            HealthOf::Reactor => write!(f, "reactor `{name}`: {verdict} (at {position}")?,
        }
        match behind {
            Some(0) => {}
            Some(behind) => write!(f, ", {behind} behind")?,
            None => f.write_str(", the end of the log is not known")?,
        }
        if let Some(lag) = lag.filter(|lag| !lag.is_zero()) {
            write!(f, ", for {}s", lag.as_secs())?;
        }
        if let Some(left) = time_left {
            write!(f, ", about {}s left", left.as_secs())?;
        }
        f.write_str(")")
    }
}

impl Projections {
    /// How every projection fares, and then every reactor, in the order in which they were added: for a supervisor that asks
    /// every few seconds. It reads the end of the log, and the first event behind each that is behind, and takes half a second at
    /// most. The metrics of `annals_runner_` say the same every five seconds.
    ///
    /// A projection or a reactor has failed if
    ///
    /// - it has stopped in this process,
    /// - no process has run it, or a slot of it, for three times the [lease](crate::ProjectionsBuilder::lease),
    /// - it is behind, and its position was the same for a minute, or
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
        self.monitor().look().await.into_iter().map(|(_, health)| health).collect()
    }
}

/// All that runs, and what was seen of it when it was last looked at.
pub(crate) struct Monitor {
    pub(crate) projections: Vec<watch::Receiver<ProjectionStatus>>,
    pub(crate) reactors: Vec<watch::Receiver<ReactorStatus>>,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lease: Duration,
    pub(crate) seen: Mutex<Vec<Option<Behind>>>,
}

impl Monitor {
    async fn look(&self) -> Vec<(Unit, ProjectionHealth)> {
        let projections = self.projections.iter().map(|status| Unit::of_projection(&status.borrow()));
        let reactors = self.reactors.iter().map(|status| Unit::of_reactor(&status.borrow()));
        let units: Vec<Unit> = projections.chain(reactors).collect();
        let until = Instant::now() + MOST_FOR_READS;
        let head = timeout_at(until, self.store.head()).await.ok().and_then(Result::ok).map(|head| head.position);
        let recorded = self.first_behind(&units, head, until).await;
        let watch = Watch { now: Instant::now(), time: self.clock.now(), lease: self.lease, head };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.resize(units.len(), None);
        let looked = units.into_iter().zip(seen.iter_mut()).map(|(unit, seen)| {
            let health = watch.health(&unit, recorded.get(&unit.position), seen);
            (unit, health)
        });
        looked.collect()
    }

    /// When the first event behind each position was recorded, as far as that can be read in time.
    async fn first_behind(
        &self,
        units: &[Unit],
        head: Option<Position>,
        until: Instant,
    ) -> BTreeMap<Position, Timestamp> {
        let Some(head) = head else { return BTreeMap::new() };
        let mut positions: Vec<Position> = units.iter().map(|unit| unit.position).filter(|at| *at < head).collect();
        positions.sort_unstable();
        positions.dedup();
        let all = Filter::all();
        let reads = positions.into_iter().map(async |at| {
            let page = timeout_at(until, self.store.read_page(at.into(), &all, 1)).await.ok()?.ok()?;
            Some((at, page.events.first()?.recorded_at))
        });
        join_all(reads).await.into_iter().flatten().collect()
    }

    /// Brings the metrics up to date now and then, until it is cancelled.
    pub(crate) async fn observe(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            for (unit, health) in self.look().await {
                metrics::observed(&health, &unit.states(), unit.parked());
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(OBSERVE_EVERY) => {}
            }
        }
    }
}

/// A projection or a reactor at one moment.
struct Unit {
    of: HealthOf,
    name: Arc<str>,
    position: Position,
    /// One if it is not split.
    slots: Vec<UnitSlot>,
}

struct UnitSlot {
    slot: u32,
    position: Position,
    state: ProjectionState,
    since: Instant,
    parked: usize,
    /// Why some of its events wait, if it knows.
    waiting: Option<String>,
}

impl Unit {
    fn of_projection(status: &ProjectionStatus) -> Self {
        let slots = status.slots.iter().map(|slot| UnitSlot {
            slot: slot.slot,
            position: slot.position,
            state: slot.state.clone(),
            since: slot.since,
            parked: slot.parked,
            waiting: None,
        });
        Self {
            of: HealthOf::Projection { version: status.version },
            name: Arc::clone(&status.name),
            position: status.position,
            slots: slots.collect(),
        }
    }

    fn of_reactor(status: &ReactorStatus) -> Self {
        let waiting = status.last_error.clone().filter(|_| status.retrying > 0);
        let slot = UnitSlot {
            slot: 0,
            position: status.position,
            state: status.state.as_projection(),
            since: status.since,
            parked: status.parked,
            waiting,
        };
        let (name, position) = (Arc::clone(&status.name), status.position);
        Self { of: HealthOf::Reactor, name, position, slots: vec![slot] }
    }

    /// How many streams are parked, in the slots that run here.
    fn parked(&self) -> usize {
        let runs_here = |slot: &&UnitSlot| !matches!(slot.state, ProjectionState::Standby { .. });
        self.slots.iter().filter(runs_here).map(|slot| slot.parked).sum()
    }

    /// How many of its slots are in each state.
    fn states(&self) -> Vec<(&'static str, usize)> {
        let count = |name: &'static str| self.slots.iter().filter(|slot| slot.state.metric() == name).count();
        ProjectionState::METRICS.iter().map(|name| (*name, count(name))).collect()
    }
}

/// When something that is behind was seen.
#[derive(Clone, Copy)]
pub(crate) struct Behind {
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

/// One look at all of them.
struct Watch {
    now: Instant,
    time: Timestamp,
    lease: Duration,
    head: Option<Position>,
}

impl Watch {
    /// `recorded` is when the first event behind it was recorded, if it is behind and that is known.
    fn health(&self, unit: &Unit, recorded: Option<&Timestamp>, seen: &mut Option<Behind>) -> ProjectionHealth {
        let position = unit.position;
        let behind = self.head.map(|head| u64::try_from(head.get() - position.get()).unwrap_or_default());
        let lag = match behind {
            Some(0) => Some(Duration::ZERO),
            _ => recorded.map(|recorded| Duration::try_from(self.time.duration_since(*recorded)).unwrap_or_default()),
        };
        let mut verdict = self.verdict(unit);
        if behind == Some(0) || matches!(verdict, Verdict::Paused { .. } | Verdict::Failed { .. }) {
            *seen = None;
        } else if behind.is_some() {
            let is_here = (self.now, position);
            let seen = seen.get_or_insert(Behind { first: is_here, moved: is_here });
            if seen.moved.1 != position {
                seen.moved = is_here;
            }
            if self.now - seen.moved.0 >= MOST_WITHOUT_PROGRESS {
                verdict = self.no_progress(unit, seen.moved.0);
            }
        }
        let time_left = seen.zip(behind).and_then(|(seen, behind)| seen.time_left(self.now, position, behind));
        ProjectionHealth { of: unit.of, name: Arc::clone(&unit.name), verdict, position, behind, lag, time_left }
    }

    /// The worst of what its slots say.
    fn verdict(&self, unit: &Unit) -> Verdict {
        let parked = unit.parked();
        let degraded = if parked > 0 { Verdict::Degraded { parked } } else { Verdict::Healthy };
        let of_slots = unit.slots.iter().map(|slot| self.of_slot(unit, slot));
        of_slots.chain([degraded]).max_by_key(Verdict::rank).unwrap_or(Verdict::Healthy)
    }

    fn of_slot(&self, unit: &Unit, slot: &UnitSlot) -> Verdict {
        let failed = |why: String| Verdict::Failed { why: format!("{}{why}", name_of(unit, slot)) };
        let (elapsed, since) = (self.now - slot.since, self.time_of(slot.since));
        match &slot.state {
            ProjectionState::Standby { owner: Some(_) } => Verdict::Healthy,
            ProjectionState::Live | ProjectionState::CatchingUp if slot.waiting.is_some() => {
                Verdict::Retrying { fault: slot.waiting.clone().unwrap_or_default() }
            }
            ProjectionState::Live => Verdict::Healthy,
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
    fn no_progress(&self, unit: &Unit, since: Instant) -> Verdict {
        let in_the_way = |slot: &UnitSlot| {
            let what = match (&slot.state, &slot.waiting, unit.of) {
                (ProjectionState::Retrying { fault }, ..) => fault.clone(),
                (ProjectionState::Standby { owner: Some(owner) }, ..) => {
                    format!("it is run by `{owner}`; look there")
                }
                (ProjectionState::Standby { owner: None }, ..) => "no process runs it".to_owned(),
                (_, Some(waiting), _) => waiting.clone(),
                (_, None, HealthOf::Reactor) => "its handlers do not end, or its database does not answer".to_owned(),
                (_, None, HealthOf::Projection { .. }) => {
                    "its database does not answer; look for locks held on its table, and at the disk".to_owned()
                }
            };
            format!("{}{what}", name_of(unit, slot))
        };
        let last = unit.slots.iter().filter(|slot| slot.position == unit.position);
        let what: Vec<String> = last.map(in_the_way).collect();
        Verdict::Failed { why: format!("it comes no further since {}: {}", self.time_of(since), what.join(", ")) }
    }

    fn time_of(&self, then: Instant) -> Timestamp {
        self.time.checked_sub(self.now - then).unwrap_or(self.time)
    }
}

/// Which slot it is, if there are several.
fn name_of(unit: &Unit, slot: &UnitSlot) -> String {
    if unit.slots.len() > 1 { format!("slot {}: ", slot.slot) } else { String::new() }
}
