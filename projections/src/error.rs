//! What can go wrong: while folding, while starting, while waiting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    BackendError, DatabaseError, ErrorFamily, Invalid, OpenError, Position, ReadError, RecordedEvent, StreamId,
    StreamVersion,
};

use jiff::Timestamp;

use crate::changes::RowError;
use crate::read_model::SpecError;

/// Why an event could not be applied.
///
/// Any error becomes one by `?`; where there is none, [`ProjectionError::new`] says in words what is wrong. It is no
/// `Error` itself, for that very reason; the runner wraps it in [`Stopped`].
///
/// ```
/// use annals_projections::ProjectionError;
///
/// fn whole_cents(text: &str) -> Result<i64, ProjectionError> {
///     let cents: i64 = text.parse()?;
///     if cents < 0 { Err(ProjectionError::new(format!("`{text}` is below zero"))) } else { Ok(cents) }
/// }
///
/// assert_eq!(whole_cents("450").unwrap(), 450);
/// assert_eq!(whole_cents("-1").unwrap_err().to_string(), "`-1` is below zero");
/// assert!(whole_cents("much").is_err());
/// ```
pub struct ProjectionError(Cause);

enum Cause {
    /// The row looked up is not in memory. The runner's own business.
    NotLoaded,
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl ProjectionError {
    /// An error that says why the event cannot be applied: a lower-case fragment, as the end of a longer
    /// text.
    pub fn new(why: impl Into<String>) -> Self {
        Self(Cause::Other(why.into().into()))
    }

    pub(crate) fn not_loaded() -> Self {
        Self(Cause::NotLoaded)
    }
}

/// The cause to report.
impl From<ProjectionError> for StopCause {
    fn from(error: ProjectionError) -> Self {
        match error.0 {
            // Only a fold that kept the error of another event can bring it here.
            Cause::NotLoaded => Self::Apply(
                "the error of a lookup was kept and returned for another event; hand it on where the lookup fails"
                    .into(),
            ),
            Cause::Other(source) => match source.downcast::<RowError>() {
                Ok(error) => Self::Row(*error),
                Err(source) => Self::Apply(source),
            },
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ProjectionError {
    fn from(source: E) -> Self {
        Self(Cause::Other(source.into()))
    }
}

impl fmt::Debug for ProjectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ProjectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::NotLoaded => f.write_str("the row is not loaded yet; hand this error on"),
            Cause::Other(source) => source.fmt(f),
        }
    }
}

/// Which event an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventPlace {
    /// Its place in the log.
    pub position: Position,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream, from 1.
    pub version: StreamVersion,
    /// Its stored name.
    pub name: Arc<str>,
}

impl EventPlace {
    pub(crate) fn of(event: &RecordedEvent) -> Self {
        Self {
            position: event.position,
            stream: event.stream.clone(),
            version: event.version,
            name: Arc::clone(&event.name),
        }
    }
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event `{}` at position {} (`{}`, {})", self.name, self.position, self.stream, self.version)
    }
}

/// A projection that goes no further until somebody has fixed what stopped it and started it again.
///
/// Its rows and its checkpoint are as they were before the event; the other projections continue.
/// [`Projections::stopped`](crate::Projections::stopped) has an example.
#[derive(Clone, Debug, thiserror::Error)]
#[error("projection `{projection}` (version {version}) stopped {}", Before(event.as_ref(), *position))]
#[non_exhaustive]
pub struct Stopped {
    /// The projection.
    pub projection: Arc<str>,
    /// The version of its fold, from 1.
    pub version: u32,
    /// The position that it has reached; everything up to there is applied.
    pub position: Position,
    /// The event that it stopped before, if it was one event's fault.
    pub event: Option<EventPlace>,
    /// Why.
    #[source]
    pub cause: Arc<StopCause>,
}

impl Stopped {
    /// Which of the five families the error belongs to: that of its cause.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        self.cause.family()
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}

/// Says where a projection stopped.
struct Before<'a>(Option<&'a EventPlace>, Position);

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(event) => write!(f, "before {event}"),
            None => write!(f, "at position {}", self.1),
        }
    }
}

/// What stopped a projection, and so what helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopCause {
    /// `apply` returned an error. Fix the fold, deploy, start again: it continues with this event.
    #[error("it could not apply the event; fix the fold and start again, then it continues with this event")]
    Apply(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// `apply` panicked. Fix the fold, deploy, start again: it continues with this event.
    #[error("it panicked: {0}; fix the fold and start again, then it continues with this event")]
    Panicked(String),
    /// The event cannot be read by this build, or the log cannot be read on. Do what the error says, start again.
    #[error(transparent)]
    Read(Arc<ReadError>),
    /// The fold made a row that its table cannot hold, or the table holds one that the fold cannot read. Do what the
    /// error says.
    #[error(transparent)]
    Row(#[from] RowError),
    /// `apply` asked for other rows each time it ran, so many times. Make it pure: the same event must look up the same
    /// rows.
    #[error("`apply` asked for more rows {0} times over and never had enough; make it pure")]
    NeverSatisfied(usize),
    /// The database of the read models refused the work, and would again. Fix what it says, start again.
    #[error("the database of the read models refused; fix what it says and start again")]
    Database(#[source] BackendError),
    /// The checkpoint is gone from the database while the projection was running. Start it again to build from the
    /// beginning.
    #[error("its checkpoint was removed from the database while it was running; start it again")]
    CheckpointRemoved,
    /// The runner itself failed; a fault of annals. Please report it; starting again goes on from the checkpoint.
    #[error("the runner failed: {0}; please report this")]
    Runner(String),
}

impl StopCause {
    /// Which of the five families the error belongs to. Transient faults stop no projection: the runner waits them out.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Apply(_)
            | Self::Panicked(_)
            | Self::NeverSatisfied(_)
            | Self::Database(_)
            | Self::CheckpointRemoved
            | Self::Runner(_) => ErrorFamily::Broken,
            Self::Read(error) => error.family(),
            Self::Row(error) => error.family(),
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }

    /// Whether the log is another one than the projection has read.
    pub(crate) fn is_rewind(&self) -> bool {
        matches!(self, Self::Read(error) if is_rewind(error))
    }
}

/// Whether a store says that a checkpoint is of another log.
pub(crate) fn is_rewind(error: &ReadError) -> bool {
    matches!(error, ReadError::StoreRewound { .. } | ReadError::AheadOfLog { .. })
}

/// Why projections could not be started. Nothing runs, and nothing but new, empty tables was created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name of a projection, its version or the events it wants break a rule, or there is none. Fix what it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The declaration of a read model breaks a rule. Fix it.
    #[error(transparent)]
    Table(#[from] SpecError),
    /// The read model has other columns or another key than when this version was first started. Raise `VERSION`.
    #[error(
        "projection `{projection}` was built as version {version} with `{stored}`, but is now declared with `{declared}`; raise its `VERSION` to build it anew"
    )]
    ShapeChanged {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The table in the database, as `name(column type, ..; key column, ..)`.
        stored: String,
        /// The table that the code declares, likewise.
        declared: String,
    },
    /// The projection wants other events than when this version was first started: its rows would miss those of the new
    /// names that were read before. Raise `VERSION`.
    #[error(
        "projection `{projection}` was built as version {version} from other events: {}; raise its `VERSION` to build it anew",
        Names(new, missing)
    )]
    EventsChanged {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The stored names that it wants now and did not want then.
        new: Vec<String>,
        /// Those that it wanted then and does not want now.
        missing: Vec<String>,
    },
    /// The projection wants the events of another tenant than when this version was first started. Raise `VERSION`.
    #[error(
        "projection `{projection}` was built as version {version} from the events {}, but now wants those {}; raise its `VERSION` to build it anew",
        OfTenant(stored),
        OfTenant(declared)
    )]
    TenantChanged {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The tenant then; `None` if it was all of them.
        stored: Option<String>,
        /// The tenant now.
        declared: Option<String>,
    },
    /// A raised version lacks columns that queries by the stable name find today, or has them with another type; a build
    /// that is still running would fail on them. Keep them, or give the read model a new table name.
    #[error(
        "projection `{projection}` (version {version}) lacks what queries of `{read_model}` find today in version {shown}: {}; keep it, or give the read model a new table name",
        lost.join(", ")
    )]
    ColumnsLost {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The stable name.
        read_model: &'static str,
        /// The version that the name shows.
        shown: u32,
        /// What is lost, a phrase per column.
        lost: Vec<String>,
    },
    /// The name that the read model needs belongs to something else. Rename one of them.
    #[error(
        "projection `{projection}` needs the name `{name}`, which {taken_by}; rename the read model's table, or the other"
    )]
    NameTaken {
        /// The projection.
        projection: &'static str,
        /// The name.
        name: String,
        /// Whose it is.
        taken_by: String,
    },
    /// The projection has seen a log that this store does not have: one of them was restored or replaced. Raise `VERSION`
    /// to build it anew from this log.
    #[error(
        "projection `{projection}` (version {version}) has read another log than this; raise its `VERSION` to build it anew"
    )]
    Rewound {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// What the store said about its checkpoint.
        source: ReadError,
    },
    /// The event store could not be read. If the error is transient, start again later.
    #[error("the event store could not be read; start again when it can")]
    Store(#[source] ReadError),
    /// The database of the read models refused or could not be reached. Fix what it says, or start again later.
    #[error(
        "the database of the read models could not be prepared for `{projection}`; fix what it says and start again"
    )]
    Database {
        /// The projection.
        projection: &'static str,
        /// What the database said.
        source: DatabaseError,
    },
    /// The database of the read models could not be brought to this build's schema. Fix what it says, start again.
    #[error("the database of the read models could not be prepared; fix what it says and start again")]
    Migrate(#[source] OpenError),
}

impl StartError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Invalid(_)
            | Self::Table(_)
            | Self::ShapeChanged { .. }
            | Self::EventsChanged { .. }
            | Self::TenantChanged { .. }
            | Self::ColumnsLost { .. }
            | Self::NameTaken { .. } => ErrorFamily::Invalid,
            Self::Rewound { .. } => ErrorFamily::Broken,
            Self::Store(source) => source.family(),
            Self::Database { source, .. } => source.family(),
            Self::Migrate(source) => source.family(),
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}

/// Writes out which stored names are new and which are missing.
struct Names<'a>(&'a [String], &'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (names, what) in [(self.0, "new"), (self.1, "missing")] {
            for name in names {
                write!(f, "{comma}`{name}` is {what}")?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// Writes out whose events are wanted.
struct OfTenant<'a>(&'a Option<String>);

impl fmt::Display for OfTenant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(tenant) => write!(f, "of tenant `{tenant}`"),
            None => f.write_str("of all tenants"),
        }
    }
}

/// Why waiting for projections ended without them having got there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time was over. Wait again, or answer from what is there. If queries see a version that does not run here,
    /// [`ProjectionProgress::elsewhere`] says which, and since when nobody has moved it.
    #[error(
        "after {waited:?} not every projection has reached position {position}: {}; wait again, or answer from what is there",
        Reached(reached)
    )]
    TimedOut {
        /// What was waited for.
        position: Position,
        /// For how long.
        waited: Duration,
        /// How far each projection that was waited for has got.
        reached: Vec<ProjectionProgress>,
    },
    /// A projection will not get there before somebody has fixed it. See [`StopCause`].
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The stable name could not be switched in time to the version that runs here. Do what `why` says, or try again.
    #[error(
        "after {waited:?} `{read_model}` does not show version {version} of projection `{projection}` yet: {why}; try again"
    )]
    NotShown {
        /// The projection.
        projection: &'static str,
        /// The version that was to be shown.
        version: u32,
        /// The stable name.
        read_model: &'static str,
        /// For how long it was tried.
        waited: Duration,
        /// What kept it from being shown.
        why: String,
    },
    /// The end of the log could not be read, or not in time. Do what the source says, if there is one; else try again.
    #[error("the end of the log could not be read within {waited:?}; try again")]
    HeadUnknown {
        /// For how long it was tried at most.
        waited: Duration,
        /// What the store said; none if the time was over.
        source: Option<ReadError>,
    },
    /// The database of the read models cannot be reached at the moment. Ask again later.
    #[error("the database of the read models could not be asked how far they are; try again later")]
    Unavailable(#[source] BackendError),
    /// The database of the read models could not be asked, and would fail again. Do what it says.
    #[error("the database of the read models could not be asked how far they are; do what it says")]
    Database(#[source] BackendError),
    /// The projections were closed before they got there.
    #[error("the projections were closed before position {position}: {}; start them again", Reached(reached))]
    Closed {
        /// What was waited for.
        position: Position,
        /// How far each projection that was waited for has got.
        reached: Vec<ProjectionProgress>,
    },
    /// No projection of this name was started. Add it by `with`.
    #[error("no projection is called `{name}`; started are {known}; add it by `with`")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are, joined by commas.
        known: String,
    },
}

impl WaitError {
    /// Which of the five families the error belongs to. To wait again is no change, so that a time-out is transient.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::TimedOut { .. } | Self::NotShown { .. } | Self::Unavailable(_) => ErrorFamily::Transient,
            Self::HeadUnknown { source, .. } => source.as_ref().map_or(ErrorFamily::Transient, ReadError::family),
            Self::Stopped(stopped) => stopped.family(),
            Self::Database(_) => ErrorFamily::Broken,
            Self::Closed { .. } | Self::Unknown { .. } => ErrorFamily::Invalid,
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}

/// How far one projection has got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionProgress {
    /// The projection.
    pub projection: Arc<str>,
    /// Everything up to here is seen by queries of the read model's stable name.
    pub position: Position,
    /// What blocks it at the moment, if a passing fault does.
    pub retrying_after: Option<String>,
    /// The version that the stable name shows, if it is not the one that runs here: another process has to feed it.
    pub elsewhere: Option<Elsewhere>,
}

/// A version that the stable name shows and that does not run here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// The version shown.
    pub version: u32,
    /// When its checkpoint was last moved. If that is long ago, no process feeds it: start a build with this version, or
    /// go back to the one that runs here by [`Projections::show`](crate::Projections::show).
    pub moved_at: Timestamp,
    /// The version that runs here.
    pub here: u32,
    /// How far that is.
    pub here_position: Position,
}

/// Writes out how far each one has got.
struct Reached<'a>(&'a [ProjectionProgress]);

impl fmt::Display for Reached<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, reach) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}`{}`", reach.projection)?;
            match &reach.elsewhere {
                None => write!(f, " is at {}", reach.position)?,
                Some(Elsewhere { version, moved_at, here, here_position }) => write!(
                    f,
                    " shows version {version}, which is at {} and whose checkpoint was last moved at {moved_at}, while version \
                     {here}, which runs here, is at {here_position} (if no process runs version {version}, start it again, \
                     or show version {here} by `Projections::show`)",
                    reach.position
                )?,
            }
            if let Some(fault) = &reach.retrying_after {
                write!(f, " (retrying: {fault})")?;
            }
        }
        Ok(())
    }
}
