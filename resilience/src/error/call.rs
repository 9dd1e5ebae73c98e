use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::breaker::Refused;
use crate::bulkhead::NoSlot;
use crate::rate_limit::Limited;

/// A call through a policy gave no answer.
///
/// | [`reason`](Self::reason) | what happened | what to do |
/// |---|---|---|
/// | [`Refused`](Reason::Refused) | a guard refused an attempt; with `attempts` 0 nothing reached the dependency | later, after [`retry_after`](Self::retry_after) if it says so |
/// | [`Failed`](Reason::Failed) | the dependency answered with `source` | as `source` says |
/// | [`TimedOut`](Reason::TimedOut) | the last attempt was cut off: it may have had its effect | repeat only with the same key |
#[derive(Debug, thiserror::Error)]
#[error("policy `{policy}`: {reason}")]
pub struct CallError<E> {
    /// The policy.
    pub policy: Arc<str>,
    /// Attempts that began.
    pub attempts: u32,
    /// Attempts that were cut off before their end. If not 0, the call may have had its effect, whatever `reason` says.
    pub cut_off: u32,
    /// Why there is no answer, and no further attempt.
    pub reason: Reason,
    /// The last error of the dependency, if there was one.
    pub source: Option<E>,
}

/// Why a call gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The last attempt failed with the error's `source`.
    Failed {
        /// Why it was the last one.
        last_because: LastBecause,
        /// The wait that the dependency asked for.
        retry_after: Option<Duration>,
    },
    /// The last attempt was cut off.
    TimedOut {
        /// The limit that was reached.
        limit: TimeLimit,
    },
    /// A guard refused the call, or a further attempt.
    Refused(Refusal),
    /// [Chaos](crate::chaos) made the last attempt fail.
    Injected,
}

/// Why an attempt was the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LastBecause {
    /// The call was at fault, see [`Class::Ignored`](crate::Class::Ignored).
    CallAtFault,
    /// It would fail again.
    NotTransient,
    /// The call, or its policy, allows one attempt only.
    OnlyOne,
    /// All attempts were made.
    AttemptsUsed,
    /// The policy's retry budget is used up.
    BudgetUsed,
    /// The wait before the next one would end after the deadline.
    DeadlineTooNear,
}

/// A limit on time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    /// The policy's, for one attempt.
    Attempt(Duration),
    /// The deadline of the caller or of the policy.
    Deadline,
}

/// The guard that refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// No time was left.
    Deadline,
    /// Too many calls in a span of time.
    RateLimit,
    /// The dependency failed too often.
    Breaker,
    /// Too many calls at once.
    Bulkhead,
}

/// What a guard refused a call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The deadline passed before an attempt began.
    DeadlineOver,
    /// By the rate limit.
    RateLimited(Limited),
    /// By the breaker.
    BreakerOpen(Refused),
    /// By the bulkhead.
    NoSlot(NoSlot),
}

impl Refusal {
    /// The guard that refused.
    pub fn guard(self) -> Guard {
        match self {
            Self::DeadlineOver | Self::NoSlot(NoSlot::DeadlineOver) => Guard::Deadline,
            Self::RateLimited(_) => Guard::RateLimit,
            Self::BreakerOpen(_) => Guard::Breaker,
            Self::NoSlot(NoSlot::Full { .. } | NoSlot::WaitedTooLong { .. }) => Guard::Bulkhead,
        }
    }
}

impl<E> CallError<E> {
    /// The guard that refused, if one did.
    pub fn guard(&self) -> Option<Guard> {
        match self.reason {
            Reason::Refused(refusal) => Some(refusal.guard()),
            Reason::Failed { .. } | Reason::TimedOut { .. } | Reason::Injected => None,
        }
    }

    /// When the same call may work, if dependency or guard said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.reason {
            Reason::Failed { retry_after, .. } => retry_after,
            Reason::Refused(Refusal::RateLimited(limited)) => Some(limited.retry_after),
            Reason::Refused(Refusal::BreakerOpen(Refused::Open { retry_after })) => Some(retry_after),
            Reason::Refused(_) | Reason::TimedOut { .. } | Reason::Injected => None,
        }
    }

    /// Whether the same call may work later. After a time-out it may also have worked already.
    pub fn is_transient(&self) -> bool {
        let never = [LastBecause::NotTransient, LastBecause::CallAtFault];
        !matches!(self.reason, Reason::Failed { last_because, .. } if never.contains(&last_because))
    }

    /// Whether the dependency is well and the call itself was wrong, as with 404: no case for a fallback.
    pub fn call_at_fault(&self) -> bool {
        matches!(self.reason, Reason::Failed { last_because: LastBecause::CallAtFault, .. })
    }

    /// Whether the call may have had its effect although there is no answer, as far as the policy can tell: an attempt was
    /// cut off. An error of the dependency may say the same of itself.
    pub fn may_have_happened(&self) -> bool {
        self.cut_off > 0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { last_because, .. } => write!(f, "the call failed, and is not made again: {last_because}"),
            Self::TimedOut { limit: TimeLimit::Attempt(limit) } => write!(f, "no answer within {limit:?}"),
            Self::TimedOut { limit: TimeLimit::Deadline } => f.write_str("no answer before the deadline"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Injected => f.write_str("chaos made the attempt fail"),
        }
    }
}

impl fmt::Display for LastBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CallAtFault => "the call was at fault",
            Self::NotTransient => "the error is not transient",
            Self::OnlyOne => "only one attempt is allowed",
            Self::AttemptsUsed => "all attempts were made",
            Self::BudgetUsed => "the retry budget is used up",
            Self::DeadlineTooNear => "the wait before the next attempt would end after the deadline",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadlineOver => f.write_str("the deadline passed before an attempt began"),
            Self::RateLimited(limited) => limited.fmt(f),
            Self::BreakerOpen(refused) => refused.fmt(f),
            Self::NoSlot(no_slot) => no_slot.fmt(f),
        }
    }
}
