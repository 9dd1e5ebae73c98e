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

#[cfg(feature = "axum")]
#[test]
fn an_error_is_an_answer_that_says_whether_to_come_again() {
    use axum::response::IntoResponse;

    let answer = |reason, cut_off| {
        let error =
            CallError { policy: "payment".into(), attempts: 1, cut_off, reason, source: None::<std::io::Error> };
        let answer = error.into_response();
        let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
        (answer.status().as_u16(), wait)
    };
    let failed = |last_because, retry_after| Reason::Failed { last_because, retry_after };
    let open =
        |millis| Reason::Refused(Refusal::BreakerOpen(Refused::Open { retry_after: Duration::from_millis(millis) }));
    let seconds = |seconds: &str| Some(seconds.to_owned());

    assert_eq!(answer(failed(LastBecause::CallAtFault, None), 0), (502, None));
    assert_eq!(answer(failed(LastBecause::NotTransient, None), 0), (502, None));
    assert_eq!(answer(failed(LastBecause::AttemptsUsed, Some(Duration::from_secs(7))), 0), (503, seconds("7")));
    assert_eq!(answer(open(1_001), 0), (503, seconds("2")));
    assert_eq!(answer(open(0), 0), (503, seconds("1")), "never 0");
    assert_eq!(answer(Reason::Refused(Refusal::NoSlot(NoSlot::Full { slots: 1, queue: 0 })), 0), (503, None));
    assert_eq!(answer(Reason::Injected, 0), (503, None));
    assert_eq!(answer(Reason::TimedOut { limit: TimeLimit::Deadline }, 1), (504, None));
    assert_eq!(answer(Reason::Refused(Refusal::DeadlineOver), 0), (504, None));
    assert_eq!(answer(Reason::Refused(Refusal::NoSlot(NoSlot::DeadlineOver)), 0), (504, None));
    assert_eq!(answer(open(500), 1), (504, seconds("1")), "an attempt before was cut off");
    assert_eq!(answer(failed(LastBecause::NotTransient, None), 1), (504, None), "an attempt before was cut off");
}

#[test]
fn waits_are_told_in_whole_milliseconds() {
    let retry_after = Duration::from_nanos(499_988_206);
    assert!(Refused::Open { retry_after }.to_string().ends_with(" in 500ms"));
    let quota = Quota { limit: 10, remaining: 0, reset: retry_after };
    assert!(Limited { retry_after, quota }.to_string().ends_with(" in 500ms"));
}
