//! Metrics as Prometheus reads them, at `/metrics`, with the key of an operator.
//!
//! What happens is counted where it happens, mostly in the crates, which also keep the gauges of the read models, every five seconds. How
//! other things stand is looked up when it is asked for. No label is a
//! tenant, an id, or anything else that a caller makes up.

use std::time::Duration;

use annals::resilience::breaker::BreakerState;
use annals::resilience::health::{Health, Status};
use annals::resilience::receiver::MemoryRecords;
use axum::Extension;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Telemetry;
use super::lines::Lines;
use crate::Fault;
use crate::service::access::OfNoShop;
use crate::service::app::App;

/// The bounds of all histograms, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// More sagas that are stuck are not counted.
const MOST_STUCK: u32 = 1_000;

/// What was recorded.
#[derive(Clone)]
pub struct Recorded(PrometheusHandle);

impl Recorded {
    /// Begins to record, for the whole process.
    ///
    /// # Errors
    /// Somebody does so already.
    pub(super) fn start() -> Result<Self, Fault> {
        let recorder = PrometheusBuilder::new().set_buckets(&SECONDS)?.build_recorder();
        let recorded = Self(recorder.handle());
        metrics::set_global_recorder(recorder)?;
        describe();
        // Without it the values of histograms are kept one by one until somebody asks.
        let handle = recorded.0.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                handle.run_upkeep();
            }
        });
        Ok(recorded)
    }
}

/// What is looked at when somebody asks.
#[derive(Clone)]
pub struct Metrics {
    recorded: Recorded,
    lines: Lines,
    app: App,
    health: Health,
    records: MemoryRecords,
}

impl Metrics {
    pub fn new(telemetry: &Telemetry, app: &App, health: &Health, records: &MemoryRecords) -> Self {
        let Telemetry { recorded, lines, .. } = telemetry;
        let (recorded, lines) = (recorded.clone(), lines.clone());
        Self { recorded, lines, app: app.clone(), health: health.clone(), records: records.clone() }
    }

    /// All metrics as text.
    async fn text(&self) -> String {
        let checkouts = &self.app.checkouts;
        gauge!("annals_sagas_in_flight").set(checkouts.sagas.runner().in_flight as f64);
        if let Ok(stuck) = checkouts.sagas.stuck(MOST_STUCK).await {
            gauge!("annals_sagas_stuck").set(stuck.len() as f64);
        }
        for policy in self.app.policies() {
            let state = policy.state();
            let of = |name: &'static str| gauge!(name, "policy" => state.name.clone());
            of("resilience_breaker_state").set(match state.breaker.state {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            });
            of("resilience_bulkhead_in_use").set(state.in_use.unwrap_or_default());
            of("resilience_bulkhead_waiting").set(state.waiting.unwrap_or_default());
        }
        for (check, report) in self.health.ready().await.checks {
            gauge!("health_check_up", "check" => check).set(if report.status == Status::Up { 1.0 } else { 0.0 });
        }
        gauge!("http_idempotency_keys").set(self.records.keys() as f64);
        counter!("log_lines_dropped_total").absolute(self.lines.dropped());
        self.recorded.0.render()
    }
}

/// The route.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The metrics, in the text format of Prometheus; with the key of an operator of no shop.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "operator",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")), security(("api_key" = ["operator"])))]
async fn show(Extension(metrics): Extension<Metrics>, _: OfNoShop) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.text().await)
}

fn describe() {
    describe_counter!("http_requests_total", "Requests by route, method and class of the status.");
    describe_histogram!("http_request_duration_seconds", Unit::Seconds, "How long requests took.");
    describe_gauge!("http_requests_in_flight", "Requests that are not answered yet.");
    describe_counter!("http_requests_rate_limited_total", "Requests that a rate limit has refused.");
    describe_counter!("http_idempotent_replays_total", "Writes that were sent again and got the first answer.");
    describe_gauge!("http_idempotency_keys", "Idempotency keys that are remembered.");
    describe_gauge!("health_check_up", "1 if the check has succeeded.");
    describe_counter!("log_lines_dropped_total", "Lines of the log that could not be written in time.");
    describe_counter!("annals_appends_total", "Appends of commands by their result.");
    describe_histogram!("annals_append_seconds", Unit::Seconds, "How long commands waited for their append.");
    describe_counter!("annals_sagas_total", "What sagas have come to.");
    describe_gauge!("annals_sagas_in_flight", "Sagas that this process runs at the moment.");
    describe_gauge!("annals_sagas_stuck", "Sagas that wait for a person, 1000 at most.");
    describe_gauge!("annals_runner_position", "How far a read model or a reactor is in the log.");
    describe_gauge!("annals_runner_lag_seconds", "How old the first event is that it has not applied.");
    describe_gauge!("resilience_breaker_state", "0 closed, 1 half open, 2 open.");
    describe_gauge!("resilience_bulkhead_in_use", "Calls that are under way.");
    describe_gauge!("resilience_bulkhead_waiting", "Calls that wait for a slot.");
}
