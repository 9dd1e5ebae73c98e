use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed(u32),
    #[event(name = "order.paid")]
    #[serde(skip_deserializing)]
    Paid,
}

fn main() {}
