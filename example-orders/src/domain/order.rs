//! The order: its events, the state that follows from them, its commands and their rules.
//!
//! This is the whole domain on one page, without any I/O. Read it from top to bottom: events, state, `evolve`, commands,
//! `decide`. A decision takes the state and a command and returns events, or a rejection.

use std::fmt;

use annals::{Aggregate, Decide, Event, Evolve, text_id};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::evolution::{PlacedV1, PlacedV2, RENAMED};
use crate::domain::money::{Money, decimal};

text_id! {
    /// The number on the confirmation mail, for example `o-1001`.
    pub struct OrderId;
}

text_id! {
    /// The id of a customer.
    pub struct CustomerId;
}

text_id! {
    /// The id of a payment at the payment service.
    pub struct PaymentId;
}

// In the columns of read models, it is plain text.
annals::projections::text_column!(Status);

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// The product.
    #[schema(min_length = 1, max_length = 1000)]
    pub product: String,
    /// The number of pieces.
    #[schema(minimum = 1)]
    pub quantity: u32,
    /// The price of one piece, not below zero.
    pub price: Money,
}

/// The events of an order. The event names are stored and never change; the Rust names may. `evolution.rs` says how events are
/// read that were stored before.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(upcasters = RENAMED)]
pub enum OrderEvent {
    /// A customer ordered.
    #[event(name = "order.placed", version = 3, upcast(PlacedV1, PlacedV2))]
    Placed {
        /// The customer.
        customer: CustomerId,
        /// What was ordered.
        lines: Vec<Line>,
        /// The price that the customer saw, not a later one.
        total: Money,
    },
    /// The customer changed what is ordered, before paying.
    #[event(name = "order.changed")]
    Changed {
        /// The customer, so that a fold of totals needs no other event.
        customer: CustomerId,
        /// What is ordered now.
        lines: Vec<Line>,
        /// What it costs now.
        total: Money,
        /// What it did cost before.
        instead_of: Money,
    },
    /// The payment service confirmed a payment.
    #[event(name = "order.paid")]
    Paid {
        /// The id of the payment.
        payment: PaymentId,
        /// The amount.
        amount: Money,
    },
    /// A warehouse reserved all pieces.
    #[event(name = "order.reserved")]
    Reserved {
        /// The warehouse.
        warehouse: String,
    },
    /// The parcel left.
    #[event(name = "order.shipped")]
    Shipped {
        /// The carrier.
        carrier: String,
        /// The carrier's number of the parcel.
        tracking: String,
    },
    /// The parcel arrived.
    #[event(name = "order.delivered")]
    Delivered {
        /// Who signed for it.
        signed_by: String,
    },
    /// The customer cancelled the order.
    #[event(name = "order.cancelled")]
    Cancelled {
        /// The reason.
        reason: String,
    },
    /// The customer sent the delivered pieces back.
    #[event(name = "order.returned")]
    Returned {
        /// The reason.
        reason: String,
    },
    /// The payment was refunded.
    #[event(name = "order.refunded")]
    Refunded {
        /// The refunded payment.
        payment: PaymentId,
        /// The amount.
        amount: Money,
    },
}

/// The status of an order: `placed`, `paid`, `reserved` in a warehouse, `shipped`, `delivered`, and `returned` if it was sent back; or
/// `cancelled` before it left. `unknown` is that of no order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// There is no such order.
    #[default]
    Unknown,
    /// Ordered, not paid.
    Placed,
    /// Paid.
    Paid,
    /// Reserved in a warehouse.
    Reserved,
    /// Shipped.
    Shipped,
    /// Delivered.
    Delivered,
    /// Cancelled.
    Cancelled,
    /// Delivered, and sent back.
    Returned,
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
            Self::Returned => "returned",
        })
    }
}

/// The state that decisions need; everything else is for read models.
#[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "order", id = OrderId, event = OrderEvent, fold = 2, snapshot(every = 100))]
pub struct Order {
    /// The status.
    pub status: Status,
    /// Who ordered, and so who may change it.
    pub customer: Option<CustomerId>,
    /// The total price.
    pub total: Option<Money>,
    /// The payment and its amount.
    pub paid: Option<(PaymentId, Money)>,
}

impl Evolve for Order {
    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { customer, total, .. } => {
                self.status = Status::Placed;
                self.customer = Some(customer.clone());
                self.total = Some(*total);
            }
            OrderEvent::Changed { total, .. } => self.total = Some(*total),
            OrderEvent::Paid { payment, amount } => {
                self.status = Status::Paid;
                self.paid = Some((payment.clone(), *amount));
            }
            OrderEvent::Reserved { .. } => self.status = Status::Reserved,
            OrderEvent::Shipped { .. } => self.status = Status::Shipped,
            OrderEvent::Delivered { .. } => self.status = Status::Delivered,
            OrderEvent::Cancelled { .. } => self.status = Status::Cancelled,
            OrderEvent::Returned { .. } => self.status = Status::Returned,
            OrderEvent::Refunded { .. } => self.paid = None,
        }
    }
}

/// What can be asked of an order. A command that is sent once is recognised by its content, as JSON.
#[derive(Serialize, Clone, Debug)]
pub enum OrderCommand {
    /// Place the order.
    Place {
        /// The customer.
        customer: CustomerId,
        /// What is ordered.
        lines: Vec<Line>,
    },
    /// Change what is ordered.
    Change {
        /// What is ordered instead.
        lines: Vec<Line>,
    },
    /// Record a payment.
    Pay {
        /// The id of the payment.
        payment: PaymentId,
        /// The amount.
        amount: Money,
    },
    /// Record that a warehouse has reserved all pieces.
    Reserve {
        /// The warehouse.
        warehouse: String,
    },
    /// Record that a carrier has the parcel.
    Ship {
        /// The carrier.
        carrier: String,
        /// The carrier's number of the parcel.
        tracking: String,
    },
    /// Record that the parcel has arrived.
    Deliver {
        /// Who signed for it.
        signed_by: String,
    },
    /// Cancel the order.
    Cancel {
        /// The reason.
        reason: String,
    },
    /// Record that the pieces came back.
    Return {
        /// The reason.
        reason: String,
    },
}

/// Why an order rejects a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The order was placed before.
    #[error("the order is placed already")]
    PlacedAlready,
    /// The order has no pieces.
    #[error("an order needs at least one line, with at least one piece each")]
    Empty,
    /// The lines have several currencies, or the sum overflows.
    #[error("the lines do not add up to an amount of one currency")]
    NoTotal,
    /// It costs more than [`MOST`].
    #[error("an order costs at most {} {}, not {total}", decimal(MOST), total.currency)]
    TooMuch {
        /// What the lines cost.
        total: Money,
    },
    /// The amount is not the total price.
    #[error("the order costs {expected}, not {offered}")]
    WrongAmount {
        /// The total price.
        expected: Money,
        /// The offered amount.
        offered: Money,
    },
    /// The lines have another currency than the order.
    #[error("the order is in another currency than {total}")]
    OtherCurrency {
        /// What the lines cost.
        total: Money,
    },
    /// The status does not allow the step.
    #[error("an order that is {status} cannot be {step}")]
    NotNow {
        /// The requested step.
        step: &'static str,
        /// The current status.
        status: Status,
    },
}

/// The most that an order may cost, in cents. What is stored is summed up for ever, and no read model can take a sum that its columns do
/// not hold: millions of orders of this price fit into 64 bits.
pub const MOST: i64 = 1_000_000_000_000;

/// The total price of lines, of which there is at least one, with at least one piece each.
pub fn total_of(lines: &[Line]) -> Result<Money, OrderError> {
    if lines.iter().any(|line| line.quantity == 0) {
        return Err(OrderError::Empty);
    }
    let mut total = Money { minor: 0, currency: lines.first().ok_or(OrderError::Empty)?.price.currency };
    for line in lines {
        let price = line.price.times(line.quantity).ok_or(OrderError::NoTotal)?;
        total = total.plus(price).ok_or(OrderError::NoTotal)?;
    }
    if !(-MOST..=MOST).contains(&total.minor) {
        return Err(OrderError::TooMuch { total });
    }
    Ok(total)
}

impl Decide<OrderCommand> for Order {
    type Rejection = OrderError;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderError> {
        let event = match command.clone() {
            OrderCommand::Place { customer, lines } => {
                if self.status != Status::Unknown {
                    return Err(OrderError::PlacedAlready);
                }
                let total = total_of(&lines)?;
                OrderEvent::Placed { customer, lines, total }
            }
            OrderCommand::Change { lines } => self.change(lines)?,
            OrderCommand::Pay { payment, amount } => {
                self.may_be("paid")?;
                match self.total {
                    Some(expected) if expected != amount => {
                        return Err(OrderError::WrongAmount { expected, offered: amount });
                    }
                    _ => OrderEvent::Paid { payment, amount },
                }
            }
            OrderCommand::Reserve { warehouse } => {
                self.may_be("reserved")?;
                OrderEvent::Reserved { warehouse }
            }
            OrderCommand::Ship { carrier, tracking } => {
                self.may_be("shipped")?;
                OrderEvent::Shipped { carrier, tracking }
            }
            OrderCommand::Deliver { signed_by } => {
                self.may_be("delivered")?;
                OrderEvent::Delivered { signed_by }
            }
            OrderCommand::Cancel { reason } => {
                self.may_be("cancelled")?;
                return Ok(self.with_refund(OrderEvent::Cancelled { reason }));
            }
            OrderCommand::Return { reason } => {
                self.may_be("returned")?;
                return Ok(self.with_refund(OrderEvent::Returned { reason }));
            }
        };
        Ok(vec![event])
    }
}

impl Order {
    /// A payment is refunded in the same append: two events, both or neither.
    fn with_refund(&self, event: OrderEvent) -> Vec<OrderEvent> {
        let refund = self.paid.clone().map(|(payment, amount)| OrderEvent::Refunded { payment, amount });
        std::iter::once(event).chain(refund).collect()
    }

    fn change(&self, lines: Vec<Line>) -> Result<OrderEvent, OrderError> {
        self.may_be("changed")?;
        let (Some(instead_of), Some(customer)) = (self.total, self.customer.clone()) else {
            return Err(OrderError::NoTotal);
        };
        let total = total_of(&lines)?;
        if total.currency != instead_of.currency {
            return Err(OrderError::OtherCurrency { total });
        }
        Ok(OrderEvent::Changed { customer, lines, total, instead_of })
    }

    fn may_be(&self, step: &'static str) -> Result<(), OrderError> {
        if statuses_before(step).contains(&self.status) {
            return Ok(());
        }
        Err(OrderError::NotNow { step, status: self.status })
    }
}

/// In which status an order must be for a step, as errors name it.
pub fn statuses_before(step: &str) -> &'static [Status] {
    match step {
        "changed" | "paid" => &[Status::Placed],
        "reserved" => &[Status::Paid],
        "shipped" => &[Status::Reserved],
        "delivered" => &[Status::Shipped],
        "cancelled" => &[Status::Placed, Status::Paid, Status::Reserved],
        "returned" => &[Status::Delivered],
        _ => &[],
    }
}
