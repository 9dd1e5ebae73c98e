//! For those who run the service: how far the read models are, and the sums over all shops.

use annals::projections::{ProjectionHealth, QueryValue, Verdict};
use annals::resilience::Deadline;
use axum::Json;
use axum::extract::State;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::read_models::analytics::DailySales;
use crate::service::access::{Caller, OfNoShop};
use crate::service::api::analytics::{DAYS, DaysQuery, Sales};
use crate::service::app::App;
use crate::service::ask::Asked;
use crate::service::health::told;
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(projections)).routes(routes!(sales))
}

/// How far the read models are.
#[derive(Serialize, ToSchema)]
struct Progress {
    /// Read models, and reactors.
    projections: Vec<OneProgress>,
}

/// How far one read model is.
#[derive(Serialize, ToSchema)]
struct OneProgress {
    /// What it is called.
    name: String,
    /// Everything up to here is shown.
    position: i64,
    /// How many positions the end of the log is ahead.
    behind: Option<u64>,
    /// How old the first event is that is not shown.
    lag_ms: Option<u64>,
    /// Whether it has failed, and needs somebody.
    failed: bool,
    /// What a supervisor should think of it.
    verdict: String,
}

/// How far the read models are.
#[utoipa::path(get, path = "/operator/projections", operation_id = "list_projections", tag = "operator",
    responses((status = 200, body = Progress)), security(("api_key" = ["operator"])))]
async fn projections(State(app): State<App>, caller: Caller) -> Json<Progress> {
    let health = app.shop.views.health().await;
    let verdict = |one: &ProjectionHealth| match told(&app, &caller, one) {
        // Their number is that of all shops.
        Verdict::Degraded { .. } if !app.keys.is_of_no_shop(&caller.key) => "Degraded".to_owned(),
        verdict => format!("{verdict:?}"),
    };
    let projections = health.into_iter().map(|one| OneProgress {
        verdict: verdict(&one),
        name: one.name.to_string(),
        position: one.position.get(),
        behind: one.behind,
        lag_ms: one.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        failed: matches!(one.verdict, Verdict::Failed { .. }),
    });
    Json(Progress { projections: projections.collect() })
}

/// Which days. The sums over all shops are those of now.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AllDaysQuery {
    /// The first day, such as 2026-03-02; the first of all if it is left out.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Date>,
    /// The last day; the last of all if it is left out.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Date>,
    /// `X-Position` of a write: the sales have it.
    at_least: Option<String>,
}

/// The sales of all shops together, by day; with the key of an operator of no shop.
#[utoipa::path(get, path = "/operator/sales", operation_id = "list_sales_of_all_shops", tag = "operator", params(AllDaysQuery),
    responses((status = 200, body = Sales)), security(("api_key" = ["operator"])))]
async fn sales(
    State(app): State<App>,
    deadline: Deadline,
    Asked(AllDaysQuery { from, to, at_least }): Asked<AllDaysQuery>,
    _: OfNoShop,
) -> Result<Json<Sales>, Problem> {
    app.shows::<DailySales>(at_least.as_deref(), deadline).await?;
    let (from, to) = DaysQuery { from, to, ..DaysQuery::default() }.days();
    let days: [&dyn QueryValue; 2] = [&from, &to];
    let rows = app.report(deadline, || app.shop.views.select::<DailySales>(DAYS, &days)).await?;
    Ok(Json(Sales::of(rows.into_iter())))
}
