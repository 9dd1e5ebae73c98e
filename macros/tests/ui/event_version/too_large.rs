use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed", version = 4294967296)]
struct OrderPlaced;

fn main() {}
