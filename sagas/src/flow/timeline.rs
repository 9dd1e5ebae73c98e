//! What happened in an instance, in order.

use annals_eventstore::{EventStore, EventStoreExt, Position, ReadError, Recorded, StreamId, Tenant};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::event::SagaEvent;
use crate::instance::SagaId;

/// An event of a flow, as its tracker has seen it: the payload of [`SagaEvent::SignalReceived`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Its stored name.
    pub name: String,
    /// Its id.
    pub event_id: String,
    /// The type of the aggregate whose event it is.
    pub aggregate_type: String,
    /// The id of that.
    pub aggregate_id: String,
    /// Its place in the log.
    pub position: Position,
}

impl FlowEvent {
    pub(crate) fn of<E>(name: &str, event: &Recorded<E>) -> Self {
        Self {
            name: name.to_owned(),
            event_id: event.event_id.to_string(),
            aggregate_type: event.stream.aggregate_type().to_owned(),
            aggregate_id: event.stream.aggregate_id().to_owned(),
            position: event.position,
        }
    }
}

/// Everything that was recorded of an instance of a saga or a flow, in order, each with its time. Nothing if there is no such
/// instance.
///
/// # Errors
/// [`ReadError`].
///
/// # Cancel safety
/// Dropping the future is harmless.
pub async fn timeline(
    store: &(impl EventStore + Clone),
    tenant: &Tenant,
    id: &SagaId,
) -> Result<Vec<Recorded<SagaEvent>>, ReadError> {
    let stream = StreamId::new(tenant.clone(), "saga", id)?;
    let stored: Vec<_> = store.load(&stream).try_collect().await?;
    let mut events = Vec::new();
    for event in &stored {
        events.extend(event.typed::<SagaEvent>()?);
    }
    Ok(events)
}
