//! The same checkout without anybody who directs it: payments, warehouse and carrier each answer events with events of their own.
//!
//! Each is a reactor. It gets an event at least once, so its command has the reactor's key, and a repeated one has no second effect. All
//! events that an order leads to have one correlation id, which `Context::caused_by` keeps. That is the flow. What is declared of
//! it at the end of this file only says which events its steps are, so that it can be seen how far it is, and that it takes too long.

use std::time::Duration;

use annals::projections::{EffectKey, Reactor, ReactorError};
use annals::sagas::{Flow, FlowSteps, SagaEvent};
use annals::{Aggregate, Context, Decide, Event, Evolve, ExecuteError, Recorded, Repository};
use serde::{Deserialize, Serialize};

use crate::domain::order::OrderCommand::Cancel;
use crate::domain::order::{Line, Order, OrderEvent, OrderId};

/// What can happen to the payment of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum PaymentEvent {
    #[event(name = "payment.completed")]
    Completed { lines: Vec<Line> },
    #[event(name = "payment.failed")]
    Failed,
    #[event(name = "payment.refunded")]
    Refunded,
}

/// What can happen to the pieces of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum StockEvent {
    #[event(name = "inventory.reserved")]
    Reserved,
    #[event(name = "reservation.failed")]
    Failed,
}

/// What can happen to the parcel of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum ShipmentEvent {
    #[event(name = "shipment.created")]
    Created,
}

/// All that the reactors listen to, also what is recorded of the flow itself.
#[derive(Event, Clone, Debug)]
pub enum CheckoutEvent {
    #[event(transparent)]
    Order(OrderEvent),
    #[event(transparent)]
    Payment(PaymentEvent),
    #[event(transparent)]
    Stock(StockEvent),
    #[event(transparent)]
    Shipment(ShipmentEvent),
    #[event(transparent)]
    Flow(SagaEvent),
}
use CheckoutEvent as On;

/// A payment is asked for once, and refunded if it was made.
#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "payment", id = OrderId, event = PaymentEvent)]
pub struct Payment {
    paid: bool,
}

impl Evolve for Payment {
    fn evolve(&mut self, event: &PaymentEvent) {
        self.paid = matches!(event, PaymentEvent::Completed { .. });
    }
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "reservation", id = OrderId, event = StockEvent)]
pub struct Reservation;

impl Evolve for Reservation {
    fn evolve(&mut self, _: &StockEvent) {}
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "shipment", id = OrderId, event = ShipmentEvent)]
pub struct Shipment;

impl Evolve for Shipment {
    fn evolve(&mut self, _: &ShipmentEvent) {}
}

/// What is asked of payments.
#[derive(Serialize)]
pub enum Pay {
    Charge { lines: Vec<Line> },
    Refund,
}

impl Decide<Pay> for Payment {
    type Rejection = std::convert::Infallible;

    /// The bank takes no payment for more than a hundred pieces.
    fn decide(&self, command: &Pay) -> Result<Vec<PaymentEvent>, Self::Rejection> {
        Ok(match command {
            Pay::Charge { lines } if pieces(lines) > 100 => vec![PaymentEvent::Failed],
            Pay::Charge { lines } => vec![PaymentEvent::Completed { lines: lines.clone() }],
            Pay::Refund if self.paid => vec![PaymentEvent::Refunded],
            Pay::Refund => Vec::new(),
        })
    }
}

#[derive(Serialize)]
pub struct SetAside {
    lines: Vec<Line>,
}

impl Decide<SetAside> for Reservation {
    type Rejection = std::convert::Infallible;

    /// Ten pieces are there for each order.
    fn decide(&self, SetAside { lines }: &SetAside) -> Result<Vec<StockEvent>, Self::Rejection> {
        Ok(vec![if pieces(lines) > 10 { StockEvent::Failed } else { StockEvent::Reserved }])
    }
}

#[derive(Serialize)]
pub struct Fetch;

impl Decide<Fetch> for Shipment {
    type Rejection = std::convert::Infallible;

    fn decide(&self, _: &Fetch) -> Result<Vec<ShipmentEvent>, Self::Rejection> {
        Ok(vec![ShipmentEvent::Created])
    }
}

fn pieces(lines: &[Line]) -> u32 {
    lines.iter().map(|line| line.quantity).sum()
}

/// Answers an event with a command for the same order. All streams of a checkout have the id of the order.
async fn answer<A, C>(
    repository: &Repository<A>,
    event: &Recorded<CheckoutEvent>,
    key: &EffectKey,
    command: C,
) -> Result<(), ReactorError>
where
    A: Decide<C, Id = OrderId>,
    A::Rejection: std::error::Error + Send + Sync + 'static,
    C: Serialize + Send + Sync,
{
    let order: OrderId = event.aggregate_id().map_err(ReactorError::permanent)?;
    match repository.with(Context::caused_by(event)).send_once(&order, key.to_string(), command).await {
        // A cancelled order that is to be cancelled says no. That is no fault.
        Ok(_) | Err(ExecuteError::Rejected(_)) => Ok(()),
        Err(error) => Err(ReactorError::transient(error)),
    }
}

/// Charges placed orders, and gives the money back where an order cannot be completed.
pub struct Payments(pub Repository<Payment>);

impl Reactor for Payments {
    type Event = CheckoutEvent;
    const NAME: &'static str = "payments";

    async fn react(&self, event: &Recorded<CheckoutEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        match &event.event {
            On::Order(OrderEvent::Placed { lines, .. }) => {
                answer(&self.0, event, key, Pay::Charge { lines: lines.clone() }).await
            }
            On::Stock(StockEvent::Failed) | On::Flow(SagaEvent::CompensationBegun { .. }) => {
                answer(&self.0, event, key, Pay::Refund).await
            }
            _ => Ok(()),
        }
    }
}

/// Sets the pieces of paid orders aside. It is slow with pianos.
pub struct Warehouse(pub Repository<Reservation>);

impl Reactor for Warehouse {
    type Event = CheckoutEvent;
    const NAME: &'static str = "warehouse";

    async fn react(&self, event: &Recorded<CheckoutEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        match &event.event {
            On::Payment(PaymentEvent::Completed { lines }) if lines.iter().all(|line| line.product != "piano") => {
                answer(&self.0, event, key, SetAside { lines: lines.clone() }).await
            }
            _ => Ok(()),
        }
    }
}

/// Fetches the parcels of orders whose pieces are set aside.
pub struct Carrier(pub Repository<Shipment>);

impl Reactor for Carrier {
    type Event = CheckoutEvent;
    const NAME: &'static str = "carrier";

    async fn react(&self, event: &Recorded<CheckoutEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        match &event.event {
            On::Stock(StockEvent::Reserved) => answer(&self.0, event, key, Fetch).await,
            _ => Ok(()),
        }
    }
}

/// Cancels orders that are not paid, or not any more.
pub struct Orders(pub Repository<Order>);

impl Reactor for Orders {
    type Event = CheckoutEvent;
    const NAME: &'static str = "orders";

    async fn react(&self, event: &Recorded<CheckoutEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        match &event.event {
            On::Payment(PaymentEvent::Failed | PaymentEvent::Refunded) => {
                answer(&self.0, event, key, Cancel { reason: "it is not paid".to_owned() }).await
            }
            _ => Ok(()),
        }
    }
}

/// The flow: its steps, which event undoes which, and which say that it fails.
pub struct Checkouts;

impl Flow for Checkouts {
    type Event = CheckoutEvent;
    const NAME: &'static str = "checkouts";

    fn steps() -> FlowSteps {
        FlowSteps::begin("order.placed")
            .undone_by("order.cancelled")
            .step("payment.completed")
            .undone_by("payment.refunded")
            .fails("payment.failed")
            .step("inventory.reserved")
            .fails("reservation.failed")
            .step("shipment.created")
            .timeout(Duration::from_secs(4))
    }
}
