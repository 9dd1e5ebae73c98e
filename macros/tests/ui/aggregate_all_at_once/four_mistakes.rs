use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "", id = u64, evnt = OrderEvent, snapshot(every = 0), fold = 0)]
struct Order;

fn main() {}
