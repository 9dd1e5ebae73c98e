use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct PlacedV1;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed", upcast(PlacedV1))]
struct Placed;

fn main() {}
