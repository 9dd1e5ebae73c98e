use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "stock.counted")]
struct StockCounted;

#[derive(Event)]
enum ShopEvent {
    #[event(transparent, name = "shop.stock", version = 2)]
    Stock(StockCounted),
}

fn main() {}
