use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "stock.counted")]
struct StockCounted;

#[derive(Event, Serialize, Deserialize)]
#[event(transparent)]
struct Wrapper(StockCounted);

#[derive(Event)]
#[event(transparent)]
enum ShopEvent {
    #[event(transparent, transparent)]
    Stock(StockCounted),
}

fn main() {}
