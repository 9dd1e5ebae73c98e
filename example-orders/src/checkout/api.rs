//! Checkouts over HTTP: begin one, see where it stands, and decide about one that is stuck.
//!
//! A layer in front of these routes says who asks, and leaves [`Visitor`] in the request; without it nobody is answered. To begin a
//! checkout again with the same order and cart is the same checkout, so the request needs no other key.

use annals::resilience::Deadline;
use annals::sagas::{By, Intervention, SagaError, SagaId};
use annals::{Context, ErrorFamily, Tenant, engine::TraceParent};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::handle::{Cart, CheckoutError, Checkouts, Flow, id};
use super::standing::Standing;
use super::timeline::line;
use crate::domain::order::{CustomerId, Line, OrderId};
use crate::services::TRACE;

/// Who asks, as the layer in front has found out.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Of which shop.
    pub shop: Tenant,
    /// Their name, for decisions.
    pub name: String,
    /// Whether they may decide about checkouts that are stuck.
    pub is_operator: bool,
}

/// The routes, to be merged into those of a service.
pub fn routes(checkouts: Checkouts) -> Router {
    Router::new()
        .route("/orders/{order}/checkout", post(begin).get(show))
        .route("/orders/{order}/checkout/decision", post(decide))
        .route("/checkouts/stuck", get(stuck))
        .with_state(checkouts)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    #[serde(default)]
    flow: Flow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    customer: CustomerId,
    lines: Vec<Line>,
}

/// `POST /orders/{order}/checkout?flow=choreographed`: 200 when it has ended, or 202 with where to look.
async fn begin(
    State(checkouts): State<Checkouts>,
    Extension(visitor): Extension<Visitor>,
    deadline: Deadline,
    Path(order): Path<OrderId>,
    Query(Ask { flow }): Query<Ask>,
    headers: HeaderMap,
    Json(Body { customer, lines }): Json<Body>,
) -> Result<Response, CheckoutError> {
    let mut context = Context::of(visitor.shop.clone()).with_deadline(deadline);
    if let Some(trace) = headers.get(TRACE).and_then(|trace| trace.to_str().ok()) {
        context = context.with_trace_parent(TraceParent::new(trace)?);
    }
    let id = checkouts.begin(flow, Cart { order, customer, lines }, &context).await?;
    Ok(answer(checkouts.wait(&visitor.shop, &id, deadline).await?))
}

/// Where a checkout stands: as an answer that is final, or one that says when to ask again.
fn answer(standing: Standing) -> Response {
    if standing.status.is_final() {
        return Json(standing).into_response();
    }
    let place = format!("/orders/{}/checkout", standing.order);
    let headers = [(header::LOCATION, place), (header::RETRY_AFTER, "1".to_owned())];
    (StatusCode::ACCEPTED, headers, Json(standing)).into_response()
}

/// `GET /orders/{order}/checkout`: where it stands, its row in `saga_instances`, and what has happened.
async fn show(
    State(checkouts): State<Checkouts>,
    Extension(visitor): Extension<Visitor>,
    Path(order): Path<OrderId>,
) -> Result<Response, CheckoutError> {
    let (id, standing) = find(&checkouts, &visitor.shop, &order).await?;
    let timeline = checkouts.timeline(&visitor.shop, &id).await?;
    // The row may come a moment later.
    let row = checkouts.sagas.tenant(visitor.shop).find(&id).await?;
    let row = row.map(|row| {
        json!({
            "saga_type": row.saga_type, "current_step": row.current_step, "attempt": row.attempt, "status": row.status,
            "version": row.version, "created_at": row.created_at, "updated_at": row.updated_at, "wake_at": row.wake_at,
            "deadline": row.deadline, "last_error": row.last_error, "correlation_id": row.correlation_id,
        })
    });
    Ok(Json(json!({ "standing": standing, "row": row, "timeline": timeline })).into_response())
}

/// The checkout of an order, whoever directs it.
async fn find(checkouts: &Checkouts, shop: &Tenant, order: &OrderId) -> Result<(SagaId, Standing), CheckoutError> {
    let by_saga = id(Flow::Orchestrated, order)?;
    match checkouts.standing(shop, &by_saga).await {
        Err(CheckoutError::Saga(SagaError::NotStarted { .. })) => {
            let flow = id(Flow::Choreographed, order)?;
            let standing = checkouts.standing(shop, &flow).await?;
            Ok((flow, standing))
        }
        standing => Ok((by_saga, standing?)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decide {
    decision: Intervention,
    reason: String,
    /// Nothing is changed unless it is said that this is no dry run.
    #[serde(default = "yes")]
    dry_run: bool,
}

fn yes() -> bool {
    true
}

/// `POST /orders/{order}/checkout/decision`: what a decision would record; or, with `"dry_run": false`, the decision.
async fn decide(
    State(checkouts): State<Checkouts>,
    Extension(visitor): Extension<Visitor>,
    Path(order): Path<OrderId>,
    Json(Decide { decision, reason, dry_run }): Json<Decide>,
) -> Result<Response, CheckoutError> {
    if !visitor.is_operator {
        return Ok(problem(StatusCode::FORBIDDEN, "role", "decisions about checkouts are for operators"));
    }
    let (id, _) = find(&checkouts, &visitor.shop, &order).await?;
    let by = By::new(visitor.name, reason)?;
    if dry_run {
        let would = checkouts.preview(&visitor.shop, &id, decision, &by).await?;
        let would: Vec<String> = would.iter().filter_map(line).collect();
        return Ok(Json(json!({ "dry_run": true, "would": would })).into_response());
    }
    checkouts.decide(&visitor.shop, &id, decision, &by).await?;
    Ok(Json(checkouts.standing(&visitor.shop, &id).await?).into_response())
}

/// `GET /checkouts/stuck`: those of the shop that wait for a person, the first first.
async fn stuck(
    State(checkouts): State<Checkouts>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, CheckoutError> {
    if !visitor.is_operator {
        return Ok(problem(StatusCode::FORBIDDEN, "role", "the list of stuck checkouts is for operators"));
    }
    let rows = checkouts.sagas.stuck(100).await?;
    let rows = rows.into_iter().filter(|row| row.tenant == visitor.shop).map(|row| {
        json!({ "id": row.saga_id, "current_step": row.current_step, "since": row.updated_at, "reason": row.last_error })
    });
    Ok(Json(rows.collect::<Vec<_>>()).into_response())
}

impl IntoResponse for CheckoutError {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Order(_) => (StatusCode::UNPROCESSABLE_ENTITY, "order-refused"),
            Self::Execute(annals::ExecuteError::Rejected(_)) => (StatusCode::CONFLICT, "order-refused"),
            Self::Saga(SagaError::NotStarted { .. }) => (StatusCode::NOT_FOUND, "no-checkout"),
            Self::Saga(SagaError::StartedBefore { .. }) => (StatusCode::CONFLICT, "other-checkout"),
            Self::Saga(SagaError::WrongStatus { .. }) => (StatusCode::CONFLICT, "not-now"),
            error => match error.family() {
                Some(ErrorFamily::Invalid) => (StatusCode::BAD_REQUEST, "invalid"),
                Some(ErrorFamily::Conflict) => (StatusCode::CONFLICT, "conflict"),
                Some(ErrorFamily::Transient | ErrorFamily::OutcomeUnknown) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "later")
                }
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "broken"),
            },
        };
        problem(status, code, &self.to_string())
    }
}

impl CheckoutError {
    fn family(&self) -> Option<ErrorFamily> {
        match self {
            Self::Invalid(_) => Some(ErrorFamily::Invalid),
            Self::Order(_) => None,
            Self::Execute(error) => error.family(),
            Self::Saga(error) => Some(error.family()),
            Self::Read(error) => Some(error.family()),
            Self::Query(error) => Some(error.family()),
        }
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body =
        json!({ "type": format!("/problems/{code}"), "code": code, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
