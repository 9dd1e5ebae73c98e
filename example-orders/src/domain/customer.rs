//! A customer: the name that the staff sees beside an order. A third aggregate, as small as they get.

use annals::{Aggregate, Decide, Event, Evolve};
use serde::{Deserialize, Serialize};

use crate::domain::order::CustomerId;

/// The events of a customer.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum CustomerEvent {
    /// The customer is known to the shop.
    #[event(name = "customer.registered")]
    Registered {
        /// The name, as the customer writes it.
        name: String,
    },
    /// The customer has another name now.
    #[event(name = "customer.renamed")]
    Renamed {
        /// The name.
        name: String,
    },
}

/// The state that decisions need.
#[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "customer", id = CustomerId, event = CustomerEvent)]
pub struct Customer {
    /// The name; none before the customer is registered.
    pub name: Option<String>,
}

impl Evolve for Customer {
    fn evolve(&mut self, event: &CustomerEvent) {
        match event {
            CustomerEvent::Registered { name } | CustomerEvent::Renamed { name } => self.name = Some(name.clone()),
        }
    }
}

/// Gives a customer a name, for the first time or another one.
#[derive(Serialize, Clone, Debug)]
pub struct Name {
    /// The name.
    pub name: String,
}

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has from 1 to {LONGEST_NAME} characters")]
pub struct NoName;

/// The most characters of a name.
pub const LONGEST_NAME: usize = 100;

impl Decide<Name> for Customer {
    type Rejection = NoName;

    /// The name that the customer has already leads to no event.
    fn decide(&self, Name { name }: &Name) -> Result<Vec<CustomerEvent>, NoName> {
        let name = name.trim().to_owned();
        match &self.name {
            _ if name.is_empty() || name.chars().count() > LONGEST_NAME => Err(NoName),
            None => Ok(vec![CustomerEvent::Registered { name }]),
            Some(same) if *same == name => Ok(Vec::new()),
            Some(_) => Ok(vec![CustomerEvent::Renamed { name }]),
        }
    }
}
