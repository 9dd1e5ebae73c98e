//! What a customer prefers, and what else a customer may like: each says whether it is known, was known, or is a default.

use annals::resilience::Deadline;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::degradation::{AnsweredBy, Preferences, Profile, Theme};
use crate::domain::money::Currency;
use crate::service::access::Caller;
use crate::service::api::write::Write;
use crate::service::app::App;
use crate::service::ask::{Asked, Body, CustomerPath};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, change)).routes(routes!(recommendations))
}

/// What a customer prefers.
#[derive(Serialize, ToSchema)]
struct KnownPreferences {
    /// What the customer prefers.
    preferences: Preferences,
    /// Where that comes from.
    from: AnsweredBy,
}

/// When.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PreferencesQuery {
    /// `X-Position` of a write: what is answered has it, if it is from the `source`. Without it the answer may be a minute old.
    at_least: Option<String>,
}

/// What a customer prefers: language, currency and theme. Where that cannot be read, it is what was read some minutes ago, or a default.
#[utoipa::path(get, path = "/customers/{customer}/preferences", operation_id = "get_preferences", tag = "customers",
    params(("customer" = String, Path), PreferencesQuery), responses((status = 200, body = KnownPreferences)), security(("api_key" = ["customer", "admin"])))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    deadline: Deadline,
    CustomerPath(customer): CustomerPath,
    Asked(query): Asked<PreferencesQuery>,
) -> Result<Json<KnownPreferences>, Problem> {
    caller.only(Some(customer.clone()))?;
    if app.has_seen(query.at_least.as_deref(), deadline).await? {
        app.degradation.preferences.forget(&caller.tenant, &customer);
    }
    let known = app.degradation.preferences.get(&caller.tenant, &customer, deadline).await;
    Ok(Json(KnownPreferences { preferences: known.value, from: known.from }))
}

/// What a customer prefers from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "language": "pt-BR", "currency": "EUR", "theme": "dark" }))]
struct NewPreferences {
    /// A language by its code, such as `en` or `pt-BR`.
    #[schema(pattern = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}$")]
    language: String,
    /// The currency in which prices are shown.
    currency: Currency,
    /// How the shop looks.
    theme: Theme,
}

/// Change what a customer prefers.
#[utoipa::path(put, path = "/customers/{customer}/preferences", operation_id = "set_preferences", tag = "customers", params(("customer" = String, Path)),
    request_body = NewPreferences, responses((status = 200, body = Preferences)), security(("api_key" = ["customer", "admin"])))]
async fn change(
    write: Write,
    CustomerPath(customer): CustomerPath,
    Body(NewPreferences { language, currency, theme }): Body<NewPreferences>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Preferences>), Problem> {
    write.caller.only(Some(customer.clone()))?;
    if !is_language(&language) {
        let detail = "`language` is the code of one, such as `en` or `pt-BR`";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "language", detail));
    }
    let wanted = Preferences { language, currency, theme };
    let context = write.keyed::<Profile>(&write.caller.tenant, &customer, &wanted)?;
    let known = &write.app.degradation.preferences;
    let position = write.command(known.set(context, &customer, wanted.clone())).await?;
    Ok((write.app.position(position), Json(wanted)))
}

/// Two to eight letters, and up to three parts behind hyphens.
fn is_language(code: &str) -> bool {
    let is_part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let mut parts = code.split('-');
    let is_first = |part: &str| part.len() >= 2 && is_part(part) && part.bytes().all(|b| b.is_ascii_alphabetic());
    parts.next().is_some_and(is_first) && parts.clone().count() <= 3 && parts.all(is_part)
}

/// What else a customer may like.
#[derive(Serialize, ToSchema)]
struct Recommended {
    /// The best first.
    products: Vec<String>,
    /// Where that comes from.
    from: AnsweredBy,
}

/// What is ordered most in the shop. Where that cannot be found out, it is what was found some minutes ago, or a default.
#[utoipa::path(get, path = "/recommendations", operation_id = "list_recommendations", tag = "customers",
    responses((status = 200, body = Recommended)), security(("api_key" = ["customer", "admin"])))]
async fn recommendations(State(app): State<App>, caller: Caller, deadline: Deadline) -> Json<Recommended> {
    let known = app.degradation.recommendations.get(&caller.tenant, deadline).await;
    Json(Recommended { products: known.value, from: known.from })
}
