use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct PlacedV1 {
    item: String,
}

#[derive(Serialize, Deserialize)]
struct Placed {
    items: Vec<String>,
}

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.placed", version = 2, upcast(PlacedV1))]
    Placed(Placed),
}

fn main() {}
