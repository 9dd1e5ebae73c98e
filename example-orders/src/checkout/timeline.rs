//! What happened in a checkout, in words: for the scenes and for the API.

use annals::sagas::{FlowEvent, SagaEvent};
use serde_json::Value;

/// One event of a saga or a flow, on one line; `None` for what nobody looks for.
pub fn line(event: &SagaEvent) -> Option<String> {
    Some(match event {
        SagaEvent::Started { saga, .. } => format!("{saga} started"),
        SagaEvent::Begun { step, direction, attempt } => format!("{direction} {step}: call {attempt}"),
        SagaEvent::Succeeded { step, direction, .. } => format!("{direction} {step}: ok"),
        SagaEvent::Refused { step, direction, reason, .. } => format!("{direction} {step}: refused, {reason}"),
        SagaEvent::Failed { step, direction, error, .. } => format!("{direction} {step}: {error}"),
        SagaEvent::SignalReceived { payload, .. } => seen(payload)?,
        SagaEvent::PivotPassed => "-- pivot --".to_owned(),
        SagaEvent::ApprovalAsked { step, .. } => format!("{step} waits for approval"),
        SagaEvent::CompensationBegun { .. } => "-- from here on it is undone --".to_owned(),
        SagaEvent::Intervened { intervention, actor, reason, .. } => {
            format!("{actor}: {intervention}, because {reason}")
        }
        SagaEvent::Stuck { .. } => "stuck".to_owned(),
        SagaEvent::Completed => "completed".to_owned(),
        SagaEvent::Compensated => "compensated".to_owned(),
        SagaEvent::TimerSet { .. } | SagaEvent::WaitBegun { .. } => return None,
    })
}

/// The name of an event that a flow has seen.
fn seen(payload: &Value) -> Option<String> {
    serde_json::from_value(payload.clone()).ok().map(|event: FlowEvent| event.name)
}
