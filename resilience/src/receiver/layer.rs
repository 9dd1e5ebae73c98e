use std::fmt;
use std::mem::replace;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::iter;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, BodyStream, LengthLimitError, Limited, StreamBody};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument;

use super::answer::Answer;
use super::fingerprint::{Fingerprint, by_content};
use super::records::{Caller, Claim, Found, RecordId, Records, RecordsError};
use crate::http::{AnswerBody, BoxError, problem};
use crate::policy::IdempotencyKey;
use crate::rate_limit::header_seconds;

/// The header that carries the key.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a receiver takes and keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiverSettings {
    /// The most bytes of a request's body, which is read whole; more is 413. Default: 1 MiB.
    pub request_bytes: usize,
    /// The most bytes of an answer's body that are kept. Default: 256 KiB.
    pub answer_bytes: usize,
    /// Whether a request without a key is refused with 400. Default: it is handed on as it is.
    pub required: bool,
    /// Whether bodies whose media type is JSON are the same if their content is, whatever the order of members and the white
    /// space. Default: all bodies are compared byte by byte. A change makes others of the requests whose keys are kept.
    pub json_by_content: bool,
    /// Whether answers of 4xx are kept too. Default: they are. Turn it off where a refused request has stored nothing: then its repeat is
    /// decided anew, by whichever process gets it, and its key may be used for another request.
    pub keep_refusals: bool,
    /// The wait that is asked for while a request is in flight, and the shortest one that is asked for when there is no room.
    /// Default: 1 s.
    #[serde(with = "crate::duration_text")]
    pub retry_after: Duration,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        let retry_after = Duration::from_secs(1);
        Self {
            request_bytes: 1024 * 1024,
            answer_bytes: 256 * 1024,
            required: false,
            json_by_content: false,
            keep_refusals: true,
            retry_after,
        }
    }
}

/// A layer of tower that runs the handler of a request with an idempotency key once. Clones share everything.
pub struct Receiver<R, C> {
    shared: Arc<Shared<R, C>>,
}

struct Shared<R, C> {
    records: R,
    caller: C,
    settings: ReceiverSettings,
    /// Requests with a key that are handled, also for clients that have left.
    running: watch::Sender<usize>,
}

impl<R, C> Receiver<R, C>
where
    R: Records,
    C: Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
{
    /// A receiver with default settings. `caller` says who sends a request, from what authentication left in it; a request
    /// with a key and without a caller is refused with 401.
    pub fn new(records: R, caller: C) -> Self {
        Self::with(records, caller, ReceiverSettings::default())
    }

    /// A receiver with these settings.
    pub fn with(records: R, caller: C, settings: ReceiverSettings) -> Self {
        Self { shared: Arc::new(Shared { records, caller, settings, running: watch::Sender::new(0) }) }
    }

    /// Waits until no handler runs any more. Call it after the server has ended: handlers whose clients have left run on,
    /// and would be cut off by the end of the runtime.
    ///
    /// # Cancel safety
    /// It only looks.
    pub async fn drained(&self) {
        // The sender is in `self`, so the channel is open.
        let _ = self.shared.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

impl<S, R, C> Layer<S> for Receiver<R, C> {
    type Service = ReceiverService<S, R, C>;

    fn layer(&self, service: S) -> Self::Service {
        ReceiverService { service, shared: self.shared.clone() }
    }
}

/// A service behind a [`Receiver`].
pub struct ReceiverService<S, R, C> {
    service: S,
    shared: Arc<Shared<R, C>>,
}

/// A request, looked at.
enum Looked<B> {
    Plain(Request<B>),
    Keyed(Keyed<B>),
    Refused(Response<AnswerBody>),
}

struct Keyed<B> {
    id: RecordId,
    fingerprint: Fingerprint,
    request: Request<B>,
}

impl<S, R, C, B, A> Service<Request<B>> for ReceiverService<S, R, C>
where
    S: Service<Request<B>, Response = Response<A>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    R: Records,
    C: Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
{
    type Response = Response<AnswerBody>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<AnswerBody>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready answers; its clone may not be.
        let next = self.service.clone();
        let mut service = replace(&mut self.service, next);
        let shared = self.shared.clone();
        Box::pin(async move {
            let keyed = match shared.look(request).await {
                Looked::Plain(request) => return Ok(service.call(request).await?.map(AnswerBody::new)),
                Looked::Refused(response) => return Ok(response),
                Looked::Keyed(keyed) => keyed,
            };
            // A task of its own, from before the claim: it runs to its end when the client leaves and this future is dropped.
            let running = Running::new(shared.clone());
            let handled = async move {
                let response = shared.handle(service, keyed).await;
                drop(running);
                response
            };
            match tokio::spawn(handled.in_current_span()).await {
                Ok(response) => response,
                // The claim was dropped with the task, so the key is free again.
                Err(error) => {
                    tracing::error!(%error, "the handler of a request with an idempotency key did not end");
                    Ok(problem(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "broken-off",
                        "the request failed; it may be sent again",
                    ))
                }
            }
        })
    }
}

impl<R, C> Shared<R, C>
where
    R: Records,
    C: Fn(&Parts) -> Option<Caller>,
{
    async fn look<B>(&self, request: Request<B>) -> Looked<B>
    where
        B: Body<Data = Bytes> + From<Bytes>,
        B::Error: Into<BoxError>,
    {
        let refused = |status, code: &str, detail: &str| Looked::Refused(problem(status, code, detail));
        let changes_nothing = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
        let mut keys = request.headers().get_all(KEY).iter();
        let (key, another) = (keys.next(), keys.next());
        let key = match key {
            _ if changes_nothing.contains(request.method()) => return Looked::Plain(request),
            None if self.settings.required => {
                let detail = "the header `Idempotency-Key` is missing";
                return refused(StatusCode::BAD_REQUEST, "idempotency-key-missing", detail);
            }
            None => return Looked::Plain(request),
            Some(_) if another.is_some() => {
                let detail = "there is more than one header `Idempotency-Key`";
                return refused(StatusCode::BAD_REQUEST, "idempotency-key-invalid", detail);
            }
            Some(key) => key,
        };
        let key = match key.to_str().ok().and_then(|key| IdempotencyKey::new(key).ok()) {
            Some(key) => key,
            None => {
                let detail = crate::policy::KeyError.to_string();
                return refused(StatusCode::BAD_REQUEST, "idempotency-key-invalid", &detail);
            }
        };
        let (parts, body) = request.into_parts();
        let Some(caller) = (self.caller)(&parts) else {
            let detail = "an idempotency key is of use to known callers only";
            return refused(StatusCode::UNAUTHORIZED, "caller-unknown", detail);
        };
        let most = self.settings.request_bytes;
        let too_big = || {
            refused(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", &format!("the body has more than {most} bytes"))
        };
        if body.size_hint().lower() > most as u64 {
            return too_big();
        }
        let body = match Limited::new(body, most).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return too_big(),
            Err(_) => return refused(StatusCode::BAD_REQUEST, "body-unreadable", "the body could not be read"),
        };
        let uri = whole_uri(&parts);
        let compared = if self.settings.json_by_content { by_content(&parts.headers, &body) } else { None };
        let compared = compared.as_deref().unwrap_or(&body);
        let fingerprint = Fingerprint::new(&caller, parts.method.as_str(), uri.path(), uri.query(), compared);
        Looked::Keyed(Keyed {
            id: RecordId { caller, key },
            fingerprint,
            request: Request::from_parts(parts, body.into()),
        })
    }

    async fn handle<S, B, A>(&self, mut service: S, keyed: Keyed<B>) -> Result<Response<AnswerBody>, S::Error>
    where
        S: Service<Request<B>, Response = Response<A>>,
        A: Body<Data = Bytes> + Send + 'static,
        A::Error: Into<BoxError>,
    {
        let Keyed { id, fingerprint, request } = keyed;
        let claim = match self.records.claim(&id, &fingerprint).await {
            Ok(Found::New(claim)) => claim,
            Ok(Found::InFlight(other) | Found::Answered(other, _)) if other != fingerprint => {
                return Ok(another_request(&fingerprint.differences(&other)));
            }
            Ok(Found::InFlight(_)) => {
                let detail = "a request with this idempotency key is in flight";
                return Ok(self.later(StatusCode::CONFLICT, "idempotency-key-in-flight", detail, None));
            }
            Ok(Found::Answered(_, answer)) => return Ok(answer.replay()),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a request with an idempotency key is refused"
                );
                let free_in = if let RecordsError::Full { free_in, .. } = error { free_in } else { None };
                let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "idempotency-keys-unavailable");
                return Ok(self.later(status, code, &error.to_string(), free_in));
            }
        };
        // An error drops the claim, as a panic does.
        let (parts, body) = service.call(request).await?.into_parts();
        if !Answer::is_final(parts.status) || parts.status.is_client_error() && !self.settings.keep_refusals {
            drop(claim);
            return Ok(Response::from_parts(parts, AnswerBody::new(body)));
        }
        let (kept, body) = read(body, self.settings.answer_bytes).await;
        let answer = Answer::new(parts.status, &parts.headers, kept);
        if let Err(error) = claim.keep(answer).await {
            // The effect was made, so the caller gets its answer; repeats find the key claimed.
            tracing::error!(error = &error as &dyn std::error::Error, "an answer was not kept");
        }
        Ok(Response::from_parts(parts, body))
    }

    fn later(&self, status: StatusCode, code: &str, detail: &str, free_in: Option<Duration>) -> Response<AnswerBody> {
        let mut response = problem(status, code, detail);
        let wait = free_in.unwrap_or_default().max(self.settings.retry_after);
        let seconds = header_seconds(wait).max(1);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }
}

fn another_request(differences: &[&str]) -> Response<AnswerBody> {
    let differences = differences.join(", ");
    let detail = format!("this idempotency key was used for another request; not the same: {differences}");
    problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", &detail)
}

/// A nested router of axum sees a part of the path only, which two routes may have in common.
#[cfg(feature = "axum")]
fn whole_uri(parts: &Parts) -> &http::Uri {
    parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |whole| &whole.0)
}

#[cfg(not(feature = "axum"))]
fn whole_uri(parts: &Parts) -> &http::Uri {
    &parts.uri
}

/// Reads a body whole, if it is not too big to keep; and a body that gives the same.
async fn read<A>(body: A, most: usize) -> (Option<Bytes>, AnswerBody)
where
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
{
    if body.size_hint().lower() > most as u64 {
        return (None, AnswerBody::new(body));
    }
    let mut rest = BodyStream::new(AnswerBody::new(body));
    let mut frames: Vec<Result<Frame<Bytes>, BoxError>> = Vec::new();
    let mut bytes = Vec::new();
    while let Some(frame) = rest.next().await {
        // An answer that breaks off was still an answer, so the handler is not run again.
        let mut whole = frame.is_ok();
        if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
            whole = bytes.len() + data.len() <= most;
            if whole {
                bytes.extend_from_slice(data);
            }
        }
        frames.push(frame);
        if !whole {
            return (None, AnswerBody::new(StreamBody::new(iter(frames).chain(rest))));
        }
    }
    let bytes = Bytes::from(bytes);
    let only_data = frames.iter().flatten().all(Frame::is_data);
    let body = if only_data { bytes.clone().into() } else { AnswerBody::new(StreamBody::new(iter(frames))) };
    (Some(bytes), body)
}

/// Counts a handler for as long as it runs.
struct Running<R, C>(Arc<Shared<R, C>>);

impl<R, C> Running<R, C> {
    fn new(shared: Arc<Shared<R, C>>) -> Self {
        shared.running.send_modify(|running| *running += 1);
        Self(shared)
    }
}

impl<R, C> Drop for Running<R, C> {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl<R, C> Clone for Receiver<R, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: Clone, R, C> Clone for ReceiverService<S, R, C> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), shared: self.shared.clone() }
    }
}

impl<R, C> fmt::Debug for Receiver<R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl<S, R, C> fmt::Debug for ReceiverService<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverService").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}
