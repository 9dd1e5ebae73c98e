//! An event as a program without a framework reads it: all columns, the payload in its type.

use annals::RecordedEvent;
use uuid::Uuid;

use crate::Fault;
use crate::sample::Paid;

/// All columns of an event.
pub(crate) struct Plain {
    pub(crate) position: i64,
    pub(crate) event_id: Uuid,
    pub(crate) tenant: String,
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: String,
    pub(crate) version: i64,
    pub(crate) event_type: String,
    pub(crate) schema_version: i64,
    pub(crate) paid: Paid,
    pub(crate) metadata: String,
    pub(crate) correlation_id: Option<String>,
    pub(crate) causation_id: Option<String>,
    pub(crate) append_id: Option<Uuid>,
    pub(crate) recorded_at: jiff::Timestamp,
}

/// The amount of the payment. It uses the other columns too, so that the optimiser does not remove them.
pub(crate) fn amount(event: &Plain) -> usize {
    std::hint::black_box((
        event.position,
        event.event_id,
        &event.tenant,
        &event.aggregate_type,
        &event.aggregate_id,
        event.version,
        &event.event_type,
        event.schema_version,
        &event.metadata,
        &event.correlation_id,
        &event.causation_id,
        event.append_id,
        event.recorded_at,
    ));
    usize::try_from(event.paid.amount).unwrap_or_default()
}

/// The same for an event that annals has read.
pub(crate) fn our_amount(event: &RecordedEvent) -> Result<usize, Fault> {
    let paid: Paid = event.payload.read()?;
    std::hint::black_box(event);
    Ok(usize::try_from(paid.amount).unwrap_or_default())
}
