//! Why a wait for projections ended, and how far they were.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{BackendError, ErrorFamily, Incarnation, Position, ReadError};
use jiff::Timestamp;

use super::Stopped;
use crate::member::chain;
use crate::token::PositionToken;

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
    /// A projection will not get there before somebody has fixed it. See [`StopCause`](crate::StopCause).
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
    /// The end of the log could not be read, or not in time. Do what the cause says, if there is one; else try again.
    #[error("the end of the log could not be read within {waited:?}{}; try again", OptionalCause(cause))]
    HeadUnknown {
        /// For how long it was tried at most.
        waited: Duration,
        /// What the store said; none if the time was over. The message has it.
        cause: Option<ReadError>,
    },
    /// The database of the read models cannot be reached at the moment. Ask again later. The message has the cause.
    #[error("the database of the read models could not be asked how far they are: {}; try again later", chain(_0))]
    Unavailable(BackendError),
    /// The database of the read models could not be asked, and would fail again. Do what it says. The message has the cause.
    #[error("the database of the read models could not be asked how far they are: {}; fix that", chain(_0))]
    Database(BackendError),
    /// The projections were closed before they got there.
    #[error("the projections were closed before position {position}: {}; start them again", Reached(reached))]
    Closed {
        /// What was waited for.
        position: Position,
        /// How far each projection that was waited for has got.
        reached: Vec<ProjectionProgress>,
    },
    /// The token names a position of another store than the one whose events are projected here: that was replaced, or the
    /// token was given out elsewhere. Leave it out, and read what is there.
    #[error(
        "the token `{token}` is of another store than this, whose incarnation is {store}; leave it out and read again"
    )]
    OtherStore {
        /// The token.
        token: PositionToken,
        /// The incarnation of the store here.
        store: Incarnation,
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
            Self::HeadUnknown { cause, .. } => cause.as_ref().map_or(ErrorFamily::Transient, ReadError::family),
            Self::Stopped(stopped) => stopped.family(),
            Self::Database(_) => ErrorFamily::Broken,
            Self::Closed { .. } | Self::OtherStore { .. } | Self::Unknown { .. } => ErrorFamily::Invalid,
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
    /// Why it does not go on in this process, if it does not: it is paused, another process runs it, or none does yet.
    pub in_the_way: Option<String>,
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

/// Writes out what a store said, if it did.
struct OptionalCause<'a>(&'a Option<ReadError>);

impl fmt::Display for OptionalCause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |error| write!(f, ": {}", chain(error)))
    }
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
            if let Some(why) = &reach.in_the_way {
                write!(f, " ({why})")?;
            }
        }
        Ok(())
    }
}
