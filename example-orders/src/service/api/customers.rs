//! A customer: name, sums, and all orders, newest first, by `GET /orders?customer=`.

use annals::projections::QueryValue;
use annals::resilience::Deadline;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::customer::Name;
use crate::domain::money::Money;
use crate::domain::order::CustomerId;
use crate::read_models::customers::Customers;
use crate::read_models::list::OrderList;
use crate::read_models::statement::CustomerStatement;
use crate::service::access::Caller;
use crate::service::api::views::OrderLine;
use crate::service::api::write::Write;
use crate::service::app::App;
use crate::service::ask::{Asked, Body, CustomerPath};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(history, name))
}

/// When.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CustomerQuery {
    /// `X-Position` of a write: what is answered has it.
    at_least: Option<String>,
}

/// A customer, and what the customer has ordered.
#[derive(Serialize, ToSchema)]
struct CustomerHistory {
    /// The id.
    #[schema(value_type = String)]
    customer: CustomerId,
    /// Nothing if the shop does not know it.
    name: Option<String>,
    /// Since when the shop knows the name.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// The number of orders.
    orders: i64,
    /// What they cost together, by currency.
    ordered: Vec<Money>,
    /// The last ones, newest first; `GET /orders?customer=` has all.
    latest: Vec<OrderLine>,
}

/// The customer's sums.
const SUMS: &str = "customer = $1 ORDER BY currency";
/// The customer's last orders.
const LATEST: &str = "customer = $1 ORDER BY placed_at DESC LIMIT 10";

/// A customer, and what the customer has ordered.
#[utoipa::path(get, path = "/customers/{customer}", operation_id = "get_customer", tag = "customers", params(("customer" = String, Path), CustomerQuery),
    responses((status = 200, body = CustomerHistory)), security(("api_key" = ["customer", "admin"])))]
async fn history(
    State(app): State<App>,
    caller: Caller,
    deadline: Deadline,
    CustomerPath(customer): CustomerPath,
    Asked(query): Asked<CustomerQuery>,
) -> Result<Json<CustomerHistory>, Problem> {
    caller.only(Some(customer.clone()))?;
    app.shows::<OrderList>(query.at_least.as_deref(), deadline).await?;
    app.shows::<CustomerStatement>(query.at_least.as_deref(), deadline).await?;
    app.shows::<Customers>(query.at_least.as_deref(), deadline).await?;
    let (views, tenant) = (&app.shop.views, &caller.tenant);
    let named = app.query(tenant, deadline, || views.find_of_tenant::<Customers>(tenant, &customer)).await?;
    let of_customer: [&dyn QueryValue; 1] = [&customer];
    let sums = || views.select_of_tenant::<CustomerStatement>(tenant, SUMS, &of_customer);
    let sums = app.query(tenant, deadline, sums).await?;
    if named.is_none() && sums.is_empty() {
        return Err(Problem::not_found("customer", &customer));
    }
    let latest =
        app.query(tenant, deadline, || views.select_of_tenant::<OrderList>(tenant, LATEST, &of_customer)).await?;
    let orders = sums.iter().map(|row| row.orders).sum();
    let ordered = sums.iter().filter(|row| row.orders > 0);
    let ordered = ordered.map(|row| Money { minor: row.ordered, currency: row.currency }).collect();
    let (name, since) = named.map(|named| (named.name, named.since)).unzip();
    let latest = latest.into_iter().map(|row| OrderLine::of(row, name.clone())).collect();
    Ok(Json(CustomerHistory { customer, since, orders, ordered, latest, name }))
}

/// A name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "Alice Adams" }))]
struct NewName {
    /// The name, as the customer writes it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// The customer as it is called now.
#[derive(Serialize, ToSchema)]
struct Named {
    /// The id.
    #[schema(value_type = String)]
    customer: CustomerId,
    /// The name.
    name: Option<String>,
}

/// Give a customer a name, for the first time or another one.
#[utoipa::path(put, path = "/customers/{customer}", operation_id = "name_customer", tag = "customers", params(("customer" = String, Path)),
    request_body = NewName, responses((status = 200, body = Named)), security(("api_key" = ["customer", "admin"])))]
async fn name(
    write: Write,
    CustomerPath(customer): CustomerPath,
    Body(NewName { name }): Body<NewName>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Named>), Problem> {
    write.caller.only(Some(customer.clone()))?;
    if name.chars().any(char::is_control) {
        return Err(Problem::from(crate::domain::customer::NoName));
    }
    let command = Name { name };
    let customers = write.once(&write.app.shop.customers, &customer, &command)?;
    let done = write.command(customers.send(&customer, command)).await?;
    let name = done.state.name.clone();
    Ok((write.app.position(done.position), Json(Named { customer, name })))
}
