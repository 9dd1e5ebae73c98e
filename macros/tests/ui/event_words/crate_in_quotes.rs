use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed", crate = "annals_eventstore")]
struct OrderPlaced;

fn main() {}
