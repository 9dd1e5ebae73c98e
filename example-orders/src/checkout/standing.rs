//! Where a checkout stands, what happened in it, and what a person decides about it.
//!
//! A checkout goes on whether or not anybody waits for it. So a customer waits for as long as the budget allows, and is told
//! `pending, will retry` where that is of no use: the payment service fails, and is not asked before its breaker lets it.

use std::time::Duration;

use annals::resilience::Deadline;
use annals::resilience::breaker::BreakerState;
use annals::sagas::{By, Intervention, SagaError, SagaEvent, SagaId, Status, timeline};
use annals::{Context, Event, Invalid, Tenant};
use jiff::{Timestamp, Unit};
use serde::Serialize;
use tokio::time::sleep;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::flow::{FLOW, PAID};
use super::handle::{CheckoutError, Checkouts, Flow, SAGA, id};
use super::placer::Placer;
use crate::domain::order::{CustomerId, OrderId, Status as OrderStatus};
use crate::services::BUDGET;

/// How long to wait before the next look at a flow that somebody waits for. Of a saga its runner says when it has come further.
const LOOK: Duration = Duration::from_millis(50);

/// While it runs, and nothing has failed.
const PENDING: &str = "pending";
/// While it runs, and the next call is made later, or as soon as the payment service is asked again.
const RETRIES: &str = "pending, will retry";
/// All that is answered.
const ANSWERS: [&str; 6] = ["completed", "undone", "is undone", "waits for a person", PENDING, RETRIES];
/// All that a checkout can be which has begun.
const STATUSES: [Status; 5] =
    [Status::Running, Status::Compensating, Status::Stuck, Status::Completed, Status::Compensated];

/// Where a checkout stands.
#[derive(Serialize, ToSchema, Clone, Debug)]
pub struct Standing {
    /// What names it.
    pub id: String,
    /// Its order.
    #[schema(value_type = String)]
    pub order: OrderId,
    /// Who directs it.
    pub flow: Flow,
    /// The state of its saga or flow.
    #[schema(schema_with = statuses)]
    pub status: Status,
    /// The same for a customer.
    #[schema(schema_with = answers)]
    pub answer: &'static str,
    /// The last failure, or why it is undone or stuck.
    pub reason: Option<String>,
    /// When a call that has failed is made again, to the microsecond. Only of an orchestrated one, and only while it waits for that.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<Timestamp>,
}

fn statuses() -> Object {
    let all = STATUSES.map(|status| serde_json::json!(status));
    let text = "The state of its saga or flow: `running`; `compensating`, while what was done is undone; `stuck`, until a person decides; \
                and in the end `completed` or `compensated`.";
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(all)).description(Some(text)).build()
}

fn answers() -> Object {
    let text = "The same for a customer: `completed`; `undone`; `is undone`, at the moment; `waits for a person`; `pending`, while \
                nothing has failed; `pending, will retry`, if a call has failed and is made again, or waits until the payment service is well.";
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(ANSWERS)).description(Some(text)).build()
}

/// One event of a checkout.
#[derive(Serialize, ToSchema, Clone, Debug)]
pub struct Moment {
    /// When it was recorded.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What happened, for people.
    pub event: String,
    /// What happened, for programs: the name of the event, such as `saga.step_failed`.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// The step that it is about. Of a choreographed one it has the name of the event that it is done by, and `/undo` behind it if it is
    /// undone.
    pub step: Option<String>,
}

impl Checkouts {
    /// Waits until a checkout has ended or is stuck, and its order knows; for as long as a customer does, or the deadline says. Gives
    /// where it stands then, and at once where a call has failed, or is not made, while the breaker of the payment service is open.
    pub async fn wait(&self, shop: &Tenant, id: &SagaId, deadline: Deadline) -> Result<Standing, CheckoutError> {
        let deadline = deadline.child(BUDGET);
        if let (Flow::Orchestrated, order) = flow_and_order(id)? {
            let (sagas, left) = (self.sagas.tenant(shop.clone()), deadline.left().unwrap_or(BUDGET));
            match sagas.wait_until(id, left, |status| self.is_over(status.status, status.next_try)).await {
                // Of two that begin at once, in two processes, one has placed the order. This is not a checkout then.
                Ok(status) if status.status == Status::Compensated => {
                    self.check_is_free(shop, &order, Flow::Orchestrated).await?;
                }
                Ok(_) | Err(SagaError::TimedOut { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            return self.standing(shop, id).await;
        }
        loop {
            match self.standing(shop, id).await {
                Ok(standing) if self.is_answer(shop, &standing).await? || deadline.is_over() => return Ok(standing),
                Ok(_) => {}
                // A flow is not known before its first event was seen.
                Err(CheckoutError::Saga(SagaError::NotStarted { .. }))
                    if id.as_str().starts_with(FLOW) && !deadline.is_over() => {}
                Err(error) => return Err(error),
            }
            sleep(LOOK).await;
        }
    }

    /// Whether it is of no use to wait any longer.
    async fn is_answer(&self, shop: &Tenant, standing: &Standing) -> Result<bool, CheckoutError> {
        match standing.status {
            Status::Running => Ok(standing.answer == RETRIES && self.payment_is_not_asked()),
            Status::Stuck => Ok(true),
            _ if standing.status.is_final() => self.is_told(shop, standing).await,
            _ => Ok(false),
        }
    }

    /// The same of a saga.
    fn is_over(&self, status: Status, next_try: Option<Timestamp>) -> bool {
        match status {
            Status::Running => next_try.is_some() && self.payment_is_not_asked(),
            status => status.is_final() || status == Status::Stuck,
        }
    }

    fn payment_is_not_asked(&self) -> bool {
        self.services.payment.policy.breaker().state() == BreakerState::Open
    }

    /// The checkout of an order, orchestrated or choreographed, if there is one.
    pub async fn find(&self, shop: &Tenant, order: &OrderId) -> Result<Option<(SagaId, Standing)>, CheckoutError> {
        let flow = match self.placer(shop, order).await? {
            Placer::Checkout(flow) => flow,
            Placer::Nobody => Flow::Orchestrated,
            Placer::Other => return Ok(None),
        };
        let id = id(flow, order)?;
        match self.standing(shop, &id).await {
            Err(CheckoutError::Saga(SagaError::NotStarted { .. })) => Ok(None),
            standing => Ok(Some((id, standing?))),
        }
    }

    /// Whose checkout it is. A saga knows it before the order is placed; a flow begins with the order.
    pub async fn customer(
        &self,
        shop: &Tenant,
        id: &SagaId,
        standing: &Standing,
    ) -> Result<Option<CustomerId>, CheckoutError> {
        Ok(match standing.flow {
            Flow::Orchestrated => self.begun(shop, id).await?.map(|begun| begun.customer),
            Flow::Choreographed => self.customer_of(shop, &standing.order).await?,
        })
    }

    /// Where a checkout stands.
    pub async fn standing(&self, shop: &Tenant, id: &SagaId) -> Result<Standing, CheckoutError> {
        let (flow, order) = flow_and_order(id)?;
        let status = self.sagas.tenant(shop.clone()).status(id).await?;
        let retries = match flow {
            Flow::Orchestrated => status.next_try.is_some(),
            // The reactor calls again by itself, and nothing is recorded of that.
            Flow::Choreographed => !status.done.iter().any(|step| step == PAID) && self.payment_is_not_asked(),
        };
        let answer = match status.status {
            Status::Completed => "completed",
            Status::Compensated => "undone",
            Status::Compensating => "is undone",
            Status::Stuck => "waits for a person",
            _ if retries => RETRIES,
            _ => PENDING,
        };
        let next_try = status.next_try.map(|at| at.round(Unit::Microsecond).unwrap_or(at));
        // That a call has failed before it was made again is no reason for a checkout to be completed.
        let reason = status.reason.filter(|_| status.status != Status::Completed);
        Ok(Standing { id: id.to_string(), order, flow, status: status.status, answer, reason, next_try })
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

    /// What happened in a checkout, for its customer or for staff.
    pub async fn timeline(
        &self,
        shop: &Tenant,
        id: &SagaId,
        shown: fn(&mut SagaEvent),
    ) -> Result<Vec<Moment>, CheckoutError> {
        let events = timeline(&self.store, shop, id).await?;
        let moments = events.into_iter().filter_map(|mut event| {
            shown(&mut event.event);
            let line = super::timeline::line(&event.event)?;
            let (name, step) = (event.event.shape().name, super::timeline::step(&event.event).map(str::to_owned));
            Some(Moment { at: event.recorded_at, event: line, name, step })
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

/// Which checkout an id names.
pub fn flow_and_order(id: &SagaId) -> Result<(Flow, OrderId), Invalid> {
    let id = id.as_str();
    match (id.strip_prefix(SAGA), id.strip_prefix(FLOW)) {
        (Some(order), _) => Ok((Flow::Orchestrated, OrderId::new(order)?)),
        (_, Some(order)) => Ok((Flow::Choreographed, OrderId::new(order)?)),
        _ => Err(Invalid::new("checkout", format!("`{id}` is none"), "take the id that it was begun with")),
    }
}
