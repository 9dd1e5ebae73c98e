//! Why people could not do something with projections or reactors that run.

use annals_eventstore::{BackendError, ErrorFamily, Invalid, ReadError};

use crate::member::chain;

/// Why a projection or a reactor could not be paused, resumed or started again, or what it has set aside not listed, retried or
/// dropped. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// What was given breaks a rule. The message names it and says what to do.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No projection of this name was started. Add it by `with`.
    #[error("no projection is called `{name}`; started are {known}; add it by `with`")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are, joined by commas.
        known: String,
    },
    /// No reactor of this name was started. Add it by `react`.
    #[error("no reactor is called `{name}`; started are {known}; add it by `react`")]
    UnknownReactor {
        /// The name.
        name: &'static str,
        /// The names there are, joined by commas.
        known: String,
    },
    /// The database of the read models cannot be reached at the moment, or has not answered whether it was done. Try again;
    /// doing it twice is harmless. The message has the cause.
    #[error("the database of the read models did not answer: {}; try again", chain(_0))]
    Unavailable(BackendError),
    /// The database of the read models refused, and would again. Do what it says. The message has the cause.
    #[error("the database of the read models refused: {}; fix that", chain(_0))]
    Database(BackendError),
    /// The projection is paused, and nothing of it changes meanwhile. Resume it first.
    #[error("projection `{projection}` is paused; resume it first")]
    Paused {
        /// The projection.
        projection: &'static str,
    },
    /// Another retry took the streams meanwhile. Nothing was changed; look at the dead letters and try again.
    #[error(
        "the streams of projection `{projection}` were taken by another retry meanwhile; look at its dead letters and try again"
    )]
    Taken {
        /// The projection.
        projection: &'static str,
    },
    /// The events of the stream could not be read. Do what the cause says.
    #[error("the events of the stream could not be read: {}", chain(_0))]
    Read(ReadError),
    /// The projection was closed. Start it again.
    #[error("the projections are closed; start them again")]
    Closed,
}

impl From<ReadError> for ControlError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl ControlError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Unavailable(_) | Self::Taken { .. } => ErrorFamily::Transient,
            Self::Read(error) => error.family(),
            Self::Database(_) => ErrorFamily::Broken,
            Self::Invalid(_)
            | Self::Unknown { .. }
            | Self::UnknownReactor { .. }
            | Self::Paused { .. }
            | Self::Closed => ErrorFamily::Invalid,
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}
