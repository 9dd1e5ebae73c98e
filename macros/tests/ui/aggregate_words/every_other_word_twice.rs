use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "order", id = u64, event = OrderEvent, id = u8, event = u8, snapshot(never), snapshot(never), fold = 1, fold = 1)]
struct Order;

fn main() {}
