use annals_eventstore::JsonUpcaster;
use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct PlacedV1;

#[derive(Event, Serialize, Deserialize)]
#[event(upcasters = STEPS)]
enum OrderEvent {
    #[event(name = "order.placed", version = 2, upcast(PlacedV1))]
    Placed,
}

impl From<PlacedV1> for OrderEvent {
    fn from(_: PlacedV1) -> Self {
        Self::Placed
    }
}

const STEPS: &[JsonUpcaster] = &[JsonUpcaster::drop(("order.placed", 1))];

fn main() {}
