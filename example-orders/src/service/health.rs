//! What the service says of itself: whether it should be restarted, and whether requests should come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annals::projections::Verdict;
use annals::resilience::health::{Health, HealthError};
use annals::resilience::receiver::MemoryRecords;

use crate::service::app::App;

/// A read model that is behind by more shows its readers too old a shop.
const MOST_LAG: Duration = Duration::from_secs(30);

/// Begins to watch.
///
/// # Errors
/// The system has no thread or no port for it.
pub fn start(
    app: &App,
    records: &MemoryRecords,
    most_keys: usize,
    live: Option<SocketAddr>,
) -> Result<Health, HealthError> {
    let store = Arc::clone(&app.shop.store);
    let database = move || {
        let store = Arc::clone(&store);
        async move { store.head().await.map(drop) }
    };
    let views = app.shop.views.clone();
    let projections = move || {
        let views = views.clone();
        async move {
            for one in views.health().await {
                let problem = match one.verdict {
                    Verdict::Failed { .. } => "has failed",
                    Verdict::Paused { .. } => continue,
                    _ if one.lag.is_some_and(|lag| lag > MOST_LAG) => "is more than 30 s behind",
                    _ => continue,
                };
                return Err(format!("`{}` {problem}", one.name));
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
    let health = Health::builder()
        .critical("database", database)
        .critical("idempotency-keys", keys)
        .informational("projections", projections);
    match live {
        Some(address) => health.live_port(address).start(),
        None => health.start(),
    }
}
