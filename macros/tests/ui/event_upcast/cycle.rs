use annals_eventstore::JsonUpcaster;
use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed", upcasters = STEPS)]
struct Placed;

const STEPS: &[JsonUpcaster] = &[
    JsonUpcaster::rename(("order.made", 1), ("order.created", 1)),
    JsonUpcaster::rename(("order.created", 1), ("order.made", 1)),
];

fn main() {}
