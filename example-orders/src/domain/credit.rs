//! The credit of a customer: a second aggregate, for commands that change two.

use annals::{Aggregate, Event, Evolve};
use serde::{Deserialize, Serialize};

use crate::domain::money::Money;
use crate::domain::order::{CustomerId, OrderId};

/// The events of a customer's credit.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum CreditEvent {
    /// The shop granted more credit.
    #[event(name = "credit.granted")]
    Granted {
        /// The amount.
        amount: Money,
    },
    /// An order was charged to the credit.
    #[event(name = "credit.charged")]
    Charged {
        /// The order.
        order: OrderId,
        /// Its total price.
        amount: Money,
    },
}

/// The state that decisions need.
#[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "credit", id = CustomerId, event = CreditEvent)]
pub struct Credit {
    /// What is left of it; none before the first grant.
    pub left: Option<Money>,
}

impl Evolve for Credit {
    fn evolve(&mut self, event: &CreditEvent) {
        match event {
            CreditEvent::Granted { amount } => {
                self.left = self.left.map_or(Some(*amount), |left| left.plus(*amount));
            }
            CreditEvent::Charged { amount, .. } => {
                self.left = self.left.and_then(|left| left.plus(amount.negated()));
            }
        }
    }
}

/// Why a credit rejects a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditError {
    /// There is no credit.
    #[error("the customer has no credit")]
    None,
    /// The granted amount has another currency than the credit, or the sum overflows.
    #[error("{amount} cannot be added to the credit")]
    CannotAdd {
        /// The granted amount.
        amount: Money,
    },
    /// The credit is of another currency, or smaller.
    #[error("the order costs {total}, and {left} of the credit is left")]
    TooLittle {
        /// The total price of the order.
        total: Money,
        /// What is left.
        left: Money,
    },
}

impl Credit {
    /// Grants more credit.
    pub fn grant(&self, amount: Money) -> Result<CreditEvent, CreditError> {
        match self.left.map_or(Some(amount), |left| left.plus(amount)) {
            Some(_) => Ok(CreditEvent::Granted { amount }),
            None => Err(CreditError::CannotAdd { amount }),
        }
    }

    /// Charges an order to the credit.
    pub fn charge(&self, order: OrderId, total: Money) -> Result<CreditEvent, CreditError> {
        let left = self.left.ok_or(CreditError::None)?;
        if left.currency != total.currency || left.minor < total.minor {
            return Err(CreditError::TooLittle { total, left });
        }
        Ok(CreditEvent::Charged { order, amount: total })
    }
}
