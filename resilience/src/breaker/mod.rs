#![doc = include_str!("../../docs/breaker.md")]

mod machine;
mod settings;
mod shell;
#[cfg(test)]
mod tests;
mod watch;
mod window;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration_text::whole_millis;

pub use settings::{BreakerSettings, WindowSettings};
pub use shell::{Breaker, Permit};
pub use watch::{Missed, Transitions, Watch};

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls pass, and their results are counted.
    Closed,
    /// Calls are refused until the open period is over.
    Open,
    /// A few probes pass; their results decide.
    HalfOpen,
}

/// What a breaker does with its findings. Changing the mode starts anew with an empty window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Opens and closes by itself.
    #[default]
    Normal,
    /// Refuses every call until the mode is changed.
    HeldOpen,
    /// Admits every call and counts results, but never opens.
    HeldClosed,
    /// Admits every call and counts nothing.
    Disabled,
    /// Opens and closes by itself, but admits every call; `refused` counts what would have been refused.
    MetricsOnly,
}

/// How an admitted call ended, as the breaker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The dependency did its work.
    Success,
    /// The dependency failed.
    Failure,
    /// The result says nothing about the dependency's health, as a 404.
    Ignored,
    /// The caller did not wait for the result.
    Abandoned,
}

/// Why a breaker refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is open; after `retry_after` it admits probes.
    #[error("the breaker is open and admits probes in {:?}", whole_millis(*.retry_after))]
    Open {
        /// The rest of the open period.
        retry_after: Duration,
    },
    /// It is half-open and all probes are under way.
    #[error("the breaker is half-open and all its probes are under way")]
    ProbesTaken,
    /// Somebody holds it open, see [`Mode::HeldOpen`].
    #[error("the breaker is held open by hand")]
    HeldOpen,
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Too many of the calls in the window failed.
    FailureRate {
        /// Failed calls in the window.
        failures: u32,
        /// All calls in the window.
        calls: u32,
    },
    /// Too many of the calls in the window were slow.
    SlowRate {
        /// Slow calls in the window.
        slow: u32,
        /// All calls in the window.
        calls: u32,
    },
    /// Too many calls failed one after another.
    ConsecutiveFailures {
        /// How many.
        failures: u32,
    },
    /// The open period ended.
    OpenPeriodOver,
    /// A probe failed or was slow.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// The mode was changed.
    ByHand,
}

/// One change of a breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// 1 for the first of this breaker, without gaps.
    pub number: u64,
    /// The state before.
    pub from: BreakerState,
    /// The state after.
    pub to: BreakerState,
    /// Why.
    pub cause: Cause,
    /// When, as the time since the breaker was made.
    pub at: Duration,
}

/// A breaker at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BreakerSnapshot {
    /// The state.
    pub state: BreakerState,
    /// The mode.
    pub mode: Mode,
    /// How often the state changed so far; results of calls of another generation are not counted.
    pub generation: u64,
    /// How long it has been in this state.
    #[serde(serialize_with = "crate::duration_text::shown::serialize")]
    pub in_state_for: Duration,
    /// The rest of the open period.
    #[serde(serialize_with = "crate::duration_text::shown::option::serialize")]
    pub retry_after: Option<Duration>,
    /// Calls in the window.
    pub calls: u32,
    /// Failed calls in the window.
    pub failures: u32,
    /// Slow calls in the window.
    pub slow: u32,
    /// Probes without a result yet.
    pub probes_in_flight: u32,
    /// Successful probes since the breaker became half-open.
    pub probes_succeeded: u32,
    /// Results that came in another generation than their call was admitted in, or after their probe's lease; since the start.
    pub late: u64,
    /// Calls that were dropped without being slow, since the start.
    pub abandoned: u64,
    /// Calls that were refused, since the start.
    pub refused: u64,
}
