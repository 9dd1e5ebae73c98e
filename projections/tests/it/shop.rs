//! The orders of a shop, and two read models of them.

use annals_eventstore::Recorded;
use annals_macros::{Event, ReadModel};
use annals_projections::{Projection, ProjectionError, Rows, text_column};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub(crate) enum OrderEvent {
    #[event(name = "order.placed")]
    Placed { customer: String, cents: i64 },
    #[event(name = "order.paid")]
    Paid,
    #[event(name = "order.cancelled")]
    Cancelled,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Placed,
    Paid,
}

text_column!(Status);

#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "order_list", key = "order_id", index = "status")]
pub(crate) struct OrderRow {
    pub(crate) order_id: String,
    pub(crate) customer: String,
    pub(crate) status: Status,
    pub(crate) cents: i64,
    pub(crate) changed_at: Timestamp,
    #[column(json)]
    pub(crate) history: Vec<String>,
}

pub(crate) struct OrderList;

impl Projection for OrderList {
    type Event = OrderEvent;
    type Row = OrderRow;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<OrderRow>) -> Result<(), ProjectionError> {
        let order_id = event.stream.aggregate_id().to_owned();
        match &event.event {
            OrderEvent::Placed { customer, cents } => {
                if *cents < 0 {
                    return Err(ProjectionError::new("an order cannot cost less than nothing"));
                }
                rows.upsert(OrderRow {
                    order_id,
                    customer: customer.clone(),
                    status: Status::Placed,
                    cents: *cents,
                    changed_at: event.recorded_at,
                    history: vec!["placed".to_owned()],
                });
            }
            OrderEvent::Paid => {
                if let Some(row) = rows.get_mut(&order_id)? {
                    row.status = Status::Paid;
                    row.changed_at = event.recorded_at;
                    row.history.push("paid".to_owned());
                }
            }
            OrderEvent::Cancelled => rows.remove(&order_id),
        }
        Ok(())
    }
}

/// What the paid orders of a customer come to, by status of the order: a key of two columns, and rows that any order may
/// touch.
#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "sales", key("customer", "status"))]
pub(crate) struct SalesRow {
    pub(crate) customer: String,
    pub(crate) status: Status,
    pub(crate) orders: i64,
    pub(crate) cents: i64,
}

pub(crate) struct Sales;

impl Projection for Sales {
    type Event = OrderEvent;
    type Row = SalesRow;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<SalesRow>) -> Result<(), ProjectionError> {
        if let OrderEvent::Placed { customer, cents } = &event.event {
            let key = (customer.clone(), Status::Placed);
            let new = || SalesRow { customer: key.0.clone(), status: key.1, orders: 0, cents: 0 };
            let row = rows.get_or_insert_with(&key, new)?;
            row.orders += 1;
            row.cents += cents;
        }
        Ok(())
    }
}

/// What each customer's orders come to; a row that comes to nothing is removed.
#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "balances", key = "customer")]
pub(crate) struct BalanceRow {
    pub(crate) customer: String,
    pub(crate) cents: i64,
}

pub(crate) struct Balances;

impl Projection for Balances {
    type Event = OrderEvent;
    type Row = BalanceRow;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<BalanceRow>) -> Result<(), ProjectionError> {
        if let OrderEvent::Placed { customer, cents } = &event.event {
            let row = rows.get_or_insert_with(customer, || BalanceRow { customer: customer.clone(), cents: 0 })?;
            row.cents += cents;
            if row.cents == 0 {
                rows.remove(customer);
            }
        }
        Ok(())
    }
}

pub(crate) fn placed(customer: &str, cents: i64) -> OrderEvent {
    OrderEvent::Placed { customer: customer.to_owned(), cents }
}
