use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.placed", crate = annals_eventstore)]
    Placed,
}

fn main() {}
