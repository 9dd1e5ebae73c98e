//! The switches of the service. A switch is thrown with a reason, and who threw it and why is kept. As it concerns all shops, those
//! who run one of them may look at it, and only those who run the service may throw it.

use annals::Tenant;
use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::degradation::{Switched, ToggleId};
use crate::service::access::OfNoShop;
use crate::service::api::steps::short;
use crate::service::api::write::Write;
use crate::service::app::App;
use crate::service::ask::Body;
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(all)).routes(routes!(changes, set))
}

/// The switches.
#[derive(Serialize, ToSchema)]
struct AllToggles {
    /// All of them.
    toggles: Vec<OneToggle>,
}

/// One switch.
#[derive(Serialize, ToSchema)]
struct OneToggle {
    /// What it is called.
    name: String,
    /// Whether the feature is on, in this process.
    on: bool,
}

/// Which features are on. It is answered from memory, so also while the database is gone.
#[utoipa::path(get, path = "/operator/toggles", operation_id = "list_toggles", tag = "operator",
    responses((status = 200, body = AllToggles)), security(("api_key" = ["operator"])))]
async fn all(State(app): State<App>) -> Json<AllToggles> {
    let toggles = app.degradation.toggles.all();
    let toggles = toggles.into_iter().map(|(name, on)| OneToggle { name: name.to_owned(), on });
    Json(AllToggles { toggles: toggles.collect() })
}

/// What has happened to a switch.
#[derive(Serialize, ToSchema)]
struct ToggleChanges {
    /// What it is called.
    name: String,
    /// Whether the feature is on, in this process.
    on: bool,
    /// The first first. Before that, the feature was on.
    changes: Vec<ToggleChange>,
}

/// One change of a switch.
#[derive(Serialize, ToSchema)]
struct ToggleChange {
    /// Whether the feature is on since.
    on: bool,
    /// Whose key it was.
    by: String,
    /// Why.
    reason: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// Who has switched a feature, when and why.
#[utoipa::path(get, path = "/operator/toggles/{toggle}", operation_id = "get_toggle", tag = "operator", params(("toggle" = String, Path)),
    responses((status = 200, body = ToggleChanges)), security(("api_key" = ["operator"])))]
async fn changes(State(app): State<App>, Path(name): Path<String>) -> Result<Json<ToggleChanges>, Problem> {
    let id = find(&app, &name)?;
    Ok(Json(shown(&app, &id).await?))
}

/// To what, and why.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "on": true, "reason": "the recommendations are well again" }))]
struct Switch {
    /// Whether the feature is on from now on.
    on: bool,
    /// The reason, for people.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
}

/// Switch a feature on or off, in all shops and all processes; with the key of an operator of no shop.
#[utoipa::path(put, path = "/operator/toggles/{toggle}", operation_id = "set_toggle", tag = "operator", params(("toggle" = String, Path)),
    request_body = Switch, responses((status = 200, body = ToggleChanges)), security(("api_key" = ["operator"])))]
async fn set(
    write: Write,
    _: OfNoShop,
    Path(name): Path<String>,
    Body(switch): Body<Switch>,
) -> Result<Json<ToggleChanges>, Problem> {
    let (app, by) = (&write.app, &write.caller.key);
    let id = find(app, &name)?;
    let reason = short("reason", switch.reason.clone())?;
    // They are those of all shops, whichever that of the key is.
    let context = write.keyed::<Switched>(&Tenant::default(), &id, &switch)?;
    write.command(app.degradation.toggles.set(context, &name, switch.on, by, &reason)).await?;
    Ok(Json(shown(app, &id).await?))
}

fn find(app: &App, name: &str) -> Result<ToggleId, Problem> {
    let none = |_| Problem::not_found("toggle", name.escape_debug());
    app.degradation.toggles.get(name).map_err(none)?;
    ToggleId::new(name).map_err(none)
}

async fn shown(app: &App, id: &ToggleId) -> Result<ToggleChanges, Problem> {
    let toggles = &app.degradation.toggles;
    let changes = toggles.changes(id).await?.into_iter().map(|change| ToggleChange {
        on: change.on,
        by: change.by,
        reason: change.reason,
        at: change.at,
    });
    Ok(ToggleChanges { name: id.to_string(), on: toggles.get(id.as_str())?.is_on(), changes: changes.collect() })
}
