use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed")]
#[serde(tag = "type")]
struct OrderPlaced {
    customer: String,
}

fn main() {}
