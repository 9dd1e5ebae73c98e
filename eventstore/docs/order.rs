// The order that the examples in the documentation are about.

use annals_eventstore::{Decide, Evolve};
use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

annals_eventstore::text_id! {
    /// What names an order.
    pub struct OrderId;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum OrderEvent {
    #[event(name = "order.placed")]
    Placed { total: u64 },
    #[event(name = "order.paid")]
    Paid { amount: u64 },
}

#[derive(Aggregate, Serialize, Clone, Debug, Default)]
#[aggregate(name = "order", id = OrderId, event = OrderEvent)]
pub struct Order {
    pub due: Option<u64>,
    pub paid: bool,
}

impl Evolve for Order {
    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { total } => self.due = Some(*total),
            OrderEvent::Paid { .. } => self.paid = true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OrderError {
    NotPlaced,
    WrongAmount { due: u64 },
}

impl std::fmt::Display for OrderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPlaced => f.write_str("the order was not placed"),
            Self::WrongAmount { due } => write!(f, "{due} are due"),
        }
    }
}

impl std::error::Error for OrderError {}

impl Order {
    pub fn place(&self, total: u64) -> Result<Option<OrderEvent>, OrderError> {
        Ok(self.due.is_none().then_some(OrderEvent::Placed { total }))
    }

    pub fn pay(&self, amount: u64) -> Result<Option<OrderEvent>, OrderError> {
        match self.due {
            None => Err(OrderError::NotPlaced),
            Some(due) if due != amount => Err(OrderError::WrongAmount { due }),
            Some(_) => Ok((!self.paid).then_some(OrderEvent::Paid { amount })),
        }
    }
}

/// The command that the customer pays.
#[derive(Serialize)]
pub struct Pay {
    pub amount: u64,
}

impl Decide<Pay> for Order {
    type Rejection = OrderError;

    fn decide(&self, command: &Pay) -> Result<Vec<OrderEvent>, OrderError> {
        self.pay(command.amount).map(|event| event.into_iter().collect())
    }
}
