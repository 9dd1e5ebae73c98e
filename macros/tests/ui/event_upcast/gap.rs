use annals_eventstore::{JsonUpcaster, StepError};
use annals_macros::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Event, Serialize, Deserialize)]
#[event(upcasters = STEPS)]
enum OrderEvent {
    #[event(name = "order.placed", version = 3)]
    Placed,
}

const STEPS: &[JsonUpcaster] = &[JsonUpcaster::change(("order.placed", 1), same)];

fn same(payload: Value) -> Result<Value, StepError> {
    Ok(payload)
}

fn main() {}
