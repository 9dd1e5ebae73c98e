//! Faults that are switched on and off by HTTP: how a client meets a service that is slow, fails, hangs, is closed, or is gone.
//!
//! They stand in front of the participant, so it never learns of them: a request that is refused here has no effect, and one
//! whose answer is lost here has had it.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What goes wrong. All that is left out in a request is off.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// So much later each request is taken, in milliseconds.
    pub latency_ms: u64,
    /// The share of requests, from 0 to 1, that are answered with 500, and have no effect.
    pub errors: f64,
    /// The share of requests, from 0 to 1, that have their effect, but no answer.
    pub lost_answers: f64,
    /// Each request is refused, as by a service that is well but does not do this now: 422.
    pub closed: bool,
    /// Nobody is there: 503, as from the proxy in front of it.
    pub down: bool,
}

/// The faults of a service that runs. Clones are the same.
#[derive(Clone)]
pub struct Switch {
    state: Arc<Mutex<(Faults, fastrand::Rng)>>,
}

/// What happens to a request.
enum Fate {
    Refused(StatusCode, &'static str),
    LostAnswer,
    Answered,
}

impl Switch {
    /// Nothing goes wrong. The seed decides which requests meet faults later.
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new((Faults::default(), fastrand::Rng::with_seed(seed)))) }
    }

    /// Changes what goes wrong from now on.
    pub fn set(&self, faults: Faults) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = faults;
    }

    /// What goes wrong.
    pub fn get(&self) -> Faults {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn fate(&self) -> (Duration, Fate) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (faults, random) = &mut *state;
        let fate = match faults {
            Faults { down: true, .. } => Fate::Refused(StatusCode::SERVICE_UNAVAILABLE, "nobody is there"),
            Faults { closed: true, .. } => Fate::Refused(StatusCode::UNPROCESSABLE_ENTITY, "it is closed"),
            _ if random.f64() < faults.errors => Fate::Refused(StatusCode::INTERNAL_SERVER_ERROR, "a fault"),
            _ if random.f64() < faults.lost_answers => Fate::LostAnswer,
            _ => Fate::Answered,
        };
        (Duration::from_millis(faults.latency_ms), fate)
    }
}

/// The layer in front of a service.
pub async fn meet(State(switch): State<Switch>, request: Request, next: Next) -> Response {
    let (latency, fate) = switch.fate();
    tokio::time::sleep(latency).await;
    match fate {
        Fate::Refused(status, detail) => {
            let body = json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
        }
        Fate::LostAnswer => {
            drop(next.run(request).await);
            // Until the client leaves; then this future is dropped.
            pending().await
        }
        Fate::Answered => next.run(request).await,
    }
}

/// `GET /faults`.
pub async fn show(State(switch): State<Switch>) -> Json<Faults> {
    Json(switch.get())
}

/// `PUT /faults`.
pub async fn change(State(switch): State<Switch>, Json(faults): Json<Faults>) -> Result<Json<Faults>, Response> {
    let shares = [("errors", faults.errors), ("lost_answers", faults.lost_answers)];
    if let Some((field, share)) = shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
        let problem = format!("`{field}` is {share}; give a share from 0 to 1");
        return Err((StatusCode::BAD_REQUEST, problem).into_response());
    }
    switch.set(faults.clone());
    Ok(Json(faults))
}
