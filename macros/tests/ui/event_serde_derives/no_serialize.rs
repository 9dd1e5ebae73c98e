use annals_macros::Event;
use serde::Deserialize;

#[derive(Event, Deserialize)]
#[event(name = "order.placed")]
struct OrderPlaced;

fn main() {}
