//! For those who run the service: how far the read models are, and the sums over all shops.

use annals::projections::Verdict;
use annals::resilience::Deadline;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::read_models::analytics::DailySales;
use crate::service::api::analytics::{DAYS, DaysQuery, Sales};
use crate::service::app::App;
use crate::service::ask::Asked;
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(projections)).routes(routes!(sales))
}

/// How far the read models are.
#[derive(Serialize, ToSchema)]
struct Progress {
    projections: Vec<OneProgress>,
}

/// How far one read model is.
#[derive(Serialize, ToSchema)]
struct OneProgress {
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
#[utoipa::path(get, path = "/operator/projections", tag = "operator",
    responses((status = 200, body = Progress)), security(("api_key" = ["operator"])))]
async fn projections(State(app): State<App>) -> Json<Progress> {
    let health = app.shop.views.health().await;
    let projections = health.into_iter().map(|one| OneProgress {
        name: one.name.to_string(),
        position: one.position.get(),
        behind: one.behind,
        lag_ms: one.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        failed: matches!(one.verdict, Verdict::Failed { .. }),
        verdict: format!("{:?}", one.verdict),
    });
    Json(Progress { projections: projections.collect() })
}

/// The sales of all shops together, by day.
#[utoipa::path(get, path = "/operator/sales", tag = "operator", params(DaysQuery),
    responses((status = 200, body = Sales)), security(("api_key" = ["operator"])))]
async fn sales(
    State(app): State<App>,
    deadline: Deadline,
    Asked(query): Asked<DaysQuery>,
) -> Result<Json<Sales>, Problem> {
    query.without_as_of()?;
    app.shows::<DailySales>(query.at_least.as_deref(), deadline).await?;
    let (from, to) = query.days();
    let rows = app.shop.views.select::<DailySales>(DAYS, &[&from, &to]).await?;
    Ok(Json(Sales::of(rows.into_iter())))
}
