use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "order", id = u64, event = OrderEvent, shapshot(every = 10))]
struct Order;

/// The implementation of the fold causes no second message.
impl annals_eventstore::Evolve for Order {
    fn evolve(&mut self, _: &OrderEvent) {}
}

fn main() {}
