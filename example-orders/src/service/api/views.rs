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
#[derive(Serialize, ToSchema, Clone)]
pub struct OrderLine {
    /// The id of the order.
    #[schema(value_type = String)]
    pub order_id: OrderId,
    /// The id of its customer.
    #[schema(value_type = String)]
    pub customer: CustomerId,
    /// As the shop knows the customer; nothing if it does not.
    pub customer_name: Option<String>,
    /// How far the order is.
    pub status: Status,
    /// The number of pieces.
    pub pieces: i64,
    /// The total price.
    pub total: Money,
    /// When it was placed.
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
#[derive(Serialize, ToSchema, Clone, Default)]
pub struct OrderPage {
    /// The orders.
    pub orders: Vec<OrderLine>,
    /// `after` of the next part.
    pub next: Option<String>,
    /// `before` of the part before.
    pub previous: Option<String>,
    /// Of a list as of a time: up to where the log was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of_position: Option<i64>,
    /// The list could not be read: this is the last one of this question, and was read so many seconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<u64>,
    /// It has not what `at_least` asks for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub older_than_asked: bool,
}

/// One order with all details.
#[derive(Serialize, ToSchema)]
pub struct OrderDetails {
    /// The id of the order.
    #[schema(value_type = String)]
    pub order_id: OrderId,
    /// The id of its customer.
    #[schema(value_type = String)]
    pub customer: CustomerId,
    /// As the shop knows the customer; nothing if it does not.
    pub customer_name: Option<String>,
    /// How far the order is.
    pub status: Status,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// The total price.
    pub total: Money,
    /// What is paid and not refunded.
    pub paid: Money,
    /// Who has the parcel; nothing before it is shipped.
    pub carrier: Option<String>,
    /// The carrier's number of the parcel.
    pub tracking: Option<String>,
    /// The day (UTC) on which the parcel should arrive, or has arrived.
    #[schema(value_type = Option<String>, format = Date)]
    pub estimated_delivery: Option<Date>,
    /// When it was placed.
    #[schema(value_type = String, format = DateTime)]
    pub placed_at: Timestamp,
    /// When its last event was recorded.
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
    /// In the order in which they happened.
    pub events: Vec<HistoryEvent>,
}

/// One event of an order.
#[derive(Serialize, ToSchema)]
pub struct HistoryEvent {
    /// Its place among the events of the order, from 1.
    pub version: i64,
    /// The stored name: `order.placed`.
    pub event: String,
    /// To the microsecond; as `as_of` it gives the order with this event.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whose key it was; of what a saga does, whose key has begun it. Nothing where the shop did it by itself, such as what is undone.
    pub by: Option<String>,
    /// The request that it came from, or the checkout.
    pub request_id: Option<String>,
    /// What names the event.
    pub event_id: String,
    /// What led to it: the idempotency key of a request, or the id of an event, such as that with which a checkout has begun.
    pub caused_by: Option<String>,
    /// Why, where somebody has said it.
    pub reason: Option<String>,
    /// What the event says, as of today also where it is older: lines, carrier, who signed. Its fields depend on `event`.
    #[schema(value_type = Object)]
    pub data: Value,
    /// What it changed of the status, the customer, the total and what is paid.
    pub changed: Vec<FieldChange>,
}

/// A field before and after an event.
#[derive(Serialize, ToSchema)]
pub struct FieldChange {
    /// `status`, `customer`, `total` or `paid`.
    pub field: String,
    /// Its value before: a text, or an amount; of `paid` the id of the payment and the amount. Nothing if there was none.
    pub before: Option<Value>,
    /// Its value after, as JSON of the same kind.
    pub after: Option<Value>,
}
