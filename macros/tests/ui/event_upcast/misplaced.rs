use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct PlacedV1;

#[derive(Event, Serialize, Deserialize)]
#[event(upcast(PlacedV1))]
enum OrderEvent {
    #[event(name = "order.placed", upcasters = STEPS)]
    Placed,
}

#[derive(Event)]
#[event(upcasters = STEPS)]
enum ShopEvent {
    #[event(transparent, upcast(PlacedV1))]
    Order(OrderEvent),
}

fn main() {}
