//! What happened in a checkout, in words: for the scenes, for the API, and for its pages.

use annals::sagas::{Direction, FlowEvent, SagaEvent};
use serde_json::Value;

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
