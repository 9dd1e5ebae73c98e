//! The customers of a shop by name: what a list of orders shows beside the id.

use annals::{Aggregate, ProjectionError, ReadModel, Recorded, StreamProjection, StreamRow};
use jiff::Timestamp;

use crate::domain::customer::{Customer, CustomerEvent};
use crate::domain::order::CustomerId;

/// One customer.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "customers", key = "customer", per_tenant)]
pub struct CustomerRow {
    /// The customer.
    pub customer: CustomerId,
    /// The name.
    pub name: String,
    /// Since when the shop knows the customer.
    pub since: Timestamp,
    /// What a search looks through: the name in small letters.
    pub search: String,
}

/// Builds the table `customers`.
pub struct Customers;

impl StreamProjection for Customers {
    type Event = CustomerEvent;
    type Row = CustomerRow;
    /// The second has the column `search`.
    const VERSION: u32 = 2;
    const AGGREGATES: &'static [&'static str] = &[Customer::TYPE];

    fn apply(&self, event: &Recorded<CustomerEvent>, row: &mut StreamRow<CustomerRow>) -> Result<(), ProjectionError> {
        match &event.event {
            CustomerEvent::Registered { name } => {
                let (customer, search) = (row.key().clone(), name.to_lowercase());
                row.insert(CustomerRow { customer, name: name.clone(), since: event.recorded_at, search });
            }
            CustomerEvent::Renamed { name } => {
                let customer = row.require()?;
                (customer.name, customer.search) = (name.clone(), name.to_lowercase());
            }
        }
        Ok(())
    }
}
