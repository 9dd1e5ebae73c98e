//! The order as a customer sees it: one row per order, with all details.
//!
//! A projection is a fold: it takes an event and the current rows, and changes the rows. It has no SQL and no clock.

use annals::{Projection, ProjectionError, ReadModel, Recorded, Rows};
use jiff::Timestamp;

use crate::domain::money::Currency;
use crate::domain::order::{CustomerId, Line, OrderEvent, OrderId, Status};

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
    /// When the status last changed.
    pub changed_at: Timestamp,
}

/// Builds the table `order_detail`.
pub struct OrderDetail;

impl Projection for OrderDetail {
    type Event = OrderEvent;
    type Row = Detail;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<Detail>) -> Result<(), ProjectionError> {
        let order_id: OrderId = event.aggregate_id()?;
        if let OrderEvent::Placed { customer, lines, total } = &event.event {
            rows.upsert(Detail {
                order_id,
                customer: customer.clone(),
                status: Status::Placed,
                lines: lines.clone(),
                total: total.minor,
                currency: total.currency,
                paid: 0,
                carrier: None,
                tracking: None,
                changed_at: event.recorded_at,
            });
            return Ok(());
        }
        let order = rows.require(&order_id)?;
        order.changed_at = event.recorded_at;
        match &event.event {
            OrderEvent::Placed { .. } => {}
            OrderEvent::Paid { amount, .. } => {
                order.status = Status::Paid;
                order.paid = amount.minor;
            }
            OrderEvent::Reserved { .. } => order.status = Status::Reserved,
            OrderEvent::Shipped { carrier, tracking } => {
                order.status = Status::Shipped;
                order.carrier = Some(carrier.clone());
                order.tracking = Some(tracking.clone());
            }
            OrderEvent::Delivered { .. } => order.status = Status::Delivered,
            OrderEvent::Cancelled { .. } => order.status = Status::Cancelled,
            OrderEvent::Refunded { .. } => order.paid = 0,
        }
        Ok(())
    }
}
