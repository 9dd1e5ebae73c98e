//! Sales for the owner: one row per day and currency.
//!
//! Here the key of a row is not the order's id. Any event may change any row; the runner loads the rows that a fold reads.
//! The sales of all shops are counted together, on purpose: the table is not `per_tenant`.

use annals::{Projection, ProjectionError, ReadModel, Recorded, Rows};
use jiff::civil::Date;
use jiff::tz::Offset;

use crate::domain::money::{Currency, Money};
use crate::domain::order::OrderEvent;

/// One day (UTC) in one currency.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "daily_sales", key("day", "currency"))]
pub struct Day {
    /// The day.
    pub day: Date,
    /// The currency.
    pub currency: String,
    /// The number of orders placed on this day.
    pub orders: i64,
    /// Their total price in cents.
    pub ordered: i64,
    /// Payments minus refunds of this day, in cents.
    pub revenue: i64,
}

/// Builds the table `daily_sales`.
pub struct DailySales;

impl Projection for DailySales {
    type Event = OrderEvent;
    type Row = Day;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<Day>) -> Result<(), ProjectionError> {
        let day = Offset::UTC.to_datetime(event.recorded_at).date();
        match &event.event {
            OrderEvent::Placed { total: Money { minor, currency }, .. } => {
                let day = row(rows, day, *currency)?;
                day.orders += 1;
                day.ordered += minor;
            }
            OrderEvent::Paid { amount: Money { minor, currency }, .. } => row(rows, day, *currency)?.revenue += minor,
            OrderEvent::Refunded { amount: Money { minor, currency }, .. } => {
                row(rows, day, *currency)?.revenue -= minor
            }
            OrderEvent::Reserved { .. }
            | OrderEvent::Shipped { .. }
            | OrderEvent::Delivered { .. }
            | OrderEvent::Cancelled { .. } => {}
        }
        Ok(())
    }
}

/// The row of a day, created on first use.
fn row(rows: &mut Rows<Day>, day: Date, currency: Currency) -> Result<&mut Day, ProjectionError> {
    let currency = currency.to_string();
    let key = (day, currency.clone());
    rows.get_or_insert_with(&key, || Day { day, currency, orders: 0, ordered: 0, revenue: 0 })
}
