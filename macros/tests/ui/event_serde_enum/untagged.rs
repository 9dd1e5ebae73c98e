use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(untagged)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

fn main() {}
