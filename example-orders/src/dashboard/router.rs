//! All pages.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::dashboard::error::Trouble;
use crate::dashboard::state::Dashboard;
use crate::dashboard::visitor::PAGE;
use crate::dashboard::{
    analytics, assets, correlation, decide, headers, live, order, orders, overview, personal, policies, projections,
    sagas, sign_in,
};
use crate::service::problem::Problem;
use tokio::time::timeout;

/// The most bytes of a form.
const FORM_BYTES: usize = 64 * 1024;

/// The routes of the dashboard, and `/`, which leads there.
pub fn routes(dashboard: Dashboard) -> Router {
    let pages = Router::new()
        .route("/dashboard", get(sign_in::first_page))
        .route("/dashboard/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/dashboard/sign-out", post(sign_in::sign_out))
        .route("/dashboard/shop", post(sign_in::choose_shop))
        .route("/dashboard/personal", post(personal::choose))
        .route(overview::PATH, get(overview::show))
        .route(orders::PATH, get(orders::show))
        .route("/dashboard/orders/{order}", get(order::show))
        .route("/dashboard/correlation", get(correlation::show))
        .route(analytics::PATH, get(analytics::show))
        .route(sagas::PATH, get(sagas::list))
        .route("/dashboard/sagas/decide", get(decide::form).post(decide::decide))
        .route("/dashboard/sagas/preview", post(decide::preview))
        .route("/dashboard/sagas/{shop}/{id}", get(sagas::one))
        .route(projections::PATH, get(projections::list))
        .route("/dashboard/projections/{name}", get(projections::one))
        .route("/dashboard/projections/{name}/control", post(projections::control_one))
        .route("/dashboard/projections/{name}/parked", post(projections::parked))
        .route(policies::PATH, get(policies::list))
        .route("/dashboard/policies/{name}", get(policies::one))
        .route("/dashboard/policies/{name}/mode", post(policies::set_mode))
        .route("/dashboard/policies/{name}/faults", post(policies::set_faults))
        .route("/dashboard/live", get(live::events))
        .route("/dashboard/{*rest}", get(no_page))
        .layer(from_fn(in_time))
        .method_not_allowed_fallback(not_so);
    Router::new()
        .merge(pages)
        .route(assets::PATH, get(assets::send))
        .route("/", get(async || Redirect::temporary("/dashboard")))
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(from_fn(headers::headers))
        .with_state(dashboard)
}

/// A page is made in its time, or it says that it could not be. What a form asks for goes on.
async fn in_time(request: Request, next: Next) -> Response {
    let made = timeout(PAGE, next.run(request)).await;
    let late =
        |_| Trouble::from(Problem::later("deadline-exceeded", "the page could not be made in time; load it again"));
    made.unwrap_or_else(|e| late(e).into_response())
}

async fn not_so() -> Trouble {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this page is opened or sent in another way").into()
}

async fn no_page() -> Trouble {
    Problem::new(StatusCode::NOT_FOUND, "route", "there is no such page").into()
}
