//! All routes together, what stands before them, and the document of them.

use std::sync::Arc;

use annals::resilience::Deadline;
use annals::resilience::deadline::LongestDeadline;
use annals::resilience::health::Health;
use annals::resilience::rate_limit::{RateLimitLayer, RateLimiter};
use annals::resilience::receiver::{Caller as Sender, MemoryRecords, Receiver};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_extractor, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::{Extension, Router};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::service::access::{Caller, guard};
use crate::service::api::{analytics, checkouts, customers, list, operator, orders, steps};
use crate::service::app::App;
use crate::service::document;
use crate::service::problem::Problem;
use crate::service::trace::trace;

/// Remembers whole answers by the keys that their requests came with.
pub type Once = Receiver<MemoryRecords, fn(&Parts) -> Option<Sender>>;

/// What stands before the routes.
pub struct Gates {
    /// So much may come from a tenant.
    pub limiter: RateLimiter<Arc<str>>,
    /// Each write is done once.
    pub once: Once,
    /// The longest that a request may take.
    pub longest: LongestDeadline,
    /// The most bytes of a body.
    pub body_bytes: usize,
}

/// The document of all routes.
pub fn document() -> OpenApi {
    document::completed(routes().split_for_parts().1)
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(document::about())
        .merge(steps::routes())
        .merge(list::routes())
        .merge(orders::routes())
        .merge(customers::routes())
        .merge(checkouts::routes())
        .merge(analytics::routes())
        .merge(operator::routes())
}

/// The service, with the first gate of a request last: a name, a key, a quota, a deadline, and then whether it was done before.
pub fn router(app: App, gates: Gates, health: &Health) -> Router {
    let (routes, document) = (routes().split_for_parts().0, document());
    let tenant =
        |request: &Request| request.extensions().get::<Caller>().map(|caller| Arc::from(caller.tenant.as_str()));
    let api = routes
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "the route does not have this method")
        })
        .layer(DefaultBodyLimit::max(gates.body_bytes))
        .layer(gates.once)
        .layer(from_fn(in_time))
        .layer(from_extractor::<Deadline>())
        .layer(Extension(gates.longest))
        .layer(RateLimitLayer::new(gates.limiter, tenant))
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(from_fn_with_state(app.clone(), trace))
        .with_state(app);
    api.merge(health.routes())
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "route", "there is no such route; /docs lists them"))
}

/// Answers when the caller's deadline is over, whatever the handler still does. A write goes on, and its key tells what became of it.
async fn in_time(deadline: Deadline, request: Request, next: Next) -> Result<Response, Problem> {
    deadline.run(next.run(request)).await.map_err(|_| Problem::too_late(deadline))
}
