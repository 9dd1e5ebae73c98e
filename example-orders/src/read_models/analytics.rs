//! Sales for the owner: one row per day and currency.
//!
//! Here the key of a row is not the order's id. Any event may change any row; the runner loads the rows that a fold reads.
//! There are two tables of one fold: the sales of each shop (`per_tenant`), and those of all shops together.

use annals::{Projection, ProjectionError, ReadModel, Recorded, Rows};
use jiff::civil::Date;
use jiff::tz::Offset;

use crate::domain::money::Currency;
use crate::domain::order::OrderEvent;

/// One day (UTC) of all shops in one currency.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "daily_sales", key("day", "currency"))]
pub struct Day {
    /// The day.
    pub day: Date,
    /// The currency.
    pub currency: String,
    /// The number of orders placed on this day.
    pub orders: i64,
    /// Their total price in cents, and what changes of this day add to it or take from it.
    pub ordered: i64,
    /// Payments minus refunds of this day, in cents.
    pub revenue: i64,
}

/// The same of one shop.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "shop_sales", key("day", "currency"), per_tenant)]
pub struct ShopDay {
    /// The day.
    pub day: Date,
    /// The currency.
    pub currency: String,
    /// The number of orders placed on this day.
    pub orders: i64,
    /// Their total price in cents, and what changes of this day add to it or take from it.
    pub ordered: i64,
    /// Payments minus refunds of this day, in cents.
    pub revenue: i64,
}

/// What one event adds to a day.
struct Sold {
    day: Date,
    currency: Currency,
    orders: i64,
    ordered: i64,
    revenue: i64,
}

impl Sold {
    /// Sums end where their columns do: an event that is stored must not stop the read models of all shops, whatever amount it has.
    fn add_to(&self, orders: &mut i64, ordered: &mut i64, revenue: &mut i64) {
        *orders = orders.saturating_add(self.orders);
        *ordered = ordered.saturating_add(self.ordered);
        *revenue = revenue.saturating_add(self.revenue);
    }
}

/// Builds the table `daily_sales`.
pub struct DailySales;

impl Projection for DailySales {
    type Event = OrderEvent;
    type Row = Day;
    /// The second knows of changed orders.
    const VERSION: u32 = 2;
    /// They are the sales of all shops together.
    const ACROSS_TENANTS: bool = true;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<Day>) -> Result<(), ProjectionError> {
        let Some(sold) = sold(event) else { return Ok(()) };
        let (day, currency) = (sold.day, sold.currency.to_string());
        let key = (day, currency.clone());
        let row = rows.get_or_insert_with(&key, || Day { day, currency, orders: 0, ordered: 0, revenue: 0 })?;
        sold.add_to(&mut row.orders, &mut row.ordered, &mut row.revenue);
        Ok(())
    }
}

/// Builds the table `shop_sales`.
pub struct ShopSales;

impl Projection for ShopSales {
    type Event = OrderEvent;
    type Row = ShopDay;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<ShopDay>) -> Result<(), ProjectionError> {
        let Some(sold) = sold(event) else { return Ok(()) };
        let (day, currency) = (sold.day, sold.currency.to_string());
        let key = (day, currency.clone());
        let row = rows.get_or_insert_with(&key, || ShopDay { day, currency, orders: 0, ordered: 0, revenue: 0 })?;
        sold.add_to(&mut row.orders, &mut row.ordered, &mut row.revenue);
        Ok(())
    }
}

fn sold(event: &Recorded<OrderEvent>) -> Option<Sold> {
    let day = Offset::UTC.to_datetime(event.recorded_at).date();
    let nothing = |currency| Sold { day, currency, orders: 0, ordered: 0, revenue: 0 };
    Some(match &event.event {
        OrderEvent::Placed { total, .. } => Sold { orders: 1, ordered: total.minor, ..nothing(total.currency) },
        OrderEvent::Changed { total, instead_of, .. } => {
            Sold { ordered: total.minor.saturating_sub(instead_of.minor), ..nothing(total.currency) }
        }
        OrderEvent::Paid { amount, .. } => Sold { revenue: amount.minor, ..nothing(amount.currency) },
        OrderEvent::Refunded { amount, .. } => {
            Sold { revenue: amount.minor.saturating_neg(), ..nothing(amount.currency) }
        }
        OrderEvent::Reserved { .. }
        | OrderEvent::Shipped { .. }
        | OrderEvent::Delivered { .. }
        | OrderEvent::Cancelled { .. }
        | OrderEvent::Returned { .. } => return None,
    })
}
