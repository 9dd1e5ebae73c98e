//! What reads answer.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::money::Money;
use crate::domain::order::{CustomerId, Line, OrderId, Status};
use crate::read_models::detail::Detail;
use crate::read_models::list::Listed;

/// One line of a list of orders.
#[derive(Serialize, ToSchema)]
pub struct OrderLine {
    #[schema(value_type = String)]
    pub order_id: OrderId,
    #[schema(value_type = String)]
    pub customer: CustomerId,
    /// As the shop knows the customer; nothing if it does not.
    pub customer_name: Option<String>,
    pub status: Status,
    /// The number of pieces.
    pub pieces: i64,
    pub total: Money,
    #[schema(value_type = String, format = DateTime)]
    pub placed_at: Timestamp,
}

impl OrderLine {
    pub fn of(row: Listed, customer_name: Option<String>) -> Self {
        let Listed { order_id, customer, status, pieces, total, currency, placed_at, search: _ } = row;
        Self { order_id, customer, customer_name, status, pieces, total: Money { minor: total, currency }, placed_at }
    }
}

/// A part of a list of orders. Where nothing follows or precedes, there is no cursor.
#[derive(Serialize, ToSchema)]
pub struct OrderPage {
    pub orders: Vec<OrderLine>,
    /// `after` of the next part.
    pub next: Option<String>,
    /// `before` of the part before.
    pub previous: Option<String>,
    /// Of a list as of a time: up to where the log was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of_position: Option<i64>,
}

/// One order with all details.
#[derive(Serialize, ToSchema)]
pub struct OrderDetails {
    #[schema(value_type = String)]
    pub order_id: OrderId,
    #[schema(value_type = String)]
    pub customer: CustomerId,
    /// As the shop knows the customer; nothing if it does not.
    pub customer_name: Option<String>,
    pub status: Status,
    pub lines: Vec<Line>,
    pub total: Money,
    /// What is paid and not refunded.
    pub paid: Money,
    pub carrier: Option<String>,
    pub tracking: Option<String>,
    /// The day (UTC) on which the parcel should arrive, or has arrived.
    #[schema(value_type = Option<String>, format = Date)]
    pub estimated_delivery: Option<Date>,
    #[schema(value_type = String, format = DateTime)]
    pub placed_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: Timestamp,
}

impl OrderDetails {
    pub fn of(row: Detail, customer_name: Option<String>) -> Self {
        let in_currency = |minor| Money { minor, currency: row.currency };
        Self {
            customer_name,
            total: in_currency(row.total),
            paid: in_currency(row.paid),
            order_id: row.order_id,
            customer: row.customer,
            status: row.status,
            lines: row.lines,
            carrier: row.carrier,
            tracking: row.tracking,
            estimated_delivery: row.delivery,
            placed_at: row.placed_at,
            changed_at: row.changed_at,
        }
    }
}

/// All that has happened to an order.
#[derive(Serialize, ToSchema)]
pub struct OrderHistory {
    pub events: Vec<HistoryEvent>,
}

/// One event of an order.
#[derive(Serialize, ToSchema)]
pub struct HistoryEvent {
    pub version: i64,
    /// The stored name: `order.placed`.
    pub event: String,
    /// To the microsecond; as `as_of` it gives the order with this event.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whose key it was.
    pub by: Option<String>,
    /// The request that it came from.
    pub request_id: Option<String>,
    /// What it changed.
    pub changed: Vec<FieldChange>,
}

/// A field before and after an event.
#[derive(Serialize, ToSchema)]
pub struct FieldChange {
    pub field: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}
