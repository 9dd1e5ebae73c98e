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
}

/// Builds the table `customers`.
pub struct Customers;

impl StreamProjection for Customers {
    type Event = CustomerEvent;
    type Row = CustomerRow;
    const AGGREGATES: &'static [&'static str] = &[Customer::TYPE];

    fn apply(&self, event: &Recorded<CustomerEvent>, row: &mut StreamRow<CustomerRow>) -> Result<(), ProjectionError> {
        match &event.event {
            CustomerEvent::Registered { name } => {
                let customer = row.key().clone();
                row.insert(CustomerRow { customer, name: name.clone(), since: event.recorded_at });
            }
            CustomerEvent::Renamed { name } => row.require()?.name = name.clone(),
        }
        Ok(())
    }
}
