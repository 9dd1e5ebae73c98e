//! What can go wrong with an instance as a whole.

use annals_eventstore::{ErrorFamily, Invalid, ReadError, Tenant};

use crate::engine::SagaStatus;
use crate::instance::{SagaId, Status};
use crate::person::Decision;

/// Why an instance could not be started, run or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// There is an instance of that id with another saga or another input. Give the new one an id of its own.
    #[error("saga `{id}` was started before, by another request")]
    StartedBefore {
        /// The instance.
        id: SagaId,
    },
    /// The step has its signal, and this is another one. Nothing was recorded: what came first counts.
    #[error("step `{step}` of saga `{id}` has its signal, and this is another one")]
    SignalledBefore {
        /// The instance.
        id: SagaId,
        /// The step that waits for it, or has taken it.
        step: String,
    },
    /// The tenant has no such instance.
    #[error("tenant `{tenant}` has no saga `{id}`")]
    NotStarted {
        /// The tenant that was asked for, by [`Sagas::tenant`](crate::Sagas::tenant) or
        /// [`Engine::tenant`](crate::Engine::tenant).
        tenant: Tenant,
        /// The instance.
        id: SagaId,
    },
    /// The instance is not in the state that this is for.
    #[error("saga `{id}` is {status}, and {needs}{}", behind(decision.as_ref()))]
    WrongStatus {
        /// The instance.
        id: SagaId,
        /// Its state.
        status: Status,
        /// In which state it could be done, in words.
        needs: &'static str,
        /// The states in which it could be done, if one of these is needed. Where its state is among them, something else is in the way.
        allowed: &'static [Status],
        /// What a person did to it last: perhaps somebody was first.
        decision: Option<Decision>,
    },
    /// This process does not have the saga of the instance. Ask one that has, or deploy it again.
    #[error("saga `{id}` is one of `{saga}`, which this process does not have")]
    NoDefinition {
        /// The instance.
        id: SagaId,
        /// The name of its saga.
        saga: String,
    },
    /// The instance has not come in time to what was waited for, such as its end. It goes on.
    #[error("saga `{id}` is {} after the time to wait for it", status.status)]
    TimedOut {
        /// The instance.
        id: SagaId,
        /// Where it stands.
        status: Box<SagaStatus>,
    },
    /// A parameter breaks a rule. Fix the field it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The recorded data does not fit the type of this build.
    #[error("the data of saga `{id}` does not fit")]
    Data {
        /// The instance.
        id: SagaId,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// Its stream could not be read.
    #[error("saga `{id}` could not be read")]
    Read {
        /// The instance.
        id: SagaId,
        /// Why.
        source: ReadError,
    },
    /// The store did not record what was to be recorded. The family says what to do.
    #[error("saga `{id}` could not be recorded")]
    Record {
        /// The instance.
        id: SagaId,
        /// The family of the source.
        family: ErrorFamily,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The last decision, at the end of a message.
fn behind(decision: Option<&Decision>) -> String {
    decision.map_or_else(String::new, |decision| format!("; the last decision was {decision}"))
}

impl SagaError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::StartedBefore { .. } | Self::SignalledBefore { .. } | Self::WrongStatus { .. } => {
                ErrorFamily::Conflict
            }
            Self::NotStarted { .. } | Self::Invalid(_) => ErrorFamily::Invalid,
            Self::Data { .. } | Self::NoDefinition { .. } => ErrorFamily::Broken,
            Self::TimedOut { .. } => ErrorFamily::Transient,
            Self::Read { source, .. } => source.family(),
            Self::Record { family, .. } => *family,
        }
    }

    /// Whether the same call may work later without any change. [`Engine::run`](crate::Engine::run) continues after it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}

/// The error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
