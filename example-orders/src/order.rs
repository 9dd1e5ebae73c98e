//! The order itself: what can happen to it, what state follows from that, and which rules decide.
//!
//! This is the whole domain, on one page, without any I/O. Read it from top to bottom: events, state, `evolve`, then
//! one decision after the other. A decision looks at the state and gives the events that happen, or says no.

use std::fmt;

use annals::{Aggregate, Event, Evolve, text_id};
use serde::{Deserialize, Serialize};

use crate::money::Money;

text_id! {
    /// The number on the confirmation mail, `o-1001` say.
    pub struct OrderId;
}

text_id! {
    /// Who ordered.
    pub struct CustomerId;
}

text_id! {
    /// What the payment service calls a payment.
    pub struct PaymentId;
}

// All of them stand as plain text in the columns of read models.
annals::projections::text_column!(Status);

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What.
    pub product: String,
    /// How many.
    pub quantity: u32,
    /// The price of one.
    pub price: Money,
}

/// What can happen to an order. The names are stored and never change; the Rust names may.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum OrderEvent {
    /// A customer ordered.
    #[event(name = "order.placed")]
    Placed {
        /// Who.
        customer: CustomerId,
        /// What.
        lines: Vec<Line>,
        /// For how much: what the customer saw, not what prices are later.
        total: Money,
    },
    /// The payment service confirmed a payment.
    #[event(name = "order.paid")]
    Paid {
        /// Its id there.
        payment: PaymentId,
        /// How much.
        amount: Money,
    },
    /// A warehouse put everything aside.
    #[event(name = "order.reserved")]
    Reserved {
        /// Which.
        warehouse: String,
    },
    /// The parcel left.
    #[event(name = "order.shipped")]
    Shipped {
        /// With whom.
        carrier: String,
        /// Their number.
        tracking: String,
    },
    /// The parcel arrived.
    #[event(name = "order.delivered")]
    Delivered {
        /// Who took it.
        signed_by: String,
    },
    /// The customer changed their mind.
    #[event(name = "order.cancelled")]
    Cancelled {
        /// Why.
        reason: String,
    },
    /// What was paid went back.
    #[event(name = "order.refunded")]
    Refunded {
        /// The payment that is made good.
        payment: PaymentId,
        /// How much.
        amount: Money,
    },
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// There is no such order.
    #[default]
    Unknown,
    /// Ordered, not paid.
    Placed,
    /// Paid.
    Paid,
    /// Put aside in a warehouse.
    Reserved,
    /// On its way.
    Shipped,
    /// There.
    Delivered,
    /// Called off.
    Cancelled,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Reserved => "reserved",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        })
    }
}

/// The state that decisions need; everything else is for read models.
#[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "order", id = OrderId, event = OrderEvent, snapshot(every = 100))]
pub struct Order {
    /// Where it stands.
    pub status: Status,
    /// What it costs.
    pub total: Option<Money>,
    /// What was paid, and by which payment.
    pub paid: Option<(PaymentId, Money)>,
}

impl Evolve for Order {
    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { total, .. } => {
                self.status = Status::Placed;
                self.total = Some(*total);
            }
            OrderEvent::Paid { payment, amount } => {
                self.status = Status::Paid;
                self.paid = Some((payment.clone(), *amount));
            }
            OrderEvent::Reserved { .. } => self.status = Status::Reserved,
            OrderEvent::Shipped { .. } => self.status = Status::Shipped,
            OrderEvent::Delivered { .. } => self.status = Status::Delivered,
            OrderEvent::Cancelled { .. } => self.status = Status::Cancelled,
            OrderEvent::Refunded { .. } => self.paid = None,
        }
    }
}

/// Why an order says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The order was placed before.
    #[error("the order is placed already")]
    PlacedAlready,
    /// There is nothing in it.
    #[error("an order needs at least one line, with at least one piece each")]
    Empty,
    /// The lines have several currencies, or cost more than can be counted.
    #[error("the lines do not add up to an amount of one currency")]
    NoTotal,
    /// The amount is not what the order costs.
    #[error("the order costs {expected}, not {offered}")]
    WrongAmount {
        /// What it costs.
        expected: Money,
        /// What was offered.
        offered: Money,
    },
    /// The step does not fit where the order stands.
    #[error("an order that is {status} cannot be {step}")]
    NotNow {
        /// The step that was asked for.
        step: &'static str,
        /// Where the order stands.
        status: Status,
    },
}

impl Order {
    /// Places the order.
    pub fn place(&self, customer: CustomerId, lines: Vec<Line>) -> Result<OrderEvent, OrderError> {
        if self.status != Status::Unknown {
            return Err(OrderError::PlacedAlready);
        }
        if lines.is_empty() || lines.iter().any(|line| line.quantity == 0) {
            return Err(OrderError::Empty);
        }
        let mut total = Money { minor: 0, currency: lines[0].price.currency };
        for line in &lines {
            let price = line.price.times(line.quantity).ok_or(OrderError::NoTotal)?;
            total = total.plus(price).ok_or(OrderError::NoTotal)?;
        }
        Ok(OrderEvent::Placed { customer, lines, total })
    }

    /// Takes note of a payment.
    pub fn pay(&self, payment: PaymentId, amount: Money) -> Result<OrderEvent, OrderError> {
        self.must_be(Status::Placed, "paid")?;
        match self.total {
            Some(expected) if expected != amount => Err(OrderError::WrongAmount { expected, offered: amount }),
            _ => Ok(OrderEvent::Paid { payment, amount }),
        }
    }

    /// Takes note that everything is put aside.
    pub fn reserve(&self, warehouse: &str) -> Result<OrderEvent, OrderError> {
        self.must_be(Status::Paid, "reserved")?;
        Ok(OrderEvent::Reserved { warehouse: warehouse.to_owned() })
    }

    /// Hands the parcel to a carrier.
    pub fn ship(&self, carrier: &str, tracking: &str) -> Result<OrderEvent, OrderError> {
        self.must_be(Status::Reserved, "shipped")?;
        Ok(OrderEvent::Shipped { carrier: carrier.to_owned(), tracking: tracking.to_owned() })
    }

    /// Takes note that the parcel arrived.
    pub fn deliver(&self, signed_by: &str) -> Result<OrderEvent, OrderError> {
        self.must_be(Status::Shipped, "delivered")?;
        Ok(OrderEvent::Delivered { signed_by: signed_by.to_owned() })
    }

    /// Calls the order off. What was paid goes back in the same breath: two events, one append, both or neither.
    pub fn cancel(&self, reason: &str) -> Result<Vec<OrderEvent>, OrderError> {
        if !matches!(self.status, Status::Placed | Status::Paid | Status::Reserved) {
            return Err(OrderError::NotNow { step: "cancelled", status: self.status });
        }
        let cancelled = OrderEvent::Cancelled { reason: reason.to_owned() };
        let refund = self.paid.clone().map(|(payment, amount)| OrderEvent::Refunded { payment, amount });
        Ok(std::iter::once(cancelled).chain(refund).collect())
    }

    fn must_be(&self, status: Status, step: &'static str) -> Result<(), OrderError> {
        if self.status == status { Ok(()) } else { Err(OrderError::NotNow { step, status: self.status }) }
    }
}
