//! What can go wrong: while folding, while starting, while waiting.

mod control;
mod query;
mod start;
mod wait;

use std::fmt;
use std::sync::Arc;

use annals_eventstore::{
    BackendError, ErrorFamily, Invalid, Position, ReadError, RecordedEvent, StreamId, StreamVersion,
};

use crate::changes::RowError;
use crate::member::chain;

pub use control::ControlError;
pub use query::QueryError;
pub use start::StartError;
pub use wait::{Elsewhere, ProjectionProgress, WaitError};

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
    /// A stream projection is not declared for the stream.
    Undeclared(Invalid),
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

    pub(crate) fn undeclared(why: Invalid) -> Self {
        Self(Cause::Undeclared(why))
    }

    /// The error that it was made of.
    pub(crate) fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Other(source) => Some(source.as_ref()),
            Cause::NotLoaded | Cause::Undeclared(_) => None,
        }
    }

    /// The same, taken out.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn into_source(self) -> Box<dyn std::error::Error + Send + Sync> {
        match self.0 {
            Cause::Other(source) => source,
            other => Self(other).to_string().into(),
        }
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
            Cause::Undeclared(why) => Self::Undeclared(why),
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
            Cause::Undeclared(why) => why.fmt(f),
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

/// A projection or a reactor that goes no further until somebody has fixed what stopped it and started it again.
///
/// Its rows and its checkpoint are as they were before the event; the others continue.
/// [`Projections::stopped`](crate::Projections::stopped) has an example.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} stopped {}: {}", Who(projection, *version), Before(event.as_ref(), *position), chain(&**cause))]
#[non_exhaustive]
pub struct Stopped {
    /// The projection, or the reactor.
    pub projection: Arc<str>,
    /// The version of its fold, from 1; 0 for a reactor, which has none.
    pub version: u32,
    /// The position that it has reached; everything up to there is applied, or handled.
    pub position: Position,
    /// The event that it stopped before, if it was one event's fault.
    pub event: Option<EventPlace>,
    /// Why. The message of the whole has it, so it is no `source`: a report prints each reason once.
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

/// Says what stopped.
struct Who<'a>(&'a str, u32);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            0 => write!(f, "reactor `{}`", self.0),
            version => write!(f, "projection `{}` (version {version})", self.0),
        }
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
    /// A reactor could not handle the event: an error that is permanent, a panic, or the last try of those it has. Fix what it
    /// says, start it again: it continues with this event.
    #[error("it could not handle the event; fix what it says and start it again, then it continues with this event")]
    React(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The event cannot be read by this build, or the log cannot be read on. Do what the error says, start again.
    #[error(transparent)]
    Read(Arc<ReadError>),
    /// The fold made a row that its table cannot hold, or the table holds one that the fold cannot read. Do what the
    /// error says.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A stream projection read an event of a stream that it is not declared for, whose row might be that of another stream. Change
    /// the declaration as the error says, start again: it continues with this event.
    #[error("its stream is not one that the projection is declared for: {0}")]
    Undeclared(Invalid),
    /// The process ended so often while it applied the event: it aborted, ran out of stack or memory, or was killed. Fix the fold,
    /// deploy, and call [`Projections::start_again`](crate::Projections::start_again): it continues with this event.
    #[error(
        "the process ended {0} times while it applied the event; fix the fold, then call `start_again`, and it continues with this event"
    )]
    ProcessEnded(u32),
    /// `apply` asked for other rows each time it ran, so many times. Make it pure: the same event must look up the same
    /// rows. If it is, and needs that many for one event, it asks for them at once by [`Rows::prefetch`](crate::Rows::prefetch).
    #[error(
        "`apply` asked for more rows {0} times over and never had enough; make it pure, and ask for many rows at once by `prefetch`"
    )]
    NeverSatisfied(usize),
    /// The database of the read models refused the work, and would again. Fix what it says, start again.
    #[error("the database of the read models refused; fix what it says and start again")]
    Database(#[source] BackendError),
    /// A statement of a transaction projection's own has ended its transaction: a COMMIT or ROLLBACK, or SQL that SQLite rolls back for.
    /// Nothing of the transaction is stored; on PostgreSQL what was written before a COMMIT, and behind a ROLLBACK, is. Leave the end of
    /// the transaction to annals, and start again; where rows may be stored without their checkpoint, raise `VERSION` to build it anew.
    #[error(
        "a statement of its own has ended the transaction, as COMMIT and ROLLBACK do; leave that to annals and start again, on PostgreSQL with a raised `VERSION`, as rows may be stored without their checkpoint"
    )]
    TransactionEnded,
    /// The checkpoint is gone from the database while the projection was running, and nothing tells how far the rows in its table are.
    /// Drop the table and the view over it, and start the process again: it is built from the beginning.
    #[error(
        "its checkpoint was removed from the database while it was running; drop its table and the view over it, then start the process again, and it is built from the beginning"
    )]
    CheckpointRemoved,
    /// The runner itself failed; a fault of annals. Please report it; starting again continues from the checkpoint.
    #[error("the runner failed: {0}; please report this")]
    Runner(String),
}

impl StopCause {
    /// Which of the five families the error belongs to. Transient faults stop no projection: the runner waits them out.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Apply(_)
            | Self::React(_)
            | Self::Panicked(_)
            | Self::ProcessEnded(_)
            | Self::NeverSatisfied(_)
            | Self::Database(_)
            | Self::TransactionEnded
            | Self::CheckpointRemoved
            | Self::Runner(_) => ErrorFamily::Broken,
            Self::Undeclared(_) => ErrorFamily::Invalid,
            Self::Read(error) => error.family(),
            Self::Row(error) => error.family(),
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }

    /// Why, without what helps a projection that has stopped: for a stream that is parked.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Apply(source) => chain(source.as_ref()),
            Self::Panicked(text) => format!("the fold panicked: {text}"),
            Self::ProcessEnded(tries) => format!("the process ended {tries} times while it applied the event"),
            other => chain(other),
        }
    }

    /// Whether it concerns one stream alone, so that a stream projection can go on with the others.
    pub(crate) fn is_of_one_stream(&self) -> bool {
        match self {
            // The key's type is to blame.
            Self::Row(RowError::Foreign { .. }) => false,
            Self::Apply(_) | Self::Panicked(_) | Self::ProcessEnded(_) | Self::Read(_) | Self::Row(_) => true,
            _ => false,
        }
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
