//! Following the events of flows.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use annals_eventstore::{
    CorrelationId, ErrorFamily, Event, EventStoreExt, Filter, Position, ReadError, Recorded, Tenant,
};
use annals_projections::{EffectKey, Reacting, Reactor, ReactorError};
use futures::TryStreamExt;
use serde_json::Value;

use super::steps::{Flow, Mark};
use super::timeline::FlowEvent;
use crate::engine::Engine;
use crate::error::SagaError;
use crate::event::{Direction, SagaEvent};
use crate::instance::{SagaId, Status, signal};
use crate::plan::after;

/// Turns each event of a flow into a signal of the saga that stands for it.
///
/// The order of the log decides what is recorded, so one event is handled at a time. If one has to wait for its next try, others
/// go ahead; none of them is lost by that, as the event with which a flow begins is looked for in the log.
pub(crate) struct Tracker<F> {
    engine: Engine<()>,
    marks: Arc<BTreeMap<String, Mark>>,
    flow: PhantomData<fn(F)>,
}

impl<F: Flow> Tracker<F> {
    pub(crate) fn new(engine: Engine<()>, marks: BTreeMap<String, Mark>) -> Reacting<Self> {
        Self { engine, marks: Arc::new(marks), flow: PhantomData }.streams_at_once(1)
    }
}

impl<F: Flow> Reactor for Tracker<F> {
    type Event = F::Event;
    const NAME: &'static str = F::NAME;

    async fn react(&self, event: &Recorded<F::Event>, _key: &EffectKey) -> Result<(), ReactorError> {
        let name = event.event.shape().name;
        let (Some(mark), Some(correlation)) = (self.marks.get(name), &event.metadata.correlation_id) else {
            return Ok(());
        };
        if !F::follows(correlation) {
            return Ok(());
        }
        let tenant = event.stream.tenant();
        let (engine, id) = (
            self.engine.of(tenant).in_trace(event.metadata.trace_parent.clone()),
            SagaId::new(correlation.as_str()).map_err(ReactorError::permanent)?,
        );
        let seen = FlowEvent::of(name, event);
        let first = engine.definition().steps().first();
        let begins = first.is_some_and(|first| *mark == Mark::Step(first.name.clone(), Direction::Do));
        let reported = match engine.report(&id, mark, &seen, begins.then_some(&seen)).await {
            Err(SagaError::NotStarted { .. }) => {
                let begun = engine.begun(tenant, correlation, event.position).await;
                let Some(begun) = begun.map_err(|error| reactor_error(error.family(), error))? else {
                    tracing::debug!(%correlation, event = name, "no flow of this correlation has begun");
                    return Ok(());
                };
                engine.report(&id, mark, &seen, Some(&begun)).await
            }
            reported => reported,
        };
        reported.map_err(|error| reactor_error(error.family(), error))
    }
}

fn reactor_error(family: ErrorFamily, error: impl std::error::Error + Send + Sync + 'static) -> ReactorError {
    match family {
        ErrorFamily::Invalid | ErrorFamily::Broken => ReactorError::permanent(error),
        _ => ReactorError::transient(error),
    }
}

impl Engine<()> {
    /// The event with which the flow of a correlation has begun, if one is at `up_to` or before it.
    async fn begun(
        &self,
        tenant: &Tenant,
        correlation: &CorrelationId,
        up_to: Position,
    ) -> Result<Option<FlowEvent>, ReadError> {
        let Some(first) = self.definition.steps().first() else { return Ok(None) };
        let filter = Filter::all().tenant(tenant.clone()).correlation(correlation.clone());
        let found = self.store.read_all(Position::START, filter.event_name(&*first.name)?).try_next().await?;
        let found = found.filter(|event| event.position <= up_to);
        Ok(found.map(|event| FlowEvent {
            name: event.name.to_string(),
            event_id: event.event_id.to_string(),
            aggregate_type: event.stream.aggregate_type().to_owned(),
            aggregate_id: event.stream.aggregate_id().to_owned(),
            position: event.position,
        }))
    }

    /// Records what an event says about a flow, once. A flow that is not known begins with `begun`.
    pub(crate) async fn report(
        &self,
        id: &SagaId,
        mark: &Mark,
        seen: &FlowEvent,
        begun: Option<&FlowEvent>,
    ) -> Result<(), SagaError> {
        let signalled = |step: &str, direction, event: &FlowEvent| {
            let payload = serde_json::to_value(event).map_err(|source| SagaError::Data { id: id.clone(), source })?;
            Ok::<_, SagaError>(SagaEvent::SignalReceived { step: signal(step, direction), payload })
        };
        self.record(id, |instance| {
            let mut events = Vec::new();
            if instance.status == Status::NotStarted {
                let (Some(begun), Some(first)) = (begun, self.definition.steps().first()) else {
                    return Err(self.not_started(id));
                };
                events.push(self.started(Value::Null));
                events.push(signalled(&first.name, Direction::Do, begun)?);
                if *mark == Mark::Step(first.name.clone(), Direction::Do) {
                    return Ok(events);
                }
            } else if instance.saga != self.definition.name() || instance.status.is_final() {
                // The correlation is that of a saga, which has a row of its own, or the flow has ended.
                tracing::info!(saga = %id, event = seen.name, status = %instance.status, "an event changes no flow");
                return Ok(events);
            }
            match mark {
                Mark::Step(step, direction) if instance.has_signal(step, *direction) => {}
                Mark::Step(step, direction) => events.push(signalled(step, *direction, seen)?),
                Mark::Fails if matches!(instance.status, Status::NotStarted | Status::Running) => {
                    let until = after(self.clock.now(), self.definition.inner.compensation);
                    let reason = format!("`{}` at position {}", seen.name, seen.position);
                    events.push(SagaEvent::CompensationBegun { reason, until });
                }
                Mark::Fails => {}
            }
            Ok(events)
        })
        .await
        .map(drop)
    }
}
