use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed")]
#[event(name = "order.made")]
struct OrderPlaced;

fn main() {}
