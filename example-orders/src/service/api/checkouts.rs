//! Checkouts: begin one, see where it stands, and decide about one that waits for a person.
//!
//! A checkout calls three services, and goes on whether or not anybody waits for it. So the answer is where it has ended, or that it
//! goes on, and where to look.

use annals::sagas::{By, Intervention, SagaId};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::checkout::timeline::{for_its_customer, for_staff, line, why_for_its_customer};
use crate::checkout::{Flow, Moment, Standing, flow_and_order};
use crate::domain::order::OrderId;
use crate::service::access::{Caller, Role};
use crate::service::api::steps::{NewOrder, short};
use crate::service::api::write::Write;
use crate::service::app::App;
use crate::service::ask::{Asked, Body, OrderPath};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(begin)).routes(routes!(show)).routes(routes!(decide)).routes(routes!(stuck))
}

/// In which variant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FlowQuery {
    /// Who directs it; a saga, if nothing is said.
    #[serde(default)]
    #[param(inline)]
    flow: Flow,
}

/// Place an order, pay it, set its pieces aside and ship it; or cancel it, where that is not possible.
#[utoipa::path(post, path = "/checkouts", operation_id = "begin_checkout", tag = "checkouts", request_body = NewOrder, params(FlowQuery),
    responses(
        (status = 200, description = "It has ended.", body = Standing),
        (status = 202, description = "It goes on, or waits for a person; `Location` is where to look.", body = Standing)
    ), security(("api_key" = ["customer", "admin"])))]
async fn begin(write: Write, Asked(query): Asked<FlowQuery>, Body(new): Body<NewOrder>) -> Result<Response, Problem> {
    let (app, shop) = (&write.app, &write.caller.tenant);
    let (cart, context) = (new.cart(&write)?, write.context()?);
    let id = write.command(app.checkouts.begin(query.flow, cart, &context)).await?;
    let standing = tokio::select! {
        standing = app.checkouts.wait(shop, &id, write.deadline_of_wait()) => standing?,
        // The service stops. The checkout goes on in another process, or after the next start.
        () = app.drain.begun() => app.checkouts.standing(shop, &id).await?,
    };
    // What the checkout has written to the order is before the end of the log.
    let position = app.position(app.shop.store.head().await?.position);
    let standing = shown(&write.caller, standing);
    if standing.status.is_final() {
        return Ok((position, Json(standing)).into_response());
    }
    let place = format!("/orders/{}/checkout", standing.order);
    let headers = [(header::LOCATION, place), (header::RETRY_AFTER, "1".to_owned())];
    Ok((StatusCode::ACCEPTED, position, headers, Json(standing)).into_response())
}

/// A checkout, and how it came to be so.
#[derive(Serialize, ToSchema)]
struct CheckoutDetails {
    /// Where it stands.
    standing: Standing,
    /// Its row in `saga_instances`, which may come a moment later. Not for customers.
    #[schema(value_type = Option<Object>)]
    row: Option<Value>,
    /// What has happened.
    timeline: Vec<Moment>,
}

/// Where the checkout of an order stands, and what has happened in it.
#[utoipa::path(get, path = "/orders/{order}/checkout", operation_id = "get_checkout", tag = "checkouts", params(("order" = String, Path)),
    responses((status = 200, body = CheckoutDetails)), security(("api_key" = ["customer", "admin", "operator"])))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    OrderPath(order): OrderPath,
) -> Result<Json<CheckoutDetails>, Problem> {
    let (id, standing) = find(&app, &caller, &order).await?;
    let event_shown = if caller.role == Role::Customer { for_its_customer } else { for_staff };
    let timeline = app.checkouts.timeline(&caller.tenant, &id, event_shown).await?;
    let standing = shown(&caller, standing);
    let row = app.checkouts.sagas.tenant(caller.tenant).find(&id).await?;
    let row = row.filter(|_| caller.role != Role::Customer).map(|row| {
        json!({
            "saga_type": row.saga_type, "current_step": row.current_step, "attempt": row.attempt, "status": row.status,
            "version": row.version, "created_at": row.created_at, "updated_at": row.updated_at, "wake_at": row.wake_at,
            "deadline": row.deadline, "last_error": row.last_error, "correlation_id": row.correlation_id,
        })
    });
    Ok(Json(CheckoutDetails { standing, row, timeline }))
}

/// What a caller is shown. What services say is not for customers: it may name machines.
fn shown(caller: &Caller, standing: Standing) -> Standing {
    if caller.role != Role::Customer {
        return standing;
    }
    let reason = standing.reason.map(|_| why_for_its_customer(standing.status).to_owned());
    Standing { reason, ..standing }
}

/// The checkout of an order, if the caller sees it. One of somebody else is answered like none.
pub async fn find(app: &App, caller: &Caller, order: &OrderId) -> Result<(SagaId, Standing), Problem> {
    let none = || Problem::not_found("checkout of an order", order);
    match seen(app, caller, order).await {
        Ok(found) => found.ok_or_else(none),
        Err(problem) => Err(app.of_unreadable(caller, order, problem, none()).await),
    }
}

async fn seen(app: &App, caller: &Caller, order: &OrderId) -> Result<Option<(SagaId, Standing)>, Problem> {
    let Some((id, standing)) = app.checkouts.find(&caller.tenant, order).await? else { return Ok(None) };
    // The others see all, also those of which it cannot be read whose they are.
    let is_seen = caller.role != Role::Customer
        || app.checkouts.customer(&caller.tenant, &id, &standing).await?.is_some_and(|customer| caller.sees(&customer));
    Ok(is_seen.then_some((id, standing)))
}

/// What somebody decides.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "decision": "retry", "reason": "the carrier is open again", "dry_run": true }))]
struct Decide {
    /// What is decided.
    decision: Decision,
    /// The reason, for people.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
    /// Nothing is changed unless it is said that this is no dry run.
    #[serde(default = "yes")]
    dry_run: bool,
}

fn yes() -> bool {
    true
}

/// What can be decided about a checkout. Of one that is stuck: `retry`, the failed step gets all its attempts again; `skip`, it counts as
/// done, or as undone; `compensate`, the finished steps are undone, before the pivot alone; `complete`, it counts as completed. Of one that
/// runs, before its pivot: `cancel`, it is given up, and its finished steps are undone.
#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Decision {
    /// The failed step gets all its attempts again.
    Retry,
    /// The failed step counts as done, or as undone.
    Skip,
    /// The finished steps are undone.
    Compensate,
    /// It counts as completed.
    Complete,
    /// One that runs is given up: its finished steps are undone.
    Cancel,
}

impl From<Decision> for Intervention {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Retry => Self::Retry,
            Decision::Skip => Self::Skip,
            Decision::Compensate => Self::Compensate,
            Decision::Complete => Self::Complete,
            Decision::Cancel => Self::Cancel,
        }
    }
}

/// What a decision leads to.
#[derive(Serialize, ToSchema)]
struct Decided {
    /// Of a dry run: what the decision would record.
    #[serde(skip_serializing_if = "Option::is_none")]
    would: Option<Vec<String>>,
    /// Where the checkout stands now.
    standing: Standing,
}

/// Decide about a checkout of the shop of the key; or, as long as `dry_run` is not `false`, see what the decision would record.
#[utoipa::path(post, path = "/orders/{order}/checkout/decision", operation_id = "decide_about_checkout", tag = "checkouts", request_body = Decide,
    params(("order" = String, Path)), responses((status = 200, body = Decided)), security(("api_key" = ["operator"])))]
async fn decide(
    write: Write,
    OrderPath(order): OrderPath,
    Body(Decide { decision, reason, dry_run }): Body<Decide>,
) -> Result<Json<Decided>, Problem> {
    let (checkouts, shop) = (&write.app.checkouts, &write.caller.tenant);
    let (id, _) = find(&write.app, &write.caller, &order).await?;
    let by = By::new(&*write.caller.key, short("reason", reason)?)?;
    let would = if dry_run {
        let would = checkouts.preview(shop, &id, decision.into(), &by).await?;
        Some(would.iter().filter_map(line).collect())
    } else {
        // It is stored with the decision, so that a repeat after a crash is found to be one.
        let by = by.request(format!("{}/{}", write.caller.name(), write.key.as_str()));
        checkouts.decide(shop, &id, decision.into(), &by).await?;
        None
    };
    Ok(Json(Decided { would, standing: checkouts.standing(shop, &id).await? }))
}

/// Those that wait for a person.
#[derive(Serialize, ToSchema)]
struct StuckCheckouts {
    /// The first hundred, those that wait longest first.
    checkouts: Vec<StuckCheckout>,
}

/// One that waits for a person.
#[derive(Serialize, ToSchema)]
struct StuckCheckout {
    /// What names it.
    id: String,
    /// Its order, by which it is decided about.
    #[schema(value_type = String)]
    order: OrderId,
    /// Who directs it.
    flow: Flow,
    /// The step in the way.
    current_step: Option<String>,
    /// Since when it waits.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Why.
    reason: Option<String>,
}

/// The checkouts of the shop of the key that wait for a person.
#[utoipa::path(get, path = "/checkouts/stuck", operation_id = "list_stuck_checkouts", tag = "checkouts",
    responses((status = 200, body = StuckCheckouts)), security(("api_key" = ["operator"])))]
async fn stuck(State(app): State<App>, caller: Caller) -> Result<Json<StuckCheckouts>, Problem> {
    let rows = app.checkouts.sagas.tenant(caller.tenant).stuck(100).await?;
    let checkouts = rows.into_iter().map(|row| -> Result<_, Problem> {
        let (flow, order) = flow_and_order(&SagaId::new(&row.saga_id)?)?;
        let (current_step, since, reason) = (row.current_step, row.updated_at, row.last_error);
        Ok(StuckCheckout { id: row.saga_id, order, flow, current_step, since, reason })
    });
    Ok(Json(StuckCheckouts { checkouts: checkouts.collect::<Result<_, _>>()? }))
}
