//! One call of a remote step, and how it may fail.

use annals_eventstore::Tenant;
use annals_resilience::{Class, Classify, Deadline, IdempotencyKey};
use std::time::Duration;

use crate::instance::SagaId;

/// What a remote step is handed for one call.
#[derive(Clone, Debug)]
pub struct Call {
    pub(crate) tenant: Tenant,
    pub(crate) saga_id: SagaId,
    pub(crate) key: IdempotencyKey,
    pub(crate) deadline: Deadline,
    pub(crate) attempt: u32,
}

impl Call {
    /// Whose instance it is. Instances of two tenants may have one id, and then their calls have one key: a service that several
    /// tenants share needs both.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The instance.
    #[must_use]
    pub fn saga_id(&self) -> &SagaId {
        &self.saga_id
    }

    /// The key of the step in this instance: `{saga id}/{step}/do`, or `undo`. The same for all attempts, also after a
    /// restart; hand it to the service, which must have the effect once. It does not name the [tenant](Call::tenant).
    #[must_use]
    pub fn key(&self) -> &IdempotencyKey {
        &self.key
    }

    /// When an answer is of no use any more; hand it to the service.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The number of the call, from 1. Attempts that the policy makes by itself are not counted.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// Why a call of a step failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The service refuses, and would refuse again; it had no effect. Before the pivot the saga is compensated.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The service was not reached or was not able; it had no effect. The call is made again.
    #[error("not possible now: {error}")]
    Transient {
        /// What happened.
        error: String,
        /// The wait that the service asked for.
        retry_after: Option<Duration>,
    },
    /// There was no answer, so it may have had its effect. The call is made again, and if the saga is compensated, the
    /// step is undone.
    #[error("the outcome is unknown: {error}")]
    Unknown {
        /// What happened.
        error: String,
    },
}

impl StepError {
    /// The service refuses for good.
    pub fn refused(reason: impl ToString) -> Self {
        Self::Refused { reason: reason.to_string() }
    }

    /// It may work later, and had no effect.
    pub fn transient(error: impl ToString) -> Self {
        Self::Transient { error: error.to_string(), retry_after: None }
    }

    /// It may have happened.
    pub fn unknown(error: impl ToString) -> Self {
        Self::Unknown { error: error.to_string() }
    }

    /// The error of an HTTP answer, by its status: 408 and 5xx except 503 say that the outcome is unknown; 425, 429, 503, and 409 if
    /// it has a `Retry-After`, that it may work later; every other one refuses.
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        let error = format!("HTTP status {status}");
        match status {
            409 if retry_after.is_none() => Self::Refused { reason: error },
            409 | 425 | 429 | 503 => Self::Transient { error, retry_after },
            408 | 500.. => Self::Unknown { error },
            _ => Self::Refused { reason: error },
        }
    }

    /// The same error with more about it.
    #[cfg(feature = "http")]
    pub(crate) fn with_detail(mut self, detail: &str) -> Self {
        let (Self::Refused { reason: text } | Self::Transient { error: text, .. } | Self::Unknown { error: text }) =
            &mut self;
        *text = format!("{text}: {detail}");
        self
    }
}

impl Classify for StepError {
    fn class(&self) -> Class {
        match self {
            Self::Refused { .. } => Class::Ignored,
            Self::Transient { retry_after, .. } => Class::Transient { retry_after: *retry_after },
            Self::Unknown { .. } => Class::TRANSIENT,
        }
    }
}
