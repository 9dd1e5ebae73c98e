use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
    #[event(version = 2)]
    Paid,
}

fn main() {}
