use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

fn main() {}
