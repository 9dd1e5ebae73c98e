use std::time::Duration;

use super::*;
use crate::breaker::Refused;
use crate::bulkhead::NoSlot;
use crate::rate_limit::{Limited, Quota};

#[test]
fn every_reason_says_what_refused_and_why() {
    let second = Duration::from_secs(1);
    let quota = Quota { limit: 10, remaining: 0, reset: second };
    let failed = |last_because| Reason::Failed { last_because, retry_after: None };
    let reasons = [
        failed(LastBecause::CallAtFault),
        failed(LastBecause::NotTransient),
        failed(LastBecause::OnlyOne),
        failed(LastBecause::AttemptsUsed),
        failed(LastBecause::BudgetUsed),
        failed(LastBecause::DeadlineTooNear),
        Reason::TimedOut { limit: TimeLimit::Attempt(second) },
        Reason::TimedOut { limit: TimeLimit::Deadline },
        Reason::Refused(Refusal::DeadlineOver),
        Reason::Refused(Refusal::RateLimited(Limited { retry_after: second, quota })),
        Reason::Refused(Refusal::BreakerOpen(Refused::Open { retry_after: second })),
        Reason::Refused(Refusal::BreakerOpen(Refused::ProbesTaken)),
        Reason::Refused(Refusal::BreakerOpen(Refused::HeldOpen)),
        Reason::Refused(Refusal::NoSlot(NoSlot::Full { slots: 20, queue: 40 })),
        Reason::Refused(Refusal::NoSlot(NoSlot::WaitedTooLong { limit: second })),
        Reason::Refused(Refusal::NoSlot(NoSlot::DeadlineOver)),
        Reason::Injected,
    ];
    let lines = reasons.map(|reason| {
        let error =
            CallError { policy: "payment".into(), attempts: 1, cut_off: 0, reason, source: None::<std::io::Error> };
        format!("{error} | {:?} {:?} {}", error.guard(), error.retry_after(), error.is_transient())
    });
    insta::assert_snapshot!(lines.join("\n"));
}
