//! A command over HTTP: decided on the state of the order, for a caller, once per idempotency key.
//!
//! Two things see to the once. The receiver in front of all routes keeps whole answers for some minutes, of what was done; a refusal
//! is decided anew each time. Under it the key is stored with the events, in the same append, so that a repeat finds what was done later,
//! after a crash and at another process too.

use std::fmt;
use std::future::Future;

use annals::resilience::{Deadline, IdempotencyKey};
use annals::{Aggregate, Context, Decide, Executed, Repository, RequestKey, Tenant};
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::money::Money;
use crate::domain::order::{Order, OrderCommand, OrderError, OrderId, Status};
use crate::service::access::Caller;
use crate::service::app::App;
use crate::service::problem::Problem;
use crate::service::trace::Trace;

/// All that a write needs of its request, beside what it asks for.
pub struct Write {
    pub app: App,
    pub caller: Caller,
    pub key: IdempotencyKey,
    deadline: Deadline,
    trace: Trace,
}

/// What a write answers: the order after it. `X-Position` has the position.
#[derive(Serialize, ToSchema)]
pub struct Written {
    /// The order.
    #[schema(value_type = String)]
    pub order_id: OrderId,
    /// Its status now.
    pub status: Status,
    /// Its total price.
    pub total: Option<Money>,
    /// What is paid and not refunded.
    pub paid: Option<Money>,
    /// How many events it has.
    pub version: i64,
}

/// The answer of a write.
pub type Answer = ([(HeaderName, HeaderValue); 1], Json<Written>);

impl FromRequestParts<App> for Write {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let bad_key = |e: annals::resilience::receiver::NoKey| Problem::bad("idempotency-key-invalid", e);
        let key = IdempotencyKey::from_request_parts(parts, app).await.map_err(bad_key)?;
        let bad = |e| Problem::bad("deadline-invalid", format!("{e}"));
        let deadline = Deadline::from_request_parts(parts, app).await.map_err(bad)?;
        let trace = parts.extensions.get().cloned().ok_or_else(|| Problem::bad("trace", "the request has no id"))?;
        Ok(Self { app: app.clone(), caller, key, deadline, trace })
    }
}

/// Why an order is not changed.
#[derive(Debug)]
pub enum Refused {
    /// There is no such order for this caller.
    NotFound(OrderId),
    /// The rules of the domain say no.
    Rejected(OrderError),
}

impl Write {
    /// Changes an order that the caller sees.
    pub async fn change(&self, order: &OrderId, command: OrderCommand) -> Result<Answer, Problem> {
        let orders = self.once(&self.app.shop.orders, order, &command)?;
        let decide = |state: &Order| match &state.customer {
            // One that was never placed, and one of somebody else: a caller cannot tell them apart.
            Some(customer) if self.caller.sees(customer) => state.decide(&command).map_err(Refused::Rejected),
            _ => Err(Refused::NotFound(order.clone())),
        };
        match self.command(orders.execute(order, decide)).await {
            Ok(done) => Ok(self.answer(order, &done)),
            Err(problem) => {
                Err(self.app.of_unreadable(&self.caller, order, problem, Problem::not_found("order", order)).await)
            }
        }
    }

    /// Places an order.
    pub async fn place(&self, order: &OrderId, command: OrderCommand) -> Result<Answer, Problem> {
        let orders = self.once(&self.app.shop.orders, order, &command)?;
        Ok(self.answer(order, &self.command(orders.send(order, command)).await?))
    }

    /// The repository as this request uses it: its tenant, who it is, where it comes from, its deadline and its key.
    pub fn once<A: Aggregate<Id: fmt::Display> + annals::Evolve>(
        &self,
        of: &Repository<A>,
        id: &A::Id,
        command: &impl Serialize,
    ) -> Result<Repository<A>, Problem> {
        Ok(of.with(self.keyed::<A>(&self.caller.tenant, id, command)?))
    }

    /// The same for those who have the repository.
    pub fn keyed<A: Aggregate<Id: fmt::Display>>(
        &self,
        tenant: &Tenant,
        id: &A::Id,
        command: &impl Serialize,
    ) -> Result<Context, Problem> {
        // The whole request, with the id that the path has.
        let request = (A::TYPE, id.to_string(), command);
        let request = RequestKey::of_caller(&self.caller.name(), self.key.as_str(), &request)?;
        Ok(self.context_in(tenant)?.with_request(request))
    }

    /// A command, in its pool and before the deadline.
    pub async fn command<T, E: Into<Problem>>(
        &self,
        command: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Problem> {
        self.app.command(self.deadline, command).await
    }

    /// Whose request it is, where it comes from, and its deadline.
    pub fn context(&self) -> Result<Context, Problem> {
        self.context_in(&self.caller.tenant)
    }

    fn context_in(&self, tenant: &Tenant) -> Result<Context, Problem> {
        Ok(Context::of(tenant.clone())
            .with_actor(self.caller.actor()?)
            .with_correlation(self.trace.correlation()?)
            .with_trace_parent(self.trace.trace_parent()?)
            .with_deadline(self.deadline))
    }

    /// How long something may be waited for, so that there is still an answer before the deadline.
    pub fn deadline_of_wait(&self) -> Deadline {
        self.deadline.left().map_or(self.deadline, |left| self.deadline.child(left.mul_f64(0.9)))
    }

    fn answer(&self, order: &OrderId, done: &Executed<Order>) -> Answer {
        let Order { status, total, paid, .. } = &*done.state;
        let written = Written {
            order_id: order.clone(),
            status: *status,
            total: *total,
            paid: paid.as_ref().map(|(_, amount)| *amount),
            version: done.version.get(),
        };
        (self.app.position(done.position), Json(written))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(order) => write!(f, "there is no order `{order}`"),
            Self::Rejected(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound(order) => Self::not_found("order", order),
            Refused::Rejected(error) => error.into(),
        }
    }
}
