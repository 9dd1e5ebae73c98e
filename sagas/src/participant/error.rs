//! Why a step was not done, or not undone.

use std::time::Duration;

use annals_eventstore::{ErrorFamily, Invalid};

use super::key::StepKey;
use crate::call::StepError;
use crate::error::chain;

/// Why a call of a step did not succeed. As a [`StepError`] it is what the saga takes it as, so that a participant can also be called
/// within the process of the saga.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParticipantError {
    /// The domain or the service behind it refuses, for good. Of a do this is stored, and the answer to repeats; an undo may be
    /// sent again.
    #[error("step `{step}` is refused: {reason}")]
    Refused {
        /// The step.
        step: StepKey,
        /// Why.
        reason: String,
    },
    /// An undo has come, so the step is not done any more.
    #[error("step `{step}` is undone, and is not done any more")]
    Undone {
        /// The step.
        step: StepKey,
    },
    /// The step was begun by another request. Give the other one a key of its own, and build the request from what does not
    /// change between attempts.
    #[error("step `{step}` was begun by another request")]
    OtherRequest {
        /// The step.
        step: StepKey,
    },
    /// Another call of the step is in flight, or its process ended and its time is not over yet. Send it again later.
    #[error("another call of step `{step}` is in flight")]
    InFlight {
        /// The step.
        step: StepKey,
        /// After which time.
        retry_after: Duration,
    },
    /// The effect was not possible, and did not happen. Send it again later.
    #[error("step `{step}` is not possible now: {error}")]
    Transient {
        /// The step.
        step: StepKey,
        /// What happened.
        error: String,
        /// The wait that was asked for.
        retry_after: Option<Duration>,
    },
    /// The effect may have happened. Send it again, or undo it.
    #[error("the outcome of step `{step}` is unknown: {error}")]
    Unknown {
        /// The step.
        step: StepKey,
        /// What happened.
        error: String,
    },
    /// A parameter breaks a rule. Fix the field it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The stored answer does not fit the type of this build.
    #[error("the stored answer of step `{step}` does not fit")]
    Answer {
        /// The step.
        step: StepKey,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The store did not record the call. The family says what to do.
    #[error("step `{step}` could not be recorded")]
    Record {
        /// The step.
        step: StepKey,
        /// The family of the source.
        family: ErrorFamily,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ParticipantError {
    pub(crate) fn of_effect(step: &StepKey, error: StepError) -> Self {
        let step = step.clone();
        match error {
            StepError::Refused { reason } => Self::Refused { step, reason },
            StepError::Transient { error, retry_after } => Self::Transient { step, error, retry_after },
            StepError::Unknown { error } => Self::Unknown { step, error },
        }
    }

    /// The same error of a call that has had its effect by then: its outcome is unknown to the caller.
    pub(crate) fn after_the_effect(self, step: &StepKey) -> Self {
        match self {
            Self::Unknown { .. } => self,
            error => Self::Unknown { step: step.clone(), error: chain(&error) },
        }
    }

    /// Which of the five families the error belongs to; `None` for a refusal and for what was undone, as nothing has failed.
    #[must_use]
    pub fn family(&self) -> Option<ErrorFamily> {
        match self {
            Self::Refused { .. } | Self::Undone { .. } => None,
            Self::OtherRequest { .. } | Self::Invalid(_) => Some(ErrorFamily::Invalid),
            Self::InFlight { .. } | Self::Transient { .. } => Some(ErrorFamily::Transient),
            Self::Unknown { .. } => Some(ErrorFamily::OutcomeUnknown),
            Self::Answer { .. } => Some(ErrorFamily::Broken),
            Self::Record { family, .. } => Some(*family),
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == Some(ErrorFamily::Transient)
    }

    /// The wait that is asked for, if one is.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::InFlight { retry_after, .. } => Some(*retry_after),
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What a saga takes it as.
impl From<ParticipantError> for StepError {
    fn from(error: ParticipantError) -> Self {
        match error {
            ParticipantError::Refused { reason, .. } => Self::Refused { reason },
            ParticipantError::Transient { error, retry_after, .. } => Self::Transient { error, retry_after },
            ParticipantError::Unknown { error, .. } => Self::Unknown { error },
            error => match error.family() {
                None | Some(ErrorFamily::Invalid) => Self::refused(chain(&error)),
                Some(ErrorFamily::Transient | ErrorFamily::Conflict) => {
                    Self::Transient { error: chain(&error), retry_after: error.retry_after() }
                }
                _ => Self::unknown(chain(&error)),
            },
        }
    }
}
