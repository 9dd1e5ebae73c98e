//! Where a checkout stands, what happened in it, and what a person decides about it.
//!
//! A checkout goes on whether or not anybody waits for it. So a customer waits for as long as the budget allows, and is told
//! `pending, will retry` where that is of no use: the payment service fails, and is not asked before its breaker lets it.

use std::time::Duration;

use annals::resilience::Deadline;
use annals::resilience::breaker::BreakerState;
use annals::sagas::{By, Intervention, SagaError, SagaEvent, SagaId, Status, timeline};
use annals::{Context, Invalid, Tenant};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::sleep;
use utoipa::ToSchema;

use super::flow::FLOW;
use super::handle::{CheckoutError, Checkouts, Flow, SAGA, id};
use crate::domain::order::{CustomerId, OrderId, Status as OrderStatus};
use crate::services::BUDGET;

/// How long to wait before the next look at a checkout that somebody waits for.
const LOOK: Duration = Duration::from_millis(50);

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
    #[schema(value_type = String)]
    pub status: Status,
    /// `completed`, `undone`, `is undone`, `waits for a person`, `pending` or `pending, will retry`.
    #[schema(value_type = String)]
    pub answer: &'static str,
    /// The last failure, or why it is undone or stuck.
    pub reason: Option<String>,
    /// When the next call is made, if it waits for that.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<Timestamp>,
}

/// One event of a checkout.
#[derive(Serialize, ToSchema, Clone, Debug)]
pub struct Moment {
    /// When it was recorded.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What happened.
    pub event: String,
}

impl Checkouts {
    /// Waits until a checkout has ended or is stuck, and its order knows; for as long as a customer does, or the deadline says. Gives
    /// where it stands then, and at once where the next call is not made in that time, or the breaker of the payment service is open.
    pub async fn wait(&self, shop: &Tenant, id: &SagaId, deadline: Deadline) -> Result<Standing, CheckoutError> {
        let deadline = deadline.child(BUDGET);
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
            Status::Running => {
                let breaker = self.services.payment.policy.breaker();
                Ok(standing.next_try.is_some() && breaker.state() == BreakerState::Open)
            }
            Status::Stuck => Ok(true),
            _ if standing.status.is_final() => self.is_told(shop, standing).await,
            _ => Ok(false),
        }
    }

    /// The checkout of an order, orchestrated or choreographed, if there is one.
    pub async fn find(&self, shop: &Tenant, order: &OrderId) -> Result<Option<(SagaId, Standing)>, CheckoutError> {
        for flow in [Flow::Orchestrated, Flow::Choreographed] {
            let id = id(flow, order)?;
            match self.standing(shop, &id).await {
                Err(CheckoutError::Saga(SagaError::NotStarted { .. })) => {}
                standing => return Ok(Some((id, standing?))),
            }
        }
        Ok(None)
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
            Flow::Choreographed => {
                let orders = self.orders.with(Context::of(shop.clone()));
                orders.load(&standing.order).await?.state.customer.clone()
            }
        })
    }

    /// Where a checkout stands.
    pub async fn standing(&self, shop: &Tenant, id: &SagaId) -> Result<Standing, CheckoutError> {
        let (flow, order) = parse(id)?;
        let status = self.sagas.tenant(shop.clone()).status(id).await?;
        let answer = match status.status {
            Status::Completed => "completed",
            Status::Compensated => "undone",
            Status::Compensating => "is undone",
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

/// Which checkout an id names.
fn parse(id: &SagaId) -> Result<(Flow, OrderId), Invalid> {
    let id = id.as_str();
    match (id.strip_prefix(SAGA), id.strip_prefix(FLOW)) {
        (Some(order), _) => Ok((Flow::Orchestrated, OrderId::new(order)?)),
        (_, Some(order)) => Ok((Flow::Choreographed, OrderId::new(order)?)),
        _ => Err(Invalid::new("checkout", format!("`{id}` is none"), "take the id that it was begun with")),
    }
}
