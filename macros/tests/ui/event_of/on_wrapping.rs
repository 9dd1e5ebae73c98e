use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "placed")]
struct Placed;

#[derive(Event)]
#[event(of = "order")]
enum ShopEvent {
    #[event(transparent)]
    Placed(Placed),
}

fn main() {}
