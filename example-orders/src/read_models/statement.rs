//! One row per customer and currency, from the events of two kinds of aggregates.

use annals::{Event, Projection, ProjectionError, ReadModel, Recorded, Rows};

use crate::domain::credit::CreditEvent;
use crate::domain::money::Currency;
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

/// What a customer has ordered and may still charge in one currency, in cents.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "customer_statement", key("customer", "currency"), per_tenant)]
pub struct Statement {
    /// The customer.
    pub customer: CustomerId,
    /// The currency.
    pub currency: Currency,
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
    /// The second knows of changed orders, the third has a row per currency.
    const VERSION: u32 = 3;

    fn apply(&self, event: &Recorded<ShopEvent>, rows: &mut Rows<Statement>) -> Result<(), ProjectionError> {
        match &event.event {
            ShopEvent::Order(OrderEvent::Placed { customer, total, .. }) => {
                let statement = row(rows, customer.clone(), total.currency)?;
                statement.orders += 1;
                add(&mut statement.ordered, total.minor);
            }
            ShopEvent::Order(OrderEvent::Changed { customer, total, instead_of, .. }) => {
                let statement = row(rows, customer.clone(), total.currency)?;
                add(&mut statement.ordered, total.minor.saturating_sub(instead_of.minor));
            }
            ShopEvent::Order(_) => {}
            ShopEvent::Credit(CreditEvent::Granted { amount }) => {
                add(&mut row(rows, event.aggregate_id()?, amount.currency)?.granted, amount.minor);
            }
            ShopEvent::Credit(CreditEvent::Charged { amount, .. }) => {
                add(&mut row(rows, event.aggregate_id()?, amount.currency)?.charged, amount.minor);
            }
        }
        Ok(())
    }
}

/// As far as the column goes: no amount that is stored stops the read model.
fn add(sum: &mut i64, amount: i64) {
    *sum = sum.saturating_add(amount);
}

/// The row of a customer and a currency, made when it is needed for the first time.
fn row(
    rows: &mut Rows<Statement>,
    customer: CustomerId,
    currency: Currency,
) -> Result<&mut Statement, ProjectionError> {
    let key = (customer.clone(), currency);
    rows.get_or_insert_with(&key, || Statement { customer, currency, orders: 0, ordered: 0, granted: 0, charged: 0 })
}
