// The tills that the examples in the documentation are about.

use annals_eventstore::Recorded;
use annals_macros::{Event, ReadModel};
use annals_projections::{Projection, ProjectionError, Rows};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
pub enum TillEvent {
    #[event(name = "till.sold")]
    Sold { cents: i64 },
}

/// What one till has taken.
#[derive(ReadModel, Clone)]
#[read_model(table = "takings", key = "till")]
pub struct Takings {
    pub till: String,
    pub cents: i64,
}

/// Adds up what each till has taken.
pub struct PerTill;

impl Projection for PerTill {
    type Event = TillEvent;
    type Row = Takings;

    fn apply(&self, event: &Recorded<TillEvent>, rows: &mut Rows<Takings>) -> Result<(), ProjectionError> {
        let till = event.stream.aggregate_id().to_owned();
        let TillEvent::Sold { cents } = event.event;
        rows.get_or_insert_with(&till.clone(), || Takings { till, cents: 0 })?.cents += cents;
        Ok(())
    }
}
