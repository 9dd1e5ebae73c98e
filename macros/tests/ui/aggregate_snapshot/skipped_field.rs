use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Serialize, Deserialize, Default, Clone)]
#[aggregate(name = "order", id = u64, event = OrderEvent, snapshot(every = 100))]
struct Order {
    #[serde(default, skip)]
    total: u64,
}

fn main() {}
