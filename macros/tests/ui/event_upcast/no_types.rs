use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.placed", version = 2, upcast())]
    Placed,
    #[event(name = "order.paid", version = 2, upcast = "PaidV1")]
    Paid,
}

fn main() {}
