use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
#[aggregate(name = "order", id = u64, event = OrderEvent, snapshot(after = "order.palced"))]
struct Order;

fn main() {}
