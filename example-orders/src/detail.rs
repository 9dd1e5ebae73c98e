//! What a customer sees of an order: one row per order, with everything on it.
//!
//! A projection is a fold: an event and the rows so far give the next rows. There is no SQL and no clock in it.

use annals::{Projection, ProjectionError, ReadModel, Recorded, Rows};
use jiff::Timestamp;

use crate::money::Currency;
use crate::order::{CustomerId, Line, OrderEvent, OrderId, Status};

/// An order as its customer sees it.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "order_detail", key = "order_id", index = "customer")]
pub struct Detail {
    /// Which.
    pub order_id: OrderId,
    /// Whose.
    pub customer: CustomerId,
    /// Where it stands.
    pub status: Status,
    /// What is in it.
    #[column(json)]
    pub lines: Vec<Line>,
    /// What it costs, in cents.
    pub total: i64,
    /// Of what.
    pub currency: Currency,
    /// What was paid and not given back, in cents.
    pub paid: i64,
    /// With whom it travels.
    pub carrier: Option<String>,
    /// Under which number.
    pub tracking: Option<String>,
    /// Since when it is what it is.
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
        let Some(order) = rows.get_mut(&order_id)? else { return Ok(()) };
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
