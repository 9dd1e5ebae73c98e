//! Why a command was not executed.

use std::error::Error;
use std::fmt;

use super::settle::SettleToken;
use crate::error::{AppendError, BackendError, ErrorFamily, Invalid, ReadError};
use crate::stream::StreamId;

/// Why a command did not lead to events. `R` is the domain's own rejection.
///
/// Unless it is [`ExecuteError::OutcomeUnknown`], nothing of the command is stored. [`SettleToken`] has an example of
/// that one.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The domain has rejected the command, on a state that was up to date. Nothing is broken: report it to the caller.
    Rejected(R),
    /// The aggregate's id, an event or the context breaks a rule. Fix the field it names.
    Invalid(Invalid),
    /// The store refused the append; among others a conflict in every attempt, a request key that was used for another
    /// request, a deadline that has passed, or a store that is unavailable. [`ExecuteError::family`]
    /// shows whether executing the command again may help.
    Append(AppendError),
    /// The stream could not be read. A transient error may pass; an event that cannot be read needs a build that knows
    /// it.
    Read(ReadError),
    /// The events may be stored or not, and repeating the append within the deadline gave no answer. Keep the token and pass it
    /// to [`Repository::settle`](crate::Repository::settle); executing the command again could have its effect twice.
    OutcomeUnknown {
        /// The aggregate's stream.
        stream: StreamId,
        /// Finds out later what happened.
        token: SettleToken,
        /// The error of the engine.
        source: BackendError,
    },
}

impl<R> ExecuteError<R> {
    /// Which of the five families the error belongs to; `None` for a rejection, as nothing has failed.
    #[must_use]
    pub fn family(&self) -> Option<ErrorFamily> {
        match self {
            Self::Rejected(_) => None,
            Self::Invalid(_) => Some(ErrorFamily::Invalid),
            Self::Append(e) => Some(e.family()),
            Self::Read(e) => Some(e.family()),
            Self::OutcomeUnknown { .. } => Some(ErrorFamily::OutcomeUnknown),
        }
    }

    /// Whether the same command may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == Some(ErrorFamily::Transient)
    }

    /// The domain's rejection, if it is one.
    pub fn rejection(self) -> Option<R> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }
}

impl<R: fmt::Display> fmt::Display for ExecuteError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Invalid(e) => e.fmt(f),
            Self::Append(e) => e.fmt(f),
            Self::Read(e) => e.fmt(f),
            Self::OutcomeUnknown { stream, .. } => {
                write!(f, "the command on `{stream}` has an unknown outcome; settle it with its token")
            }
        }
    }
}

impl<R: Error + 'static> Error for ExecuteError<R> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // These are shown in place of this error, so their own source is the next one.
            Self::Rejected(rejection) => rejection.source(),
            Self::Invalid(e) => e.source(),
            Self::Append(e) => e.source(),
            Self::Read(e) => e.source(),
            Self::OutcomeUnknown { source, .. } => Some(source),
        }
    }
}

impl<R> From<Invalid> for ExecuteError<R> {
    fn from(e: Invalid) -> Self {
        Self::Invalid(e)
    }
}

impl<R> From<AppendError> for ExecuteError<R> {
    fn from(e: AppendError) -> Self {
        match e {
            AppendError::Invalid(e) => Self::Invalid(e),
            e => Self::Append(e),
        }
    }
}

impl<R> From<ReadError> for ExecuteError<R> {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Invalid(e) => Self::Invalid(e),
            e => Self::Read(e),
        }
    }
}
