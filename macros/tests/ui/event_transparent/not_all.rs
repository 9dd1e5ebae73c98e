use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "stock.counted")]
struct StockCounted;

#[derive(Event)]
enum ShopEvent {
    #[event(transparent)]
    Stock(StockCounted),
    #[event(name = "shop.opened")]
    Opened,
    Closed,
}

fn main() {}
