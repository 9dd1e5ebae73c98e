//! The checkouts of a shop, in both variants: they run in this process, and here one is begun.

use std::sync::Arc;
use std::time::Duration;

use annals::projections::{ControlError, ParkedStream, QueryError};
use annals::sagas::{SagaError, SagaEvent, SagaId, Sagas, SagasExt, timeline};
use annals::{
    Context, CorrelationId, EventStore, ExecuteError, Invalid, Projections, ProjectionsExt, ReadError, Repository,
    StreamId, Tenant, prelude::*,
};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::choreography::{Answers, Orders};
use super::definition::{Checkout, checkout};
use super::flow::{CheckoutFlow, FLOW};
use super::parts::{Payment, Reservation, Shipment};
use crate::Fault;
use crate::domain::order::OrderCommand::Place;
use crate::domain::order::{CustomerId, Line, Order, OrderError, OrderId, PaymentId, total_of};
use crate::services::{Clients, Origin};

/// What the id of an orchestrated checkout begins with. The number of the order follows.
pub const SAGA: &str = "checkout-";

/// Who directs a checkout: `orchestrated`, a saga; `choreographed`, nobody, as services answer each other's events.
#[derive(ValueEnum, Serialize, Deserialize, ToSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The number that it gets.
    pub order: OrderId,
    /// Who orders.
    pub customer: CustomerId,
    /// What is ordered.
    pub lines: Vec<Line>,
}

/// Why a checkout could not be begun, seen or decided about.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// A value breaks a rule. It says which, and how to fix it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The order is not possible: it is placed already, or has no pieces.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The order could not be read or written.
    #[error(transparent)]
    Execute(#[from] ExecuteError<OrderError>),
    /// There is no such checkout, it is not in the state that this is for, or it could not be recorded.
    #[error(transparent)]
    Saga(#[from] SagaError),
    /// Nothing could be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The row could not be read.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// The checkouts of all shops of a store, which run in this process, beside others that run the same. Clones are the same.
#[derive(Clone)]
pub struct Checkouts {
    pub(super) store: Arc<dyn EventStore>,
    /// The orders.
    pub orders: Repository<Order>,
    /// How the services are called.
    pub services: Clients,
    /// The sagas and the flows.
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

    /// The reactor of the choreography that can set streams aside: an event of a flow that the order does not fit.
    pub const REACTOR: &'static str = Orders::NAME;

    /// The streams that it has set aside.
    pub async fn parked(&self) -> Result<Vec<ParkedStream>, ControlError> {
        self.reactors.parked::<Orders>().await
    }

    /// Lets it handle such a stream again. False if it was not set aside.
    pub async fn retry_parked(&self, stream: &StreamId) -> Result<bool, ControlError> {
        self.reactors.retry_parked::<Orders>(stream).await
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
                // A saga begins whatever the order is, and finds that out in its first step. This one would hide the other.
                self.check_is_free(context.tenant(), &cart.order, flow).await?;
                let trace = context.metadata().trace_parent.as_ref().map(ToString::to_string);
                let origin = Origin { shop: context.tenant().to_string(), trace };
                let payment = PaymentId::new(format!("pay-{}", cart.order))?;
                let Cart { order, customer, lines } = cart;
                let (warehouse, tracking) = (String::new(), String::new());
                let data = Checkout { order, customer, lines, total, payment, origin, warehouse, tracking };
                let (customer, lines) = (data.customer.clone(), data.lines.clone());
                // Its events say who has ordered, as those of the order do where nobody directs it.
                let (trace, actor) = (context.metadata().trace_parent.clone(), context.metadata().actor.clone());
                let sagas = self.sagas.tenant(context.tenant().clone()).in_trace(trace).with_actor(actor);
                match sagas.start(&id, data).await {
                    // The same from another request, whose trace is another one.
                    Err(SagaError::StartedBefore { .. })
                        if self
                            .begun(context.tenant(), &id)
                            .await?
                            .is_some_and(|begun| (&begun.customer, &begun.lines) == (&customer, &lines)) => {}
                    started => started?,
                }
            }
            Flow::Choreographed => {
                let context = context.clone().with_correlation(CorrelationId::new(&id)?);
                let place = Place { customer: cart.customer, lines: cart.lines };
                self.orders.with(context).send_once(&cart.order, id.to_string(), place).await?;
            }
        }
        Ok(id)
    }

    /// What a saga was begun with; `None` if there is no such saga.
    pub(super) async fn begun(&self, shop: &Tenant, id: &SagaId) -> Result<Option<Checkout>, CheckoutError> {
        let events = timeline(&self.store, shop, id).await?;
        let Some(SagaEvent::Started { data, .. }) = events.into_iter().next().map(|event| event.event) else {
            return Ok(None);
        };
        let broken = |source| SagaError::Data { id: id.clone(), source };
        Ok(Some(serde_json::from_value(data).map_err(broken)?))
    }
}

/// The id of the checkout of an order.
pub fn id(flow: Flow, order: &OrderId) -> Result<SagaId, Invalid> {
    match flow {
        Flow::Orchestrated => SagaId::new(format!("{SAGA}{order}")),
        Flow::Choreographed => SagaId::new(format!("{FLOW}{order}")),
    }
}
