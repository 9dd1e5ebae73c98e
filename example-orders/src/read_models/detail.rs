//! The order as a customer sees it: one row per order, with all details.
//!
//! A projection is a fold: it takes an event and the current rows, and changes the rows. It has no SQL and no clock. Here the fold
//! gets the row of the event's order alone, so that the row as of any moment is found by reading the events of that order.

use annals::{Aggregate, ProjectionError, ReadModel, Recorded, StreamProjection, StreamRow};
use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan};

use crate::domain::money::Currency;
use crate::domain::order::{CustomerId, Line, Order, OrderEvent, OrderId, Status};

/// The details of one order.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "order_detail", key = "order_id", index = "customer", per_tenant)]
pub struct Detail {
    /// The order.
    pub order_id: OrderId,
    /// The customer.
    pub customer: CustomerId,
    /// The status.
    pub status: Status,
    /// What was ordered.
    #[column(json)]
    pub lines: Vec<Line>,
    /// The total price in cents.
    pub total: i64,
    /// The currency.
    pub currency: Currency,
    /// What was paid and not refunded, in cents.
    pub paid: i64,
    /// The carrier.
    pub carrier: Option<String>,
    /// The carrier's number of the parcel.
    pub tracking: Option<String>,
    /// The day (UTC) on which the parcel should arrive, or has arrived; none for an order that does not.
    pub delivery: Option<Date>,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When anything last changed.
    pub changed_at: Timestamp,
}

/// Builds the table `order_detail`.
pub struct OrderDetail;

impl StreamProjection for OrderDetail {
    type Event = OrderEvent;
    type Row = Detail;
    const AGGREGATES: &'static [&'static str] = &[Order::TYPE];
    /// The second has the columns `delivery` and `placed_at`, and knows of changes and returns.
    const VERSION: u32 = 2;

    fn apply(&self, event: &Recorded<OrderEvent>, row: &mut StreamRow<Detail>) -> Result<(), ProjectionError> {
        let at = event.recorded_at;
        if let OrderEvent::Placed { customer, lines, total } = &event.event {
            row.insert(Detail {
                order_id: row.key().clone(),
                customer: customer.clone(),
                status: Status::Placed,
                lines: lines.clone(),
                total: total.minor,
                currency: total.currency,
                paid: 0,
                carrier: None,
                tracking: None,
                delivery: days_after(at, 7),
                placed_at: at,
                changed_at: at,
            });
            return Ok(());
        }
        let order = row.require()?;
        order.changed_at = at;
        match &event.event {
            OrderEvent::Placed { .. } => {}
            OrderEvent::Changed { lines, total, .. } => {
                order.lines = lines.clone();
                order.total = total.minor;
            }
            OrderEvent::Paid { amount, .. } => {
                order.status = Status::Paid;
                order.paid = amount.minor;
                order.delivery = days_after(at, 5);
            }
            OrderEvent::Reserved { .. } => order.status = Status::Reserved,
            OrderEvent::Shipped { carrier, tracking } => {
                order.status = Status::Shipped;
                order.carrier = Some(carrier.clone());
                order.tracking = Some(tracking.clone());
                order.delivery = days_after(at, 2);
            }
            OrderEvent::Delivered { .. } => {
                order.status = Status::Delivered;
                order.delivery = days_after(at, 0);
            }
            OrderEvent::Cancelled { .. } => {
                order.status = Status::Cancelled;
                order.delivery = None;
            }
            OrderEvent::Returned { .. } => order.status = Status::Returned,
            OrderEvent::Refunded { .. } => order.paid = 0,
        }
        Ok(())
    }
}

/// So many days later; none at the end of the calendar.
fn days_after(time: Timestamp, days: i64) -> Option<Date> {
    Offset::UTC.to_datetime(time).date().checked_add(days.days()).ok()
}
