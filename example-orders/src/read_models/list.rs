//! The list of orders for the staff, with few columns, to sort and filter.
//!
//! It is a list per shop (`per_tenant`): the table has a column `tenant`, in its key too, that is filled from the event. It has one
//! line per order, so it is a stream projection: its fold gets the line of the event's order, and no other.

use annals::{Aggregate, ProjectionError, ReadModel, Recorded, StreamProjection, StreamRow};
use jiff::Timestamp;

use crate::domain::money::Currency;
use crate::domain::order::{CustomerId, Order, OrderEvent, OrderId, Status};

/// One line of the list.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "order_list", key = "order_id", index("status", "placed_at"), per_tenant)]
pub struct Listed {
    /// The order.
    pub order_id: OrderId,
    /// The customer.
    pub customer: CustomerId,
    /// The status.
    pub status: Status,
    /// The number of pieces.
    pub pieces: i64,
    /// The total price in cents.
    pub total: i64,
    /// The currency.
    pub currency: Currency,
    /// When it was placed.
    pub placed_at: Timestamp,
}

/// Builds the table `order_list`.
pub struct OrderList;

impl StreamProjection for OrderList {
    type Event = OrderEvent;
    type Row = Listed;
    const AGGREGATES: &'static [&'static str] = &[Order::TYPE];

    fn apply(&self, event: &Recorded<OrderEvent>, row: &mut StreamRow<Listed>) -> Result<(), ProjectionError> {
        let status = match &event.event {
            OrderEvent::Placed { customer, lines, total } => {
                row.insert(Listed {
                    order_id: row.key().clone(),
                    customer: customer.clone(),
                    status: Status::Placed,
                    pieces: lines.iter().map(|line| i64::from(line.quantity)).sum(),
                    total: total.minor,
                    currency: total.currency,
                    placed_at: event.recorded_at,
                });
                return Ok(());
            }
            OrderEvent::Paid { .. } => Status::Paid,
            OrderEvent::Reserved { .. } => Status::Reserved,
            OrderEvent::Shipped { .. } => Status::Shipped,
            OrderEvent::Delivered { .. } => Status::Delivered,
            OrderEvent::Cancelled { .. } => Status::Cancelled,
            OrderEvent::Refunded { .. } => return Ok(()),
        };
        // An order that was never placed is a fault of the writer of the events: the order is set aside, and the event is named.
        row.require()?.status = status;
        Ok(())
    }
}
