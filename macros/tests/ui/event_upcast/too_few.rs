use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct PlacedV1;

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event(name = "order.placed", version = 3, upcast(PlacedV1))]
    Placed,
}

fn main() {}
