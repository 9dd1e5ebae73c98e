//! The checkouts of a shop, in both variants: begin one, see where it stands, and decide about one that is stuck.
//!
//! A checkout goes on whether or not anybody waits for it. So a customer waits for as long as the budget allows, and is told
//! `pending, will retry` where that is of no use: the payment service fails, and is not asked before its breaker lets it.

use std::sync::Arc;
use std::time::Duration;

use annals::projections::QueryError;
use annals::resilience::Deadline;
use annals::resilience::breaker::BreakerState;
use annals::sagas::{By, Intervention, SagaError, SagaEvent, SagaId, Sagas, SagasExt, Status, timeline};
use annals::{
    Context, CorrelationId, EventStore, ExecuteError, Invalid, Projections, ProjectionsExt, ReadError, Repository, Tenant,
    prelude::*,
};
use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::choreography::{Answers, Orders};
use super::definition::{Checkout, checkout};
use super::flow::{CheckoutFlow, FLOW};
use super::parts::{Payment, Reservation, Shipment};
use crate::Fault;
use crate::domain::order::OrderCommand::Place;
use crate::domain::order::{CustomerId, Line, Order, OrderError, OrderId, PaymentId, Status as OrderStatus, total_of};
use crate::services::clients::{BUDGET, Clients, Origin};

/// What the id of an orchestrated checkout begins with. The number of the order follows.
const SAGA: &str = "checkout-";
/// How long to wait before the next look at a checkout that somebody waits for.
const LOOK: Duration = Duration::from_millis(50);

/// Who directs a checkout.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// A saga.
    #[default]
    Orchestrated,
    /// Nobody: reactors answer each other's events.
    Choreographed,
}

/// What a customer checks out.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Cart {
    pub order: OrderId,
    pub customer: CustomerId,
    pub lines: Vec<Line>,
}

/// Where a checkout stands.
#[derive(Serialize, Clone, Debug)]
pub struct Standing {
    /// What names it.
    pub id: String,
    /// Its order.
    pub order: OrderId,
    pub flow: Flow,
    pub status: Status,
    /// `completed`, `undone`, `waits for a person`, `pending` or `pending, will retry`.
    pub answer: &'static str,
    /// The last failure, or why it is undone or stuck.
    pub reason: Option<String>,
    /// When the next call is made, if it waits for that.
    pub next_try: Option<Timestamp>,
}

/// One event of a checkout.
#[derive(Serialize, Clone, Debug)]
pub struct Moment {
    pub at: Timestamp,
    pub event: String,
}

/// Why a checkout could not be begun, seen or decided about.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The order is not possible: it is placed already, or has no pieces.
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Execute(#[from] ExecuteError<OrderError>),
    #[error(transparent)]
    Saga(#[from] SagaError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// The checkouts of all shops of a store, which run in this process, beside others that run the same. Clones are the same.
#[derive(Clone)]
pub struct Checkouts {
    store: Arc<dyn EventStore>,
    pub orders: Repository<Order>,
    pub services: Clients,
    pub sagas: Sagas,
    /// The reactors of the choreography.
    pub reactors: Projections,
}

impl Checkouts {
    /// Runs the checkouts of a store: new ones, and those that another process has left. `SECONDS` is the time of a
    /// choreographed one.
    pub async fn start<const SECONDS: u64>(
        store: &(impl EventStore + ProjectionsExt + SagasExt + Clone),
        services: Clients,
        lease: Duration,
    ) -> Result<Self, Fault> {
        let orders = store.aggregate::<Order>();
        let sagas = store.sagas().with(checkout(&orders, &services)?).track(CheckoutFlow::<SECONDS>)?.lease(lease);
        let sagas = sagas.start().await?;
        let (payments, reservations, shipments) = (store.aggregate(), store.aggregate(), store.aggregate());
        // Each could run in a process of its own.
        let reactors = store
            .projections()
            .lease(lease)
            .react(Answers::<Payment>::new(&services.payment, payments.clone()).streams_at_once(32))
            .react(Answers::<Reservation>::new(&services.stock, reservations.clone()).streams_at_once(32))
            .react(Answers::<Shipment>::new(&services.shipping, shipments.clone()).streams_at_once(32))
            .react(Orders { orders: orders.clone(), payments, reservations, shipments }.dead_letter())
            .start()
            .await?;
        Ok(Self { store: store.shared(), orders, services, sagas, reactors })
    }

    /// Begins no further call, and leaves what is under way to other processes or the next start.
    pub async fn close(&self) {
        self.reactors.close().await;
        self.sagas.close().await;
    }

    /// Begins a checkout: the order is placed, paid, reserved and shipped, or cancelled. To begin the same again changes nothing.
    /// The context says for which shop, and in which trace.
    pub async fn begin(&self, flow: Flow, cart: Cart, context: &Context) -> Result<SagaId, CheckoutError> {
        let total = total_of(&cart.lines)?;
        let id = id(flow, &cart.order)?;
        match flow {
            Flow::Orchestrated => {
                let trace = context.metadata().trace_parent.as_ref().map(ToString::to_string);
                let origin = Origin { shop: context.tenant().to_string(), trace };
                let payment = PaymentId::new(format!("pay-{}", cart.order))?;
                let Cart { order, customer, lines } = cart;
                let (warehouse, tracking) = (String::new(), String::new());
                let data = Checkout { order, customer, lines, total, payment, origin, warehouse, tracking };
                self.sagas.tenant(context.tenant().clone()).start(&id, data).await?;
            }
            Flow::Choreographed => {
                let context = context.clone().with_correlation(CorrelationId::new(&id)?);
                let place = Place { customer: cart.customer, lines: cart.lines };
                self.orders.with(context).send_once(&cart.order, id.to_string(), place).await?;
            }
        }
        Ok(id)
    }

    /// Waits until a checkout has ended or is stuck, and its order knows; for as long as a customer does, or the deadline says. Gives
    /// where it stands then, and at once where the next call is not made in that time, or the breaker of the payment service is open.
    pub async fn wait(&self, shop: &Tenant, id: &SagaId, deadline: Deadline) -> Result<Standing, CheckoutError> {
        let deadline = deadline.child(BUDGET);
        let sagas = self.sagas.tenant(shop.clone());
        loop {
            let standing = match self.standing(shop, id).await {
                // A flow is not known before its first event was seen.
                Err(CheckoutError::Saga(SagaError::NotStarted { .. })) if id.as_str().starts_with(FLOW) => None,
                standing => Some(standing?),
            };
            if let Some(standing) = standing {
                let retries = self.services.payment.policy.breaker().state() == BreakerState::Open;
                let is_pending = matches!(standing.status, Status::Running | Status::Compensating);
                let is_told = is_pending || self.is_told(shop, &standing).await?;
                if is_told && (!is_pending || standing.next_try.is_some() && retries) || deadline.is_over() {
                    return Ok(standing);
                }
                match sagas.wait_for(id, LOOK.min(deadline.left().unwrap_or(LOOK))).await {
                    Ok(_) | Err(SagaError::TimedOut { .. }) if is_pending => continue,
                    Ok(_) | Err(SagaError::TimedOut { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            } else if deadline.is_over() {
                return Err(SagaError::NotStarted { id: id.clone() }.into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where a checkout stands.
    pub async fn standing(&self, shop: &Tenant, id: &SagaId) -> Result<Standing, CheckoutError> {
        let (flow, order) = parse(id)?;
        let status = self.sagas.tenant(shop.clone()).status(id).await?;
        let answer = match status.status {
            Status::Completed => "completed",
            Status::Compensated => "undone",
            Status::Stuck => "waits for a person",
            _ if flow == Flow::Orchestrated && status.wake_at.is_some() => "pending, will retry",
            _ => "pending",
        };
        let next_try = status.wake_at.filter(|_| flow == Flow::Orchestrated);
        Ok(Standing { id: id.to_string(), order, flow, status: status.status, answer, reason: status.reason, next_try })
    }

    /// Whether the order shows how its checkout has ended. A saga tells it in the same append; the reactor is a moment later.
    async fn is_told(&self, shop: &Tenant, standing: &Standing) -> Result<bool, CheckoutError> {
        let orders = self.orders.with(Context::of(shop.clone()));
        let order = orders.load(&standing.order).await?.state.status;
        let expected = match (standing.flow, standing.status) {
            (Flow::Choreographed, Status::Completed) => [OrderStatus::Shipped, OrderStatus::Delivered],
            (Flow::Choreographed, Status::Compensated) => [OrderStatus::Cancelled, OrderStatus::Cancelled],
            _ => return Ok(true),
        };
        Ok(expected.contains(&order))
    }

    /// What happened in a checkout.
    pub async fn timeline(&self, shop: &Tenant, id: &SagaId) -> Result<Vec<Moment>, CheckoutError> {
        let events = timeline(&self.store, shop, id).await?;
        let moments = events.iter().filter_map(|event| {
            let line = super::timeline::line(&event.event)?;
            Some(Moment { at: event.recorded_at, event: line })
        });
        Ok(moments.collect())
    }

    /// What a decision of a person would record. Nothing is stored by that.
    pub async fn preview(
        &self,
        shop: &Tenant,
        id: &SagaId,
        what: Intervention,
        by: &By,
    ) -> Result<Vec<SagaEvent>, CheckoutError> {
        Ok(self.sagas.tenant(shop.clone()).preview(id, what, by).await?)
    }

    /// A person decides.
    pub async fn decide(&self, shop: &Tenant, id: &SagaId, what: Intervention, by: &By) -> Result<(), CheckoutError> {
        Ok(self.sagas.tenant(shop.clone()).intervene(id, what, by).await?)
    }
}

/// The id of the checkout of an order.
pub fn id(flow: Flow, order: &OrderId) -> Result<SagaId, Invalid> {
    match flow {
        Flow::Orchestrated => SagaId::new(format!("{SAGA}{order}")),
        Flow::Choreographed => SagaId::new(format!("{FLOW}{order}")),
    }
}

/// Which checkout an id names.
fn parse(id: &SagaId) -> Result<(Flow, OrderId), Invalid> {
    let id = id.as_str();
    match (id.strip_prefix(SAGA), id.strip_prefix(FLOW)) {
        (Some(order), _) => Ok((Flow::Orchestrated, OrderId::new(order)?)),
        (_, Some(order)) => Ok((Flow::Choreographed, OrderId::new(order)?)),
        _ => Err(Invalid::new("checkout", format!("`{id}` is none"), "take the id that it was begun with")),
    }
}
