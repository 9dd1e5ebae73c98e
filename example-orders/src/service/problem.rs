//! Errors over HTTP: `application/problem+json` (RFC 9457), with a code that a program can compare and that never changes.
//!
//! Every error of the shop becomes one here, by what a caller can do about it: 400 and 422 fix the request, 404 and 409 look again,
//! 503 and 504 send the same again with the same key, 500 call somebody. One 409 is like a 503: a key that is in flight.

use std::convert::Infallible;
use std::error::Error;
use std::iter::successors;

use annals::engine::DecodeError;
use annals::projections::{AsOfError, ControlError, QueryError, StopCause, Stopped, WaitError};
use annals::resilience::{CallError, Class, Classify, Deadline, Guard, Reason, TimeLimit};
use annals::sagas::SagaError;
use annals::{AppendError, ErrorFamily, ExecuteError, Invalid, Position, ReadError};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::checkout::CheckoutError;
use crate::domain::customer::NoName;
use crate::domain::order::{OrderError, statuses_before};

/// An error as it is answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// The status in words.
    title: &'static str,
    /// The status.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    /// What happened, for programs: `order-status`, say.
    #[schema(schema_with = crate::service::document::codes)]
    code: &'static str,
    /// What happened, for people, and what to do.
    detail: String,
    /// Of a conflict: what it should have been. Of `order-status` and `checkout-status` a list of statuses, of `order-amount` an amount,
    /// else a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Value>,
    /// Of a conflict: what it is. A status, an amount, or a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<Value>,
    #[serde(skip)]
    retry_after: Option<u32>,
    /// Something that is stored cannot be read, while the database is well.
    #[serde(skip)]
    is_of_data: bool,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Problem {
    /// An error of this status.
    pub fn new(status: StatusCode, code: &'static str, detail: impl ToString) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let detail = detail.to_string();
        Self { title, status, code, detail, expected: None, actual: None, retry_after: None, is_of_data: false }
    }

    /// The request is wrong as it is.
    pub fn bad(code: &'static str, detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// There is no such thing, or not for this caller, which is answered alike.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no {what} `{id}`"))
    }

    /// The state is another than the request needs.
    pub fn conflict(
        code: &'static str,
        detail: impl ToString,
        expected: impl Serialize,
        actual: impl Serialize,
    ) -> Self {
        let (expected, actual) = (Some(json!(expected)), Some(json!(actual)));
        Self { expected, actual, ..Self::new(StatusCode::CONFLICT, code, detail) }
    }

    /// The same request may work in a second.
    pub fn later(code: &'static str, detail: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).in_a_second()
    }

    /// The caller's deadline is over. A write may have had its effect: the same key tells.
    pub fn too_late(deadline: Deadline) -> Self {
        debug_assert!(deadline.is_over());
        Self::deadline_exceeded()
    }

    fn deadline_exceeded() -> Self {
        let detail =
            "the deadline of the request is over; if it is a write it may have been made, and the same key tells";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline-exceeded", detail)
    }

    /// Whether it says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.code == "not-found"
    }

    /// Whether something that is stored cannot be read, while the database is well.
    pub fn is_of_data(&self) -> bool {
        self.is_of_data
    }

    /// Status, code and detail, for those who do not answer in JSON.
    pub fn parts(&self) -> (StatusCode, &'static str, &str) {
        (self.status, self.code, &self.detail)
    }

    /// After how many seconds the same may be asked for again.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// The same may be asked for again in a second.
    pub fn in_a_second(self) -> Self {
        Self { retry_after: Some(1), ..self }
    }

    /// The service ends before the request does.
    pub fn stopping() -> Self {
        let detail = "the service stops; a write may have been made, and the same key tells after its next start";
        Self::later("stopping", detail)
    }

    /// Whether it is a fault of the shop, and not of what was asked.
    pub fn is_outage(&self) -> bool {
        self.status.is_server_error() && self.code != "position-not-reached"
    }

    /// What no caller can do anything about. The text of the error is for the log.
    pub fn broken(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "a request has failed");
        let detail = "the shop cannot answer this; the request id finds it in the log";
        Self { is_of_data: is_of_data(error), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", detail) }
    }

    /// The database cannot be asked now. What it says of that is for the log.
    fn unavailable(error: &(dyn Error + 'static)) -> Self {
        Self::of_outage("unavailable", error)
    }

    fn of_outage(code: &'static str, error: &(dyn Error + 'static)) -> Self {
        tracing::debug!(error, "a request cannot be answered now");
        Self::later(code, "the database does not answer now; send the same again, a write with the same key")
    }

    fn key_reused() -> Self {
        let detail = "this idempotency key was used for another request; give each request its own";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
    }

    fn of_family(family: ErrorFamily, error: &(dyn Error + 'static)) -> Self {
        match family {
            ErrorFamily::Invalid => Self::bad("invalid", error),
            ErrorFamily::Conflict => Self::new(StatusCode::CONFLICT, "conflict", error),
            ErrorFamily::Transient => Self::unavailable(error),
            ErrorFamily::OutcomeUnknown => {
                let detail =
                    "it is not known whether the write was made; send the same again with the same key, which tells";
                Self { detail: detail.to_owned(), ..Self::of_outage("outcome-unknown", error) }
            }
            _ => Self::broken(error),
        }
    }
}

/// Whether an event, a row, or the data of a saga cannot be read.
fn is_of_data(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |&error| error.source()).any(|error| {
        error.is::<DecodeError>()
            || error.is::<serde_json::Error>()
            || matches!(error.downcast_ref(), Some(ReadError::Damaged { position, .. }) if *position > Position::START)
            || matches!(error.downcast_ref(), Some(QueryError::Unreadable { .. }))
            || error
                .downcast_ref()
                .is_some_and(|stopped: &Stopped| stopped.event.is_some() || matches!(*stopped.cause, StopCause::Row(_)))
    })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/problem+json");
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What a policy makes of an error of the shop: only its own faults count, and only some of them may pass. One event that cannot be
/// read is no reason to refuse the reads of a whole shop.
impl Classify for Problem {
    fn class(&self) -> Class {
        if self.is_of_data {
            return Class::Ignored;
        }
        Class::of_status(self.status.as_u16(), None)
    }
}

impl From<CallError<Self>> for Problem {
    fn from(error: CallError<Self>) -> Self {
        let seconds = error.retry_after().map(|wait| wait.as_secs().clamp(1, 60) as u32);
        let busy = |detail: &str| Self { retry_after: seconds.or(Some(1)), ..Self::later("busy", detail) };
        match (error.guard(), error.reason, error.source) {
            (Some(Guard::Deadline), ..) | (_, Reason::TimedOut { limit: TimeLimit::Deadline }, _) => {
                Self::deadline_exceeded()
            }
            (Some(Guard::Breaker), ..) => busy("the database has failed too often, and is not asked for some seconds"),
            (Some(_), ..) => busy("too many requests of this kind are made at once"),
            (None, Reason::Failed { .. }, Some(problem)) => problem,
            (None, ..) => {
                let detail = "the database did not answer in time; a write may have been made, and the same key tells";
                Self::later("no-answer", detail)
            }
        }
    }
}

/// What the rules of the domain refuse: 409 if the order is in the way, 422 if the request is.
impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        let wrong = |code| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, &error);
        match &error {
            OrderError::PlacedAlready => Self::conflict("order-exists", &error, "no such order", "an order"),
            OrderError::NotNow { step, status } => {
                Self::conflict("order-status", &error, statuses_before(step), status)
            }
            OrderError::WrongAmount { expected, offered } => Self::conflict("order-amount", &error, expected, offered),
            OrderError::Empty => wrong("order-empty"),
            OrderError::NoTotal | OrderError::TooMuch { .. } => wrong("order-total"),
            OrderError::OtherCurrency { .. } => wrong("order-currency"),
        }
    }
}

impl From<NoName> for Problem {
    fn from(error: NoName) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "customer-name", error)
    }
}

impl<R: Into<Self> + std::fmt::Debug + std::fmt::Display + 'static> From<ExecuteError<R>> for Problem
where
    ExecuteError<R>: Error,
{
    fn from(error: ExecuteError<R>) -> Self {
        match error {
            ExecuteError::Rejected(rejection) => rejection.into(),
            ExecuteError::Read(error) => error.into(),
            ExecuteError::Append(AppendError::RequestKeyReused { .. }) => Self::key_reused(),
            ExecuteError::Append(AppendError::WrongExpectedVersion { ref expected, actual, .. }) => {
                let detail = "others changed the order at the same time, again and again; send the same again";
                Self::conflict("conflict", detail, expected.to_string(), actual.to_string())
            }
            ExecuteError::Append(AppendError::DeadlineExceeded { .. }) => {
                let detail = "the deadline of the request is over; nothing was stored";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline-exceeded", detail)
            }
            error => match error.family() {
                Some(family) => Self::of_family(family, &error),
                None => Self::broken(&error),
            },
        }
    }
}

/// What no rule refuses.
impl From<Infallible> for Problem {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<CheckoutError> for Problem {
    fn from(error: CheckoutError) -> Self {
        match error {
            CheckoutError::Invalid(error) => error.into(),
            CheckoutError::Order(error) => error.into(),
            CheckoutError::Execute(error) => error.into(),
            CheckoutError::Read(error) => error.into(),
            CheckoutError::Query(error) => error.into(),
            CheckoutError::Saga(error) => error.into(),
        }
    }
}

impl From<SagaError> for Problem {
    fn from(error: SagaError) -> Self {
        match &error {
            // The order of a checkout follows from the key of its request.
            SagaError::StartedBefore { .. } => Self::key_reused(),
            SagaError::WrongStatus { status, allowed, .. } if !allowed.contains(status) => {
                Self::conflict("checkout-status", &error, allowed, status)
            }
            // It has passed its pivot, say.
            SagaError::WrongStatus { .. } => Self::new(StatusCode::CONFLICT, "checkout-decision", &error),
            SagaError::NotStarted { .. } => {
                Self::later("checkout-not-seen", "the checkout has begun, and is not seen yet; send the same again")
            }
            _ => Self::of_family(error.family(), &error),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(error: Invalid) -> Self {
        Self::bad("invalid", error)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        Self::of_family(error.family(), &error)
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Value { .. } | QueryError::Key(_) => Self::bad("invalid", error),
            // The texts are ours, and so are their faults.
            _ if error.is_transient() => Self::unavailable(&error),
            _ => Self::broken(&error),
        }
    }
}

impl From<AsOfError> for Problem {
    fn from(error: AsOfError) -> Self {
        match error {
            AsOfError::Read(ReadError::Invalid(invalid)) => Self::bad("as-of-invalid", format!("`as_of`: {invalid}")),
            AsOfError::Read(error) => error.into(),
            AsOfError::Stopped(stopped) => Self::of_family(stopped.family(), &stopped),
            error => Self::of_family(error.family(), &error),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Paused { .. } => Self::new(StatusCode::CONFLICT, "projection-paused", error),
            ControlError::Read(error) => error.into(),
            error => Self::of_family(error.family(), &error),
        }
    }
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        match &error {
            WaitError::TimedOut { position, .. } => {
                let detail = format!("what is read did not show position {position} in time; send the same again");
                Self::later("position-not-reached", detail)
            }
            WaitError::Stopped(stopped) => Self::of_family(stopped.family(), stopped),
            error => Self::of_family(error.family(), error),
        }
    }
}
