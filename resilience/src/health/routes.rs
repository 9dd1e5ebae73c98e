use std::future::Future;

use axum::Router;
use axum::routing::get;
use http::{HeaderValue, Response, StatusCode, header};

use super::{Health, Report};

impl Health {
    /// The routes `/health/live`, `/health/ready` and `/health/startup`, to be merged into a service's own. Leave them out
    /// of rate limits and authentication.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let (live, ready, startup) = (self.clone(), self.clone(), self.clone());
        Router::new()
            .route("/health/live", get(move || answer(std::future::ready(live.live()))))
            .route("/health/ready", get(move || async move { answer(ready.ready()).await }))
            .route("/health/startup", get(move || answer(std::future::ready(startup.startup()))))
    }
}

async fn answer(report: impl Future<Output = Report>) -> Response<axum::body::Body> {
    let report = report.await;
    // A report holds nothing but texts and numbers, which are always JSON.
    let body = serde_json::to_vec(&report).unwrap_or_default();
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(report.code()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
