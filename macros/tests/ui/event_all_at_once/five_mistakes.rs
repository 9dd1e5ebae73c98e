use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(tag = "type")]
enum OrderEvent {
    #[event(name = "")]
    Placed,
    #[event(name = "order.paid", version = 0)]
    Paid,
    #[event(name = "order.paid")]
    PaidAgain,
    Shipped,
}

fn main() {}
