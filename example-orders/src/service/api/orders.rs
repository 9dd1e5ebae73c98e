//! One order: as it is, as it was, and how it came to be so.

use annals::resilience::Deadline;
use annals::{AsOf, Context, Event};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::order::OrderEvent;
use crate::read_models::customers::Customers;
use crate::read_models::detail::OrderDetail;
use crate::service::access::Caller;
use crate::service::api::views::{FieldChange, HistoryEvent, OrderDetails, OrderHistory};
use crate::service::app::App;
use crate::service::ask::{Asked, OrderPath, moment};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(detail)).routes(routes!(history))
}

/// When.
#[derive(Deserialize, Default, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DetailQuery {
    /// The order as it was, at a time such as 2026-03-02T09:30:00Z. The name of its customer is that of now.
    pub as_of: Option<String>,
    /// `X-Position` of a write: the order has it.
    pub at_least: Option<String>,
}

/// One order with all details, as it is or as it was.
#[utoipa::path(get, path = "/orders/{order}", operation_id = "get_order", tag = "orders", params(("order" = String, Path), DetailQuery),
    responses((status = 200, body = OrderDetails)), security(("api_key" = ["customer", "admin"])))]
pub async fn detail(
    State(app): State<App>,
    caller: Caller,
    deadline: Deadline,
    OrderPath(order): OrderPath,
    Asked(query): Asked<DetailQuery>,
) -> Result<Json<OrderDetails>, Problem> {
    app.shows::<OrderDetail>(query.at_least.as_deref(), deadline).await?;
    let views = &app.shop.views;
    let none = || Problem::not_found("order", &order);
    let row = match &query.as_of {
        None => {
            app.query(&caller.tenant, deadline, || views.find_of_tenant::<OrderDetail>(&caller.tenant, &order)).await
        }
        // Only the events of this order are read.
        Some(time) => {
            let time = AsOf::time(moment(time)?);
            app.query(&caller.tenant, deadline, || {
                views.find_of_tenant_as_of::<OrderDetail>(&caller.tenant, &order, time)
            })
            .await
            .map(|then| then.row)
        }
    };
    let row = match row {
        Ok(row) => row.filter(|row| caller.sees(&row.customer)).ok_or_else(none)?,
        Err(problem) => return Err(app.of_unreadable(&caller, &order, problem, none()).await),
    };
    let named = app
        .query(&caller.tenant, deadline, || views.find_of_tenant::<Customers>(&caller.tenant, &row.customer))
        .await?;
    Ok(Json(OrderDetails::of(row, named.map(|named| named.name))))
}

/// All events of an order, what each of them says, and what it changed. It is read from the events themselves, and so is never behind.
#[utoipa::path(get, path = "/orders/{order}/history", operation_id = "get_order_history", tag = "orders", params(("order" = String, Path)),
    responses((status = 200, body = OrderHistory)), security(("api_key" = ["customer", "admin"])))]
pub async fn history(
    State(app): State<App>,
    caller: Caller,
    deadline: Deadline,
    OrderPath(order): OrderPath,
) -> Result<Json<OrderHistory>, Problem> {
    let orders = app.shop.orders.with(Context::of(caller.tenant.clone()));
    let none = || Problem::not_found("order", &order);
    let steps = match app.query(&caller.tenant, deadline, || orders.history(&order)).await {
        Ok(steps) => steps,
        Err(problem) => return Err(app.of_unreadable(&caller, &order, problem, none()).await),
    };
    let customer = steps.last().and_then(|step| step.state.customer.as_ref());
    if !customer.is_some_and(|customer| caller.sees(customer)) {
        return Err(none());
    }
    let events = steps.into_iter().map(|step| -> Result<_, Problem> {
        // An event of an order is read as one, also if it is an older one.
        let event = step.event.typed::<OrderEvent>()?.into_iter().next();
        let data = event.as_ref().map(|event| event.event.encode()).transpose()?;
        let data = data.map(|data| serde_json::from_str(data.as_str())).transpose().map_err(|e| Problem::broken(&e))?;
        Ok(HistoryEvent {
            event_id: step.event.event_id.to_string(),
            caused_by: step.event.metadata.causation_id.as_ref().map(ToString::to_string),
            reason: event.as_ref().and_then(|event| reason(&event.event)),
            data: data.unwrap_or_default(),
            version: step.event.version.get(),
            event: step.event.name.to_string(),
            at: step.event.recorded_at,
            by: step.event.metadata.actor.as_ref().map(ToString::to_string),
            request_id: step.event.metadata.correlation_id.as_ref().map(ToString::to_string),
            changed: step
                .changed
                .into_iter()
                .map(|c| FieldChange { field: c.field, before: c.before, after: c.after })
                .collect(),
        })
    });
    Ok(Json(OrderHistory { events: events.collect::<Result<_, _>>()? }))
}

/// What somebody has said about it.
fn reason(event: &OrderEvent) -> Option<String> {
    match event {
        OrderEvent::Cancelled { reason } | OrderEvent::Returned { reason } => Some(reason.clone()),
        _ => None,
    }
}
