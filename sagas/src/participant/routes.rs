//! Handlers of participants for axum.

use std::future::Future;
use std::sync::Arc;

use annals_eventstore::{Context, ErrorFamily, Invalid};
use annals_resilience::rate_limit::header_seconds;
use annals_resilience::{Deadline, IdempotencyKey};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::Instrument;

use super::error::ParticipantError;
use super::handle::Participant;
use super::key::{StepCall, StepKey};
use crate::call::StepError;
use crate::event::Direction;
use crate::local::LocalCommand;

/// In which circumstances a request calls.
pub(super) type Contexts = Arc<dyn Fn(&Parts) -> Option<Context> + Send + Sync>;

/// Handlers for axum. Each takes POST with the header `Idempotency-Key`, which ends in `/do` or `/undo`, and a body of JSON; an empty
/// body is `null`. The fingerprint of a do is its path and its body; an undo is sent to the path of its do. The deadline is that of the header
/// [`Deadline::HEADER`], 30 s at most by default. A call that has begun goes on when its client leaves.
///
/// | answer | when |
/// |---|---|
/// | 200 with the answer as JSON, 204 | done, undone |
/// | 400 | no key, no step, or a body that does not fit |
/// | 401 | it is not known who sends the request, see [`Participant::contexts`] |
/// | 409 with `Retry-After` | another call of the step is in flight |
/// | 410 | a do after an undo |
/// | 422 | refused, or begun by another request |
/// | 503, with `Retry-After` where it is known | not possible now, and nothing happened |
/// | 500 | it may have happened, or the store is damaged |
///
/// Errors are `application/problem+json`, whose `outcome` is `refused`, `transient` or `unknown`.
impl Participant {
    /// The same participant whose handlers take tenant, actor, .. from the request, as authentication left them there; without them a
    /// request is answered with 401. By default the context is that of the participant. The deadline is that of the request.
    ///
    /// ```
    /// use annals_eventstore::{Context, MemoryStore, Tenant};
    /// use annals_sagas::participant::Participant;
    ///
    /// // A layer of the router has put the tenant there.
    /// let participant = Participant::new(MemoryStore::new())
    ///     .contexts(|request| request.extensions.get::<Tenant>().map(|tenant| Context::of(tenant.clone())));
    /// ```
    #[must_use]
    pub fn contexts(mut self, context: impl Fn(&Parts) -> Option<Context> + Send + Sync + 'static) -> Self {
        self.contexts = Some(Arc::new(context));
        self
    }

    /// The handler of a step whose effect lies outside of the store: [`Participant::do_remote`] and [`Participant::undo_remote`].
    pub fn remote<S, Q, U, T, F, G, FutF, FutG>(&self, effect: F, undo: G) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        Q: DeserializeOwned + Send + 'static,
        U: DeserializeOwned + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(Q, StepCall) -> FutF + Send + Sync + 'static,
        FutF: Future<Output = Result<T, StepError>> + Send + 'static,
        G: Fn(U, Option<T>, StepCall) -> FutG + Send + Sync + 'static,
        FutG: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        let handlers = Arc::new((effect, undo));
        self.handler(move |participant, called| {
            let handlers = handlers.clone();
            async move {
                let (step, request) = (&called.step, called.request());
                if called.direction == Direction::Undo {
                    let body = called.body()?;
                    participant.undo_remote(step, |call, answer| handlers.1(body, answer, call)).await?;
                    return Ok(None);
                }
                let body = called.body()?;
                let answer: T = participant.do_remote(step, &request, |call| handlers.0(body, call)).await?;
                to_json(step, answer).map(Some)
            }
            .boxed()
        })
    }

    /// The handler of a step that is a command of an aggregate in the same store: [`Participant::do_local`] and
    /// [`Participant::undo_local`].
    pub fn local<S, Q, U, T, V, F, G>(&self, command: F, undo: G) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        Q: DeserializeOwned + 'static,
        U: DeserializeOwned + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        V: 'static,
        F: Fn(Q) -> LocalCommand<T> + Send + Sync + 'static,
        G: Fn(U) -> LocalCommand<V> + Send + Sync + 'static,
    {
        let handlers = Arc::new((command, undo));
        self.handler(move |participant, called| {
            let handlers = handlers.clone();
            async move {
                let (step, request) = (&called.step, called.request());
                if called.direction == Direction::Undo {
                    let command = handlers.1(called.body()?);
                    participant.undo_local(step, command).await?;
                    return Ok(None);
                }
                let command = handlers.0(called.body()?);
                let answer: T = participant.do_local(step, &request, command).await?;
                to_json(step, answer).map(Some)
            }
            .boxed()
        })
    }

    fn handler<S, H>(&self, handle: H) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        H: Fn(Self, Called) -> BoxFuture<'static, Result<Option<Value>, ParticipantError>>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let participant = self.clone();
        post(async move |request: Request| {
            let (participant, called) = match participant.called(request).await {
                Ok(called) => called,
                Err(refused) => return refused,
            };
            // A task of its own: it runs to its end when the client leaves and this future is dropped.
            match tokio::spawn(handle(participant, called).in_current_span()).await {
                Ok(Ok(Some(answer))) => {
                    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
                }
                Ok(Ok(None)) => StatusCode::NO_CONTENT.into_response(),
                Ok(Err(error)) => error.into_response(),
                Err(error) => {
                    tracing::error!(%error, "the handler of a step did not end");
                    problem(StatusCode::INTERNAL_SERVER_ERROR, "unknown", "the call did not end; it may be sent again")
                }
            }
        })
    }

    /// The step that a request calls, and the participant in its circumstances.
    async fn called(&self, request: Request) -> Result<(Self, Called), Response> {
        let (mut parts, body) = request.into_parts();
        let key = IdempotencyKey::from_request_parts(&mut parts, &()).await.map_err(IntoResponse::into_response)?;
        let (step, direction) = StepKey::of(&key).map_err(|e| ParticipantError::from(e).into_response())?;
        let deadline = Deadline::from_request_parts(&mut parts, &()).await.map_err(IntoResponse::into_response)?;
        let OriginalUri(uri) =
            OriginalUri::from_request_parts(&mut parts, &()).await.map_err(IntoResponse::into_response)?;
        let context = self.contexts.as_ref().map_or(Some(self.context.clone()), |context| context(&parts));
        let Some(context) = context else {
            return Err(problem(StatusCode::UNAUTHORIZED, "refused", "it is not known who sends the request"));
        };
        let request = Request::from_parts(parts, body);
        let body = Bytes::from_request(request, &()).await.map_err(IntoResponse::into_response)?;
        let body = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
        let body = body.map_err(|e| ParticipantError::from(unfit(&e)).into_response())?;
        let called = Called { step, direction, path: uri.path().to_owned(), body };
        let mut participant = self.with(context.with_deadline(deadline));
        participant.address = Some(uri.path().into());
        Ok((participant, called))
    }
}

/// A request, looked at.
struct Called {
    step: StepKey,
    direction: Direction,
    path: String,
    body: Value,
}

impl Called {
    /// What makes two requests the same.
    fn request(&self) -> Value {
        json!([self.path, self.body])
    }

    fn body<Q: DeserializeOwned>(&self) -> Result<Q, Invalid> {
        Q::deserialize(&self.body).map_err(|e| unfit(&e))
    }
}

fn unfit(error: &serde_json::Error) -> Invalid {
    Invalid::new("body", format!("does not fit: {error}"), "send the JSON that the step takes")
}

fn to_json<T: Serialize>(step: &StepKey, answer: T) -> Result<Value, ParticipantError> {
    serde_json::to_value(answer).map_err(|source| ParticipantError::Answer { step: step.clone(), source })
}

/// The answer over HTTP; [`Participant::remote`] has a table.
impl IntoResponse for ParticipantError {
    fn into_response(self) -> Response {
        let (status, outcome) = match (&self, self.family()) {
            (Self::Undone { .. }, _) => (StatusCode::GONE, "refused"),
            (Self::Refused { .. } | Self::OtherRequest { .. }, _) => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            (_, Some(ErrorFamily::Invalid)) => (StatusCode::BAD_REQUEST, "refused"),
            (Self::InFlight { .. }, _) => (StatusCode::CONFLICT, "transient"),
            (_, Some(ErrorFamily::Transient | ErrorFamily::Conflict)) => (StatusCode::SERVICE_UNAVAILABLE, "transient"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "unknown"),
        };
        if status.is_server_error() {
            tracing::warn!(error = &self as &dyn std::error::Error, "a call of a step did not succeed");
        }
        let mut response = problem(status, outcome, &self.to_string());
        if let Some(wait) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, header_seconds(wait).max(1).into());
        }
        response
    }
}

/// An answer as RFC 9457 has it.
fn problem(status: StatusCode, outcome: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "title": title, "status": status.as_u16(), "outcome": outcome, "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
