//! What the service says of itself: whether it should be restarted, and whether requests should come.

use std::sync::Arc;
use std::time::Duration;

use annals::projections::{EventPlace, ProjectionHealth, ProjectionState, ReactorState, Verdict};
use annals::resilience::health::{Health, HealthError};
use annals::resilience::receiver::MemoryRecords;

use crate::degradation::Toggles;
use crate::service::access::Caller;
use crate::service::app::App;
use crate::service::settings::Settings;

/// Begins to watch.
///
/// # Errors
/// The system has no thread or no port for it.
pub fn start(app: &App, records: &MemoryRecords, settings: &Settings) -> Result<Health, HealthError> {
    let (most_keys, most_lag) = (settings.idempotency.keys, settings.most_lag());
    let store = Arc::clone(&app.shop.store);
    let database = move || {
        let store = Arc::clone(&store);
        async move { store.head().await.map(drop) }
    };
    let views = app.shop.views.clone();
    let projections = move || {
        let views = views.clone();
        async move {
            let problems = views.health().await.into_iter().filter_map(|one| problem_of(&one, most_lag));
            let problems = problems.collect::<Vec<_>>().join("; ");
            if !problems.is_empty() {
                return Err(problems);
            }
            Ok(())
        }
    };
    let records = records.clone();
    // Writes without a key that is remembered are refused, so a full memory of keys is a shop that takes no orders.
    let keys = move || {
        let full = records.keys() >= most_keys;
        async move { if full { Err("there is no room for another idempotency key") } else { Ok(()) } }
    };
    // It is memory of this process and cannot be gone, but it can be switched off. Then a fault of the read models is one of the lists.
    let toggles = app.clone();
    let cache = move || {
        let off = toggles.degradation.toggles.all().get(Toggles::STALE_PAGES) == Some(&false);
        async move { if off { Err("the last pages are switched off") } else { Ok(()) } }
    };
    // The database may answer again before the breakers ask it. What is refused until then is what one shop asks, or each of them.
    let reads = app.degradation.lanes.reads.clone();
    let reads = move || {
        let refused = reads.all().any(|policy| policy.breaker().check().is_err());
        async move { if refused { Err("reads are refused for some seconds, as too many have failed") } else { Ok(()) } }
    };
    let client = app.checkouts.services.payment.clone();
    let payment = move || {
        let client = client.clone();
        async move { client.is_up().await }
    };
    let health = Health::builder()
        .critical("database", database)
        .critical("idempotency-keys", keys)
        .informational("cache", cache)
        // Orders are taken without it; their payments wait.
        .informational("payment", payment)
        .informational("projections", projections)
        .informational("reads", reads);
    match settings.live {
        Some(address) => health.live_port(address).start(),
        None => health.start(),
    }
}

/// What an operator is told of a read model or a reactor.
pub fn told(app: &App, caller: &Caller, one: &ProjectionHealth) -> Verdict {
    match &one.verdict {
        Verdict::Failed { why } => Verdict::Failed { why: fault_told(app, caller, &one.name, why) },
        Verdict::Retrying { fault } => Verdict::Retrying { fault: fault_told(app, caller, &one.name, fault) },
        other => other.clone(),
    }
}

/// What an operator is told of a fault. Its text may name a stream of any shop and quote its events, so an operator of one shop reads it
/// only where it has stopped at an event of that shop.
pub fn fault_told(app: &App, caller: &Caller, name: &str, text: &str) -> String {
    if app.keys.is_of_no_shop(&caller.key) {
        return text.to_owned();
    }
    let stops = stopped_before(app, name);
    let is_own = |event: &EventPlace| *event.stream.tenant() == caller.tenant;
    match stops.iter().flatten().find(|event| !is_own(event)) {
        Some(event) => format!(
            "the event at position {}, which is one of another shop, cannot be read or applied; ask those who run the service",
            event.position
        ),
        None if !stops.is_empty() && stops.iter().all(Option::is_some) => text.to_owned(),
        None => "those who run the service see why; ask them".to_owned(),
    }
}

/// Before which events it has stopped in this process; `None` for what is the fault of no event.
fn stopped_before(app: &App, name: &str) -> Vec<Option<EventPlace>> {
    let stops = app.runners().into_iter().flat_map(|views| {
        let slots = views.status().into_iter().filter(|one| &*one.name == name).flat_map(|one| one.slots);
        let projections = slots.filter_map(|slot| match slot.state {
            ProjectionState::Stopped(stopped) => Some(stopped.event),
            _ => None,
        });
        let reactors = views.reactors().into_iter().filter(|one| &*one.name == name);
        projections.chain(reactors.filter_map(|one| match one.state {
            ReactorState::Stopped(stopped) => Some(stopped.event),
            _ => None,
        }))
    });
    stops.collect()
}

/// What is wrong with a read model or a reactor, if that concerns those who send requests. Everyone reads it, so it counts no events.
fn problem_of(one: &ProjectionHealth, most_lag: Duration) -> Option<String> {
    let name = &one.name;
    match one.verdict {
        Verdict::Failed { .. } => Some(format!("`{name}` has failed")),
        Verdict::Paused { .. } => None,
        // Readers are shown too old a shop. After a start this is how long the rest of it takes.
        _ => one.lag.filter(|lag| *lag > most_lag).map(|lag| {
            let left = one.time_left.map(|left| format!(", about {} s left", left.as_secs())).unwrap_or_default();
            format!("`{name}` is too far behind: {} s{left}", lag.as_secs())
        }),
    }
}
