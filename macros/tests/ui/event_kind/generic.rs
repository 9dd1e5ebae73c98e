use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent<T> {
    #[event(name = "order.placed")]
    Placed(T),
}

/// The use of a refused type causes no second message.
fn known<E: annals_eventstore::Event>() {}

fn uses() {
    known::<OrderEvent<u32>>();
}

fn main() {}
