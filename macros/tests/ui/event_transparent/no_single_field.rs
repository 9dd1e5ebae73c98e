use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "stock.counted")]
struct StockCounted;

#[derive(Event)]
enum ShopEvent {
    #[event(transparent)]
    Two(StockCounted, StockCounted),
    #[event(transparent)]
    Named { stock: StockCounted },
    #[event(transparent)]
    Nothing,
}

fn main() {}
