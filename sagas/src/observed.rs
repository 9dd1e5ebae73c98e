//! What sagas say of themselves, by the facades [`tracing`] and [`metrics`]. `docs/telemetry.md` lists the names.

use std::sync::{Mutex, PoisonError};

use annals_eventstore::TraceParent;
use metrics::counter;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::event::{Direction, Intervention, SagaEvent};
use crate::instance::SagaId;
use crate::plan::Outcome;

/// The span of a run of an instance, in the trace in which it was started.
pub(crate) fn run_span(saga: &str, id: &SagaId, trace: Option<&TraceParent>) -> Span {
    info_span!("saga", saga, instance = %id, trace_parent = trace.map(TraceParent::as_str))
}

/// The span of a step that is done or undone.
pub(crate) fn step_span(step: &str, direction: Direction, attempt: u32) -> Span {
    let direction = match direction {
        Direction::Do => "do",
        Direction::Undo => "undo",
    };
    info_span!("step", step, direction, attempt, outcome = Empty)
}

/// Adds to the span of a step how it has ended.
pub(crate) fn ended(outcome: &Outcome) {
    Span::current().record(
        "outcome",
        match outcome {
            Outcome::Succeeded(_) => "succeeded",
            Outcome::Refused { .. } => "refused",
            Outcome::Failed { .. } => "failed",
        },
    );
}

/// What was decided last about an instance, to be counted when it is recorded: a conflict makes it decided again.
#[derive(Default)]
pub(crate) struct Decided(Mutex<Vec<&'static str>>);

impl Decided {
    pub(crate) fn note(&self, events: &[SagaEvent]) {
        let changes = events.iter().filter_map(|event| match event {
            SagaEvent::Started { .. } => Some("started"),
            SagaEvent::CompensationBegun { .. }
            | SagaEvent::Intervened { intervention: Intervention::Compensate | Intervention::Cancel, .. } => {
                Some("compensating")
            }
            SagaEvent::Stuck { .. } => Some("stuck"),
            // A person may end what no step ends.
            SagaEvent::Completed | SagaEvent::Intervened { intervention: Intervention::Complete, .. } => {
                Some("completed")
            }
            SagaEvent::Compensated => Some("compensated"),
            _ => None,
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = changes.collect();
    }

    pub(crate) fn count(self, saga: &str) {
        for change in self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            counter!("annals_sagas_total", "saga" => saga.to_owned(), "event" => change).increment(1);
        }
    }
}
