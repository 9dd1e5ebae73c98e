//! The projection `sum`: how many events each stream has, and the sum of their numbers.

use annals::{ProjectionError, ReadModel, Recorded, StreamProjection, StreamRow, Tenant};
use serde::{Deserialize, Serialize};

/// The events of the driver.
#[derive(annals::Event, Serialize, Deserialize, Clone)]
pub(crate) enum Driven {
    #[event(name = "drive.counted")]
    Counted { n: i64 },
}

/// The row of a stream.
#[derive(ReadModel, Clone)]
#[read_model(table = "drive_sum", key("tenant", "stream"))]
pub(crate) struct DriveSum {
    tenant: Tenant,
    stream: String,
    /// How many events.
    n: i64,
    /// The sum of their numbers.
    total: i64,
}

pub(crate) struct Sum;

impl StreamProjection for Sum {
    type Event = Driven;
    type Row = DriveSum;
    const AGGREGATES: &'static [&'static str] = &["drive"];

    /// Checks that the event is the next of its stream: none is missed, repeated or out of order.
    fn apply(&self, event: &Recorded<Driven>, row: &mut StreamRow<'_, DriveSum>) -> Result<(), ProjectionError> {
        let (tenant, stream) = row.key().clone();
        let row = row.get_or_insert_with(|| DriveSum { tenant, stream, n: 0, total: 0 });
        if event.version.get() != row.n + 1 {
            return Err(ProjectionError::new(format!("version {} comes after {} events", event.version, row.n)));
        }
        let Driven::Counted { n } = event.event;
        row.n += 1;
        row.total = row.total.checked_add(n).ok_or_else(|| ProjectionError::new("the sum is too large"))?;
        Ok(())
    }
}
