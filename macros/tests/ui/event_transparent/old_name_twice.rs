use annals_eventstore::JsonUpcaster;
use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "stock.counted")]
struct StockCounted;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "goods.counted", upcasters = STEPS)]
struct GoodsCounted;

const STEPS: &[JsonUpcaster] = &[JsonUpcaster::rename(("stock.counted", 1), ("goods.counted", 1))];

#[derive(Event)]
enum ShopEvent {
    #[event(transparent)]
    Stock(StockCounted),
    #[event(transparent)]
    Goods(GoodsCounted),
}

fn main() {}
