//! One row per customer, from the events of two kinds of aggregates.

use annals::{Event, Projection, ProjectionError, ReadModel, Recorded, Rows};

use crate::domain::credit::CreditEvent;
use crate::domain::order::{CustomerId, OrderEvent};

/// The events of the whole shop. It declares nothing of its own: names and payloads are those of the wrapped types.
#[derive(Event, Clone, Debug)]
pub enum ShopEvent {
    /// Of an order.
    #[event(transparent)]
    Order(OrderEvent),
    /// Of a credit.
    #[event(transparent)]
    Credit(CreditEvent),
}

/// What a customer has ordered and may still charge, in cents.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "customer_statement", key = "customer", per_tenant)]
pub struct Statement {
    /// The customer.
    pub customer: CustomerId,
    /// The number of orders.
    pub orders: i64,
    /// What they cost together.
    pub ordered: i64,
    /// The credit that was granted.
    pub granted: i64,
    /// What was charged to it.
    pub charged: i64,
}

/// Builds the table `customer_statement`.
pub struct CustomerStatement;

impl Projection for CustomerStatement {
    type Event = ShopEvent;
    type Row = Statement;

    fn apply(&self, event: &Recorded<ShopEvent>, rows: &mut Rows<Statement>) -> Result<(), ProjectionError> {
        match &event.event {
            ShopEvent::Order(OrderEvent::Placed { customer, total, .. }) => {
                let statement = row(rows, customer.clone())?;
                statement.orders += 1;
                statement.ordered += total.minor;
            }
            ShopEvent::Order(_) => {}
            ShopEvent::Credit(CreditEvent::Granted { amount }) => {
                row(rows, event.aggregate_id()?)?.granted += amount.minor;
            }
            ShopEvent::Credit(CreditEvent::Charged { amount, .. }) => {
                row(rows, event.aggregate_id()?)?.charged += amount.minor;
            }
        }
        Ok(())
    }
}

/// The row of a customer, made when it is needed for the first time.
fn row(rows: &mut Rows<Statement>, customer: CustomerId) -> Result<&mut Statement, ProjectionError> {
    let key = customer.clone();
    rows.get_or_insert_with(&key, || Statement { customer, orders: 0, ordered: 0, granted: 0, charged: 0 })
}
