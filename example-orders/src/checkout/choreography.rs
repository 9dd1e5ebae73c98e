//! The same checkout without anybody who directs it: payments, warehouse and carrier each answer events with calls of their services,
//! and note what came of them as events, which others answer.
//!
//! Each is a reactor. It gets an event at least once, so its call has one key for ever, and what it notes is noted once. All
//! events that a checkout leads to have one correlation id, which `Context::caused_by` keeps. That is the flow. What is declared of
//! it in `flow.rs` only says which events its steps are, so that it can be seen how far it is, and that it takes too long.
//!
//! | what is seen | who answers | and notes |
//! |---|---|---|
//! | `order.placed` | payments | `payment.completed` or `payment.failed` |
//! | `payment.completed` | warehouse | `inventory.reserved` or `reservation.failed` |
//! | `payment.completed` | orders | `order.paid` |
//! | `inventory.reserved` | carrier | `shipment.created` or `shipment.failed` |
//! | one of the failures, or that the flow takes too long | payments | `refund.initiated`, then `payment.refunded` |
//! | `refund.initiated` | warehouse | `release.initiated`, then `inventory.released` |
//! | `release.initiated` | carrier | `recall.initiated`, then `shipment.recalled` |
//! | that the flow is completed | orders | `order.reserved`, `order.shipped` |
//! | that the flow is undone | orders | `order.cancelled` |
//!
//! Who notes a failure also sends the undo of what failed: an earlier try may have been done without an answer.
//!
//! A customer who cancels a paid order meanwhile, or sends it back, is one more reason for a refund. The same reactors take back what a
//! saga has done for such an order: after its pivot it does not do that itself.

use annals::projections::{EffectKey, Reactor, ReactorError};
use annals::resilience::IdempotencyKey;
use annals::sagas::participant::StepKey;
use annals::sagas::{SagaEvent, StepError};
use annals::{Context, CorrelationId, ExecuteError, Recorded, Repository};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::flow::{CheckoutEvent, FLOW};
use super::handle::SAGA;
use super::parts::{Part, Payment, PaymentEvent, Progress, Reservation, Shipment, ShipmentEvent, StockEvent};
use crate::domain::order::OrderCommand::{Cancel, Pay, Reserve, Ship};
use crate::domain::order::{Order, OrderCommand, OrderEvent, OrderId, PaymentId};
use crate::services::{Client, Origin};
use crate::services::{payment, shipping, stock};
use CheckoutEvent as On;

/// The order of an event of a flow; `None` for events of anything else, such as of a saga.
fn order_of(event: &Recorded<CheckoutEvent>) -> Option<OrderId> {
    let flow = event.metadata.correlation_id.as_ref()?.as_str();
    OrderId::new(flow.strip_prefix(FLOW)?).ok()
}

/// A reactor of the choreography: it calls a service, and notes what came of it in the streams of a part.
pub struct Answers<P: Part> {
    service: Client,
    parts: Repository<P>,
}

impl<P: Part> Answers<P> {
    pub fn new(service: &Client, parts: Repository<P>) -> Self {
        Self { service: service.clone(), parts }
    }

    /// Has the effect at the service, and notes that it was had, or that it was refused.
    async fn fulfil<T: DeserializeOwned + Send>(
        &self,
        event: &Recorded<CheckoutEvent>,
        path: &str,
        body: &(impl Serialize + Sync),
        order: &OrderId,
        done: impl FnOnce(T) -> P::Event,
    ) -> Result<(), ReactorError> {
        let step = step(event, path)?;
        match self.service.call(path, body, &origin(event), &step.do_key()).await {
            Ok(answer) => self.note(event, order, done(answer)).await,
            Err(error) => match error.source {
                Some(StepError::Refused { reason }) => self.note(event, order, P::failed(reason)).await,
                // It is called again under its key, until it answers.
                _ => Err(ReactorError::transient(error)),
            },
        }
    }

    /// Takes it back, also if it is not known whether it was had: the service then refuses it for ever.
    async fn take_back(
        &self,
        event: &Recorded<CheckoutEvent>,
        path: &str,
        order: &OrderId,
    ) -> Result<(), ReactorError> {
        self.undo(event, path, order).await?;
        self.note(event, order, P::undone()).await
    }

    /// Sends the undo. What was refused may have been done by an earlier try, whose answer was lost; and it must not be done later.
    async fn undo(&self, event: &Recorded<CheckoutEvent>, path: &str, order: &OrderId) -> Result<(), ReactorError> {
        let key: IdempotencyKey = step(event, path)?.undo_key();
        let () = self.service.call(path, order, &origin(event), &key).await?;
        Ok(())
    }

    /// Takes back a step of the saga of an order that was refunded, if its checkout was one. A step that was not done is refused from now
    /// on; one that the saga has undone is not undone twice.
    async fn undo_saga(
        &self,
        event: &Recorded<CheckoutEvent>,
        payment: &PaymentId,
        name: &str,
        path: &str,
    ) -> Result<(), ReactorError> {
        let order: OrderId = event.aggregate_id()?;
        if *payment == payment_of(&order)? {
            let key = StepKey::new(format!("{SAGA}{order}/{name}"))?.undo_key();
            let () = self.service.call(path, &order, &origin(event), &key).await?;
        }
        Ok(())
    }

    /// Notes an event, unless the part has gone beyond it.
    async fn note(
        &self,
        event: &Recorded<CheckoutEvent>,
        order: &OrderId,
        noted: P::Event,
    ) -> Result<(), ReactorError> {
        let parts = self.parts.with(Context::caused_by(event));
        match parts.execute(order, |part: &P| part.note(&noted)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn step(event: &Recorded<CheckoutEvent>, path: &str) -> Result<StepKey, ReactorError> {
    let flow = event.metadata.correlation_id.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok(StepKey::new(format!("{flow}{path}"))?)
}

fn origin(event: &Recorded<CheckoutEvent>) -> Origin {
    let trace = event.metadata.trace_parent.as_ref().map(ToString::to_string);
    Origin { shop: event.stream.tenant().to_string(), trace }
}

/// Whether a flow is undone from here on.
fn fails(event: &CheckoutEvent) -> bool {
    matches!(event, On::Flow(SagaEvent::CompensationBegun { .. } | SagaEvent::Intervened { until: Some(_), .. }))
}

/// Charges placed orders, and gives the money back where an order cannot be completed.
impl Reactor for Answers<Payment> {
    type Event = CheckoutEvent;
    const NAME: &'static str = "payments";

    async fn react(&self, event: &Recorded<CheckoutEvent>, _: &EffectKey) -> Result<(), ReactorError> {
        if let On::Order(OrderEvent::Refunded { payment, .. }) = &event.event {
            self.undo_saga(event, payment, "charge", "/charge").await?;
            return refund(&self.parts, event).await;
        }
        let Some(order) = order_of(event) else { return Ok(()) };
        match &event.event {
            On::Order(OrderEvent::Placed { total, lines, .. }) => {
                let charge = payment::Charge { order: order.clone(), payment: payment_of(&order)?, amount: *total };
                let done = |payment: PaymentId| PaymentEvent::Completed {
                    payment,
                    lines: lines.clone(),
                    amount: Some(*total),
                };
                self.fulfil(event, "/charge", &charge, &order, done).await
            }
            On::Stock(StockEvent::Failed { .. }) | On::Shipment(ShipmentEvent::Failed { .. }) => {
                self.note(event, &order, PaymentEvent::RefundInitiated).await
            }
            on if fails(on) => self.note(event, &order, PaymentEvent::RefundInitiated).await,
            On::Payment(PaymentEvent::RefundInitiated) => self.take_back(event, "/charge", &order).await,
            On::Payment(PaymentEvent::Failed { .. }) => self.undo(event, "/charge", &order).await,
            _ => Ok(()),
        }
    }
}

/// Sets the pieces of paid orders aside, and puts them back.
impl Reactor for Answers<Reservation> {
    type Event = CheckoutEvent;
    const NAME: &'static str = "warehouse";

    async fn react(&self, event: &Recorded<CheckoutEvent>, _: &EffectKey) -> Result<(), ReactorError> {
        if let On::Order(OrderEvent::Refunded { payment, .. }) = &event.event {
            return self.undo_saga(event, payment, "set-aside", "/reserve").await;
        }
        let Some(order) = order_of(event) else { return Ok(()) };
        match &event.event {
            On::Payment(PaymentEvent::Completed { lines, .. }) => {
                let reserve = stock::Reserve { order: order.clone(), lines: lines.clone() };
                let done = |warehouse| StockEvent::Reserved { warehouse };
                self.fulfil(event, "/reserve", &reserve, &order, done).await
            }
            On::Payment(PaymentEvent::RefundInitiated) => self.note(event, &order, StockEvent::ReleaseInitiated).await,
            On::Stock(StockEvent::ReleaseInitiated) => self.take_back(event, "/reserve", &order).await,
            On::Stock(StockEvent::Failed { .. }) => self.undo(event, "/reserve", &order).await,
            _ => Ok(()),
        }
    }
}

/// Fetches the parcels of orders whose pieces are set aside, and brings them back.
impl Reactor for Answers<Shipment> {
    type Event = CheckoutEvent;
    const NAME: &'static str = "carrier";

    async fn react(&self, event: &Recorded<CheckoutEvent>, _: &EffectKey) -> Result<(), ReactorError> {
        if let On::Order(OrderEvent::Refunded { payment, .. }) = &event.event {
            return self.undo_saga(event, payment, "fetch", "/fetch").await;
        }
        let Some(order) = order_of(event) else { return Ok(()) };
        match &event.event {
            On::Stock(StockEvent::Reserved { .. }) => {
                let fetch = shipping::Fetch { order: order.clone() };
                self.fulfil(event, "/fetch", &fetch, &order, |tracking| ShipmentEvent::Created { tracking }).await
            }
            On::Stock(StockEvent::ReleaseInitiated) => self.note(event, &order, ShipmentEvent::RecallInitiated).await,
            On::Shipment(ShipmentEvent::RecallInitiated) => self.take_back(event, "/fetch", &order).await,
            On::Shipment(ShipmentEvent::Failed { .. }) => self.undo(event, "/fetch", &order).await,
            _ => Ok(()),
        }
    }
}

/// Gives back what was paid for an order that is cancelled or sent back, if a flow has charged it.
async fn refund(payments: &Repository<Payment>, event: &Recorded<CheckoutEvent>) -> Result<(), ReactorError> {
    let order: OrderId = event.aggregate_id()?;
    let flow = CorrelationId::new(format!("{FLOW}{order}"))?;
    let payments = payments.with(Context::caused_by(event).with_correlation(flow));
    let initiated = |payment: &Payment| match payment.progress() {
        Progress::Done => payment.note(&PaymentEvent::RefundInitiated),
        _ => Ok(Vec::new()),
    };
    payments.execute(&order, initiated).await?;
    Ok(())
}

/// Tells the order what came of its checkout.
pub struct Orders {
    pub orders: Repository<Order>,
    pub payments: Repository<Payment>,
    pub reservations: Repository<Reservation>,
    pub shipments: Repository<Shipment>,
}

impl Reactor for Orders {
    type Event = CheckoutEvent;
    const NAME: &'static str = "orders";

    async fn react(&self, event: &Recorded<CheckoutEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        let Some(order) = order_of(event) else { return Ok(()) };
        let context = Context::caused_by(event);
        match &event.event {
            On::Payment(PaymentEvent::Completed { payment, amount, .. }) => {
                // What was charged, and not what the order costs by now: it may have been changed meanwhile, and is then refunded.
                let total = match amount {
                    Some(amount) => Some(*amount),
                    None => self.orders.with(context).load(&order).await?.state.total,
                };
                let Some(amount) = total else {
                    return Err(ReactorError::permanent(format!("there is no order {order}")));
                };
                if !self.send(event, &order, key.to_string(), Pay { payment: payment.clone(), amount }).await? {
                    refund(&self.payments, event).await?;
                }
            }
            // Not before: from here on the flow does not fail, whatever events are under way.
            On::Flow(SagaEvent::Completed) => {
                let warehouse = self.reservations.with(context.clone()).load(&order).await?.state.warehouse.clone();
                let tracking = self.shipments.with(context).load(&order).await?.state.tracking.clone();
                let commands = [Reserve { warehouse }, Ship { carrier: "snail".to_owned(), tracking }];
                for (n, command) in commands.into_iter().enumerate() {
                    if !self.send(event, &order, format!("{key}-{n}"), command).await? {
                        return Err(ReactorError::permanent(format!(
                            "the parcel of {order} is under way, and the order is not"
                        )));
                    }
                }
            }
            On::Flow(SagaEvent::Compensated) => {
                let cancel = Cancel { reason: "the checkout was not possible".to_owned() };
                // Its customer may have cancelled it before.
                self.send(event, &order, key.to_string(), cancel).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Orders {
    /// Whether the order takes the command.
    async fn send(
        &self,
        event: &Recorded<CheckoutEvent>,
        order: &OrderId,
        key: String,
        command: OrderCommand,
    ) -> Result<bool, ReactorError> {
        match self.orders.with(Context::caused_by(event)).send_once(order, key, command).await {
            Ok(_) => Ok(true),
            Err(ExecuteError::Rejected(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn payment_of(order: &OrderId) -> Result<PaymentId, annals::Invalid> {
    PaymentId::new(format!("pay-{order}"))
}
