//! The last hour, minute by minute: how many requests there were, how they ended, and how far behind the read models were. It is kept
//! in this process, and begins anew with it; what is to be kept for longer is a matter of the metrics.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals::Tenant;
use annals::engine::{Clock, SystemClock};
use annals::projections::ProjectionHealth;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::interval;

use crate::dashboard::controls::letters;
use crate::service::app::App;

/// How many minutes are kept.
pub const MINUTES: i64 = 60;

/// How often the read models are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// One minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Its number since 1970.
    pub number: i64,
    /// All requests but those about the service itself.
    pub requests: u32,
    /// Those that have changed something.
    pub writes: u32,
    /// Those that were wrong, and were told so.
    pub refused: u32,
    /// Those that the service could not answer.
    pub failed: u32,
    /// How far the slowest read model was behind, at most; nothing if nobody has looked.
    pub lag: Option<Duration>,
}

/// The last hour, and the last look at the read models.
#[derive(Debug, Default)]
pub struct Hour {
    minutes: Mutex<VecDeque<Minute>>,
    health: Mutex<Arc<[ProjectionHealth]>>,
    parked: Mutex<Arc<BTreeMap<(&'static str, Tenant), u64>>>,
}

impl Hour {
    /// Looks at the read models for ever.
    pub async fn look(&self, app: &App) {
        let mut interval = interval(LOOK);
        loop {
            interval.tick().await;
            let (views, sagas, reactors) =
                (&app.shop.views, app.checkouts.sagas.projections(), &app.checkouts.reactors);
            let (views, sagas, reactors, letters) =
                tokio::join!(views.health(), sagas.health(), reactors.health(), letters(app));
            if let Some(lag) = views.iter().filter_map(|one| one.lag).max() {
                self.change(|minute| minute.lag = minute.lag.max(Some(lag)));
            }
            let all = views.into_iter().chain(sagas).chain(reactors).collect();
            *self.health.lock().unwrap_or_else(PoisonError::into_inner) = all;
            match letters {
                Ok(letters) => {
                    let mut parked = BTreeMap::new();
                    for letter in letters {
                        *parked.entry((letter.of, letter.stream.tenant().clone())).or_default() += 1;
                    }
                    *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(parked);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "how many streams are set aside is not known, and is shown as it was");
                }
            }
        }
    }

    /// How many streams each of them has set aside at the last look, of those shops.
    pub fn parked(&self, shops: impl Fn(&Tenant) -> bool) -> BTreeMap<&'static str, u64> {
        let parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut of_shops = BTreeMap::new();
        for ((name, _), number) in parked.iter().filter(|((_, shop), _)| shops(shop)) {
            *of_shops.entry(*name).or_default() += number;
        }
        of_shops
    }

    /// How the read models and reactors were at the last look.
    pub fn health(&self) -> Arc<[ProjectionHealth]> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All minutes of the hour, the oldest first; those in which nothing happened, too.
    pub fn minutes(&self) -> Vec<Minute> {
        let now = this_minute();
        let kept = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        let kept_or_empty = |number| {
            kept.iter()
                .find(|minute| minute.number == number)
                .copied()
                .unwrap_or(Minute { number, ..Minute::default() })
        };
        (now - MINUTES + 1..=now).map(kept_or_empty).collect()
    }

    fn count(&self, method: &Method, status: StatusCode) {
        self.change(|minute| {
            minute.requests += 1;
            minute.writes += u32::from(!method.is_safe() && status.is_success());
            minute.refused += u32::from(status.is_client_error());
            minute.failed += u32::from(status.is_server_error());
        });
    }

    fn change(&self, change: impl FnOnce(&mut Minute)) {
        let number = this_minute();
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back counts for the last minute.
        if minutes.back().is_none_or(|last| last.number < number) {
            minutes.push_back(Minute { number, ..Minute::default() });
            minutes.retain(|minute| minute.number > number - MINUTES);
        }
        if let Some(minute) = minutes.back_mut() {
            change(minute);
        }
    }
}

fn this_minute() -> i64 {
    SystemClock.now().as_second().div_euclid(60)
}

/// Counts the requests to the API.
pub async fn count(State(hour): State<Arc<Hour>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let is_about_the_service =
        ["/health", "/docs", "/openapi.json", "/metrics"].iter().any(|path| request.uri().path().starts_with(path));
    let response = next.run(request).await;
    if !is_about_the_service {
        hour.count(&method, response.status());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_sixty_minutes_and_counts_each_request_by_its_end() {
        let hour = Hour::default();
        assert_eq!(hour.minutes().len(), 60);
        for (method, status) in [(Method::GET, 200), (Method::POST, 201), (Method::POST, 409), (Method::POST, 503)] {
            hour.count(&method, StatusCode::from_u16(status).expect("a status"));
        }
        let sum = |of: fn(&Minute) -> u32| hour.minutes().iter().map(of).sum::<u32>();
        let sums = [sum(|one| one.requests), sum(|one| one.writes), sum(|one| one.refused), sum(|one| one.failed)];
        assert_eq!(sums, [4, 1, 1, 1]);
    }
}
