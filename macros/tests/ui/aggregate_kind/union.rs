use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Clone, Copy)]
#[aggregate(name = "order", id = u64, event = OrderEvent)]
union Order {
    new: u32,
}

impl Default for Order {
    fn default() -> Self {
        Self { new: 0 }
    }
}

fn main() {}
