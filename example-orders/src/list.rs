//! The list of orders for the staff, with few columns, to sort and filter.
//!
//! It is a list per shop (`per_tenant`): the table has a column `tenant`, in its key too, that is filled from the event.

use annals::{Projection, ProjectionError, ReadModel, Recorded, Rows};
use jiff::Timestamp;

use crate::money::Currency;
use crate::order::{CustomerId, OrderEvent, OrderId, Status};

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

impl Projection for OrderList {
    type Event = OrderEvent;
    type Row = Listed;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<Listed>) -> Result<(), ProjectionError> {
        let order_id: OrderId = event.aggregate_id()?;
        let status = match &event.event {
            OrderEvent::Placed { customer, lines, total } => {
                rows.upsert(Listed {
                    order_id,
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
        // An order that was never placed is a fault of the writer of the events: the projection stops and names the event.
        rows.require(&order_id)?.status = status;
        Ok(())
    }
}
