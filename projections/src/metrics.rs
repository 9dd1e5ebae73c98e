//! What projections and reactors count and measure, by the [`metrics`](::metrics) facade. `docs/many-processes.md` lists the names.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::database::Model;
use crate::health::{HealthOf, ProjectionHealth};

/// A projection has committed so many events; while it followed the log, the oldest of them was recorded so long before.
pub(crate) fn committed(model: &Model, events: usize, delay: Option<Duration>) {
    if events == 0 {
        return;
    }
    counter!("annals_projection_events_total", "projection" => model.projection, "version" => model.version.to_string())
        .increment(events as u64);
    if let Some(delay) = delay {
        histogram!("annals_projection_delay_seconds", "projection" => model.projection).record(delay.as_secs_f64());
    }
}

/// A projection has met a fault that may pass.
pub(crate) fn fault(model: &Model) {
    counter!("annals_projection_faults_total", "projection" => model.projection).increment(1);
}

/// A projection has parked so many streams.
pub(crate) fn parked(model: &Model, streams: usize) {
    counter!("annals_projection_parked_total", "projection" => model.projection).increment(streams as u64);
}

/// A reactor has handled an event.
pub(crate) fn reacted(reactor: &'static str) {
    counter!("annals_reactor_events_total", "reactor" => reactor).increment(1);
}

/// A try of a reactor has failed.
pub(crate) fn reaction_failed(reactor: &'static str) {
    counter!("annals_reactor_failures_total", "reactor" => reactor).increment(1);
}

/// What was seen of a projection or a reactor.
pub(crate) fn observed(health: &ProjectionHealth, states: &[(&'static str, usize)], parked: usize) {
    let (kind, name) = match health.of {
        HealthOf::Projection { .. } => ("projection", &health.name),
        HealthOf::Reactor => ("reactor", &health.name),
    };
    let gauge = |gauged: &'static str| gauge!(gauged, "kind" => kind, "name" => name.to_string());
    gauge("annals_runner_position").set(health.position.get() as f64);
    if let Some(behind) = health.behind {
        gauge("annals_runner_behind_events").set(behind as f64);
    }
    if let Some(lag) = health.lag {
        gauge("annals_runner_lag_seconds").set(lag.as_secs_f64());
    }
    gauge("annals_runner_parked_streams").set(parked as f64);
    gauge("annals_runner_failed").set(if health.verdict.is_failed() { 1.0 } else { 0.0 });
    for (state, slots) in states {
        gauge!("annals_runner_slots", "kind" => kind, "name" => name.to_string(), "state" => *state).set(*slots as f64);
    }
}
