use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
    #[event(name = "order.paid")]
    Paid,
    #[event(name = "order.placed", version = 2)]
    PlacedAgain,
}

fn main() {}
