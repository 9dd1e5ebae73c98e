//! What happened in a checkout, in words: for the scenes, for the API, and for its pages.

use annals::sagas::{Direction, FlowEvent, SagaEvent, Status};
use serde_json::Value;

/// Who decides about a checkout, for its customer.
const THE_SHOP: &str = "somebody of the shop";

/// An event as its customer is shown it: neither what services say, which may name machines, nor what the shop says of it.
pub fn for_its_customer(event: &mut SagaEvent) {
    match event {
        SagaEvent::Refused { reason, .. } => "it was not possible".clone_into(reason),
        SagaEvent::Failed { error, .. } => "no answer".clone_into(error),
        SagaEvent::CompensationBegun { reason, .. } => why_for_its_customer(Status::Compensating).clone_into(reason),
        SagaEvent::Stuck { reason, .. } => why_for_its_customer(Status::Stuck).clone_into(reason),
        SagaEvent::Intervened { actor, reason, .. } => {
            THE_SHOP.clone_into(actor);
            reason.clear();
        }
        _ => {}
    }
}

/// An event as those who work here are shown it: as it is.
pub fn for_staff(_: &mut SagaEvent) {}

/// Why a checkout stands where it does, for its customer.
pub fn why_for_its_customer(status: Status) -> &'static str {
    match status {
        Status::Running => "a service does not answer",
        Status::Stuck => "somebody of the shop has to look at it",
        _ => "the checkout was not possible",
    }
}

/// One event of a saga or a flow, on one line; `None` for what nobody looks for.
pub fn line(event: &SagaEvent) -> Option<String> {
    Some(match event {
        SagaEvent::Started { saga, .. } => format!("{saga} started"),
        SagaEvent::Begun { step, direction, attempt: 1 } => format!("{} is called", of(step, *direction)),
        SagaEvent::Begun { step, direction, attempt } => {
            format!("{} is called once more, attempt {attempt}", of(step, *direction))
        }
        SagaEvent::Succeeded { step, direction: Direction::Do, .. } => format!("{step} is done"),
        SagaEvent::Succeeded { step, direction: Direction::Undo, .. } => format!("{step} is undone"),
        SagaEvent::Refused { step, direction, reason, .. } => format!("{} was refused: {reason}", of(step, *direction)),
        SagaEvent::Failed { step, direction, error, .. } => format!("{} has failed: {error}", of(step, *direction)),
        SagaEvent::SignalReceived { payload, .. } => seen(payload)?,
        SagaEvent::PivotPassed => "the pivot is passed: from here on nothing is undone".to_owned(),
        SagaEvent::ApprovalAsked { step, .. } => format!("{step} waits for approval"),
        SagaEvent::CompensationBegun { .. } => "from here on it is undone".to_owned(),
        SagaEvent::Intervened { actor, .. } if actor == THE_SHOP => format!("{actor} has decided"),
        SagaEvent::Intervened { intervention, actor, reason, .. } => {
            format!("{actor}: {intervention}, because {reason}")
        }
        SagaEvent::Stuck { .. } => "stuck".to_owned(),
        SagaEvent::Completed => "completed".to_owned(),
        SagaEvent::Compensated => "compensated".to_owned(),
        SagaEvent::TimerSet { .. } | SagaEvent::WaitBegun { .. } => return None,
    })
}

/// The step that an event is about, if it is about one.
pub fn step(event: &SagaEvent) -> Option<&str> {
    match event {
        SagaEvent::Begun { step, .. }
        | SagaEvent::Succeeded { step, .. }
        | SagaEvent::Refused { step, .. }
        | SagaEvent::Failed { step, .. }
        | SagaEvent::SignalReceived { step, .. }
        | SagaEvent::TimerSet { step, .. }
        | SagaEvent::ApprovalAsked { step, .. } => Some(step),
        SagaEvent::Stuck { step, .. } | SagaEvent::WaitBegun { step, .. } => step.as_deref(),
        _ => None,
    }
}

/// What is called: a step, or what undoes it.
fn of(step: &str, direction: Direction) -> String {
    match direction {
        Direction::Do => step.to_owned(),
        Direction::Undo => format!("the undo of {step}"),
    }
}

/// The name of an event that a flow has seen.
fn seen(payload: &Value) -> Option<String> {
    serde_json::from_value(payload.clone()).ok().map(|event: FlowEvent| event.name)
}
