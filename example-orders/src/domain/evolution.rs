//! How the events of an order have changed, and how old ones are read.
//!
//! What is stored never changes, so every shape that was ever stored must be readable for good. `order.placed` is in its third
//! generation: each earlier one has a type here, and a conversion to the next. `order.rs` lists the types, and all that reads
//! events (the orders, the read models, subscriptions) gets the present one only. The files in `tests/corpus` are payloads
//! as stores hold them; `tests.rs` compares them with `events.lock`, so that no shape changes by accident. The scene
//! `-- evolution` stores and reads them: `generations.rs`.

use annals::evolution::JsonUpcaster;
use serde::Deserialize;

use crate::domain::money::Money;
use crate::domain::order::{CustomerId, Line, OrderError, OrderEvent, total_of};

/// The first: one product per order, and prices in euro.
#[derive(Deserialize)]
pub struct PlacedV1 {
    customer: CustomerId,
    product: String,
    quantity: u32,
    price_in_cents: i64,
}

/// The second: several products, and prices with a currency.
#[derive(Deserialize)]
pub struct PlacedV2 {
    customer: CustomerId,
    lines: Vec<Line>,
}

impl From<PlacedV1> for PlacedV2 {
    fn from(PlacedV1 { customer, product, quantity, price_in_cents }: PlacedV1) -> Self {
        let price = Money::euro_cents(price_in_cents);
        Self { customer, lines: vec![Line { product, quantity, price }] }
    }
}

/// The third has the total price in it. Those who ordered before saw the sum of the lines; if they have none, the event cannot be
/// read, and the error names it.
impl TryFrom<PlacedV2> for OrderEvent {
    type Error = OrderError;

    fn try_from(PlacedV2 { customer, lines }: PlacedV2) -> Result<Self, OrderError> {
        Ok(Self::Placed { customer, total: total_of(&lines)?, lines })
    }
}

/// What types cannot say: an event that had another name.
pub const RENAMED: &[JsonUpcaster] = &[JsonUpcaster::rename(("order.withdrawn", 1), ("order.cancelled", 1))];
