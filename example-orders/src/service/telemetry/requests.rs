//! Metrics of requests: how many, how long they took, and how they ended, by the pattern of the route.
//!
//! The labels are few and known: a path has ids in it, which nobody could count.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, gauge, histogram};

/// The header of an answer that was given before.
const REPLAYED: &str = "idempotent-replayed";

/// Measures the request.
pub async fn measured(request: Request, next: Next) -> Response {
    let route = route_of(&request).to_owned();
    let mut open = Open { method: method_of(request.method()), route, begun: Instant::now(), status: None };
    gauge!("http_requests_in_flight").increment(1);
    let response = next.run(request).await;
    open.status = Some(response.status());
    if response.headers().contains_key(REPLAYED) {
        counter!("http_idempotent_replays_total", "route" => open.route.clone()).increment(1);
    }
    response
}

/// The pattern that the path fits, or `none`.
pub fn route_of(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str)
}

/// The method; a client may make up others.
pub fn method_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A request that is not answered yet.
struct Open {
    method: &'static str,
    route: String,
    begun: Instant,
    status: Option<StatusCode>,
}

/// Also when the client has left before the answer.
impl Drop for Open {
    fn drop(&mut self) {
        let status = match self.status.map(|status| status.as_u16()) {
            None => "none",
            Some(429) => {
                counter!("http_requests_rate_limited_total", "route" => self.route.clone()).increment(1);
                "4xx"
            }
            Some(100..=199) => "1xx",
            Some(200..=299) => "2xx",
            Some(300..=399) => "3xx",
            Some(400..=499) => "4xx",
            Some(_) => "5xx",
        };
        let (method, route) = (self.method, self.route.clone());
        counter!("http_requests_total", "method" => method, "route" => route.clone(), "status" => status).increment(1);
        histogram!("http_request_duration_seconds", "method" => method, "route" => route).record(self.begun.elapsed());
        gauge!("http_requests_in_flight").decrement(1);
    }
}
