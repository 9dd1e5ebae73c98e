use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "$placed")]
    Placed,
}

fn shape(event: &OrderEvent) -> &'static str {
    annals_eventstore::Event::shape(event).name
}

fn main() {}
