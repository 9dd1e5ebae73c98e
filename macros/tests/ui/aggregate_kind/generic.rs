use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "order", id = u64, event = OrderEvent)]
struct Order<T> {
    items: Vec<T>,
}

/// The use of a refused type causes no second message.
fn known<A: annals_eventstore::Aggregate>() {}

fn uses() {
    known::<Order<u32>>();
}

fn main() {}
