//! What is recorded about an instance of a saga.

use annals_macros::Event;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::instance::Status;

/// Whether a step is done or undone.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The step itself.
    Do,
    /// Its compensation.
    Undo,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Do => "do",
            Self::Undo => "undo",
        })
    }
}

/// What a person decides about an instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Intervention {
    /// The failed step gets all its attempts again.
    Retry,
    /// The failed step counts as done, or as undone.
    Skip,
    /// The finished steps are undone.
    Compensate,
    /// The instance counts as completed.
    Complete,
    /// An instance that runs is given up: its finished steps are undone.
    Cancel,
    /// A step that asks for approval is done.
    Approve {
        /// The step.
        step: String,
    },
    /// A step that asks for approval is refused.
    Reject {
        /// The step.
        step: String,
    },
}

impl std::fmt::Display for Intervention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Retry => f.write_str("retry"),
            Self::Skip => f.write_str("skip"),
            Self::Compensate => f.write_str("compensate"),
            Self::Complete => f.write_str("complete"),
            Self::Cancel => f.write_str("cancel"),
            Self::Approve { step } => write!(f, "approve `{step}`"),
            Self::Reject { step } => write!(f, "reject `{step}`"),
        }
    }
}

/// One event of the stream of an instance.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum SagaEvent {
    /// The instance was started.
    #[event(name = "saga.started")]
    Started {
        /// The name of the saga.
        saga: String,
        /// The hash of its definition.
        definition: String,
        /// The input.
        data: Value,
        /// When.
        at: Timestamp,
        /// Until when it must be completed.
        deadline: Option<Timestamp>,
    },
    /// A call is about to be made.
    #[event(name = "saga.step_begun")]
    Begun {
        /// The step.
        step: String,
        /// Whether it is done or undone.
        direction: Direction,
        /// The number of the call, from 1.
        attempt: u32,
    },
    /// A step was done or undone.
    #[event(name = "saga.step_succeeded")]
    Succeeded {
        /// The step.
        step: String,
        /// Whether it was done or undone.
        direction: Direction,
        /// Which call; 0 for a step without calls.
        attempt: u32,
        /// What it gave.
        output: Value,
    },
    /// A call was refused for good.
    #[event(name = "saga.step_refused")]
    Refused {
        /// The step.
        step: String,
        /// Whether it was to be done or undone.
        direction: Direction,
        /// Which call; 0 for a step without calls.
        attempt: u32,
        /// Why.
        reason: String,
        /// Whether an attempt inside of this call may have had its effect.
        may_have_happened: bool,
    },
    /// A call failed and may be made again.
    #[event(name = "saga.step_failed")]
    Failed {
        /// The step.
        step: String,
        /// Whether it was to be done or undone.
        direction: Direction,
        /// Which call.
        attempt: u32,
        /// Why.
        error: String,
        /// Whether it may have had its effect.
        may_have_happened: bool,
        /// When it is made again; `None` if it was the last attempt.
        retry_at: Option<Timestamp>,
        /// Whether a guard of its policy refused it, so that it does not count as an attempt.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not_made: bool,
    },
    /// A timer runs.
    #[event(name = "saga.timer_set")]
    TimerSet {
        /// The step.
        step: String,
        /// When it ends.
        due: Timestamp,
    },
    /// A signal has come, whether its step waits for it yet or not.
    #[event(name = "saga.signal_received")]
    SignalReceived {
        /// The step that waits for it.
        step: String,
        /// What came with it.
        payload: Value,
    },
    /// A person is asked for approval.
    #[event(name = "saga.approval_asked")]
    ApprovalAsked {
        /// The step.
        step: String,
        /// When.
        at: Timestamp,
        /// Until when it can be answered; `None` if there is no limit.
        until: Option<Timestamp>,
    },
    /// The steps before the pivot cannot be undone any more.
    #[event(name = "saga.pivot_passed")]
    PivotPassed,
    /// From here on steps are undone.
    #[event(name = "saga.compensation_begun")]
    CompensationBegun {
        /// Why.
        reason: String,
        /// Until when it must have ended.
        until: Timestamp,
    },
    /// Nothing is to be done for the instance before a signal comes or a time is reached.
    #[event(name = "saga.wait_begun")]
    WaitBegun {
        /// The step that it waits at.
        step: Option<String>,
        /// The time; `None` if only a signal ends the wait.
        until: Option<Timestamp>,
    },
    /// The instance waits for a person.
    #[event(name = "saga.stuck")]
    Stuck {
        /// The step in the way, if it is one.
        step: Option<String>,
        /// Why.
        reason: String,
    },
    /// A person decided.
    #[event(name = "saga.intervened")]
    Intervened {
        /// What.
        intervention: Intervention,
        /// By whom.
        actor: String,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
        /// The key of the request, if it had one.
        request: Option<String>,
        /// Until when a compensation must have ended; `None` if the instance is not compensated from here on.
        until: Option<Timestamp>,
    },
    /// All steps are done.
    #[event(name = "saga.completed")]
    Completed,
    /// All finished steps that have an undo are undone.
    #[event(name = "saga.compensated")]
    Compensated,
}

impl SagaEvent {
    /// The same, if it is the present reason of an instance of this status: a call that was under way when the instance failed, and
    /// fails too, does not change why.
    pub(crate) fn error_in(&self, status: Status) -> Option<String> {
        let late = match self {
            Self::Refused { direction, .. } | Self::Failed { direction, .. } => {
                status == Status::Stuck || status == Status::Compensating && *direction == Direction::Do
            }
            _ => false,
        };
        self.error().filter(|_| !late)
    }

    /// What went wrong, or why the instance is compensated or stuck, if the event says it.
    pub(crate) fn error(&self) -> Option<String> {
        match self {
            Self::Refused { step, reason, .. } => Some(format!("`{step}` was refused: {reason}")),
            Self::Failed { step, error, .. } => Some(format!("`{step}` failed: {error}")),
            Self::CompensationBegun { reason, .. } | Self::Stuck { reason, .. } => Some(reason.clone()),
            _ => None,
        }
    }
}
