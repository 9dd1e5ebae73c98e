use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Default, Clone)]
struct Order;

fn main() {}
