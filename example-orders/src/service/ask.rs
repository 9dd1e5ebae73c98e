//! What a request asks, taken out of it: path, query and body, each with an error that names what is wrong.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::domain::order::{CustomerId, OrderId};
use crate::service::problem::Problem;

/// The query of a request. A parameter that the route does not know is refused: a filter with a misspelt name is no filter.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|e| Problem::bad("query-invalid", e.body_text()))
    }
}

/// The body of a request, as JSON.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Json::from_request(request, state).await.map(|Json(body)| Self(body)).map_err(|error| {
            let code = match &error {
                JsonRejection::MissingJsonContentType(_) => "body-no-json",
                JsonRejection::BytesRejection(_) => "body-unreadable",
                _ => "body-invalid",
            };
            Problem::new(error.status(), code, error.body_text())
        })
    }
}

/// The order in the path of a request.
pub struct OrderPath(pub OrderId);

/// The customer in the path of a request.
pub struct CustomerPath(pub CustomerId);

impl<S: Send + Sync> FromRequestParts<S> for OrderPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = id_in_path(parts, state).await?;
        // What cannot be an id is the id of nothing.
        OrderId::new(&id).map(Self).map_err(|_| Problem::not_found("order", id.escape_debug()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CustomerPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = id_in_path(parts, state).await?;
        CustomerId::new(&id).map(Self).map_err(|_| Problem::not_found("customer", id.escape_debug()))
    }
}

async fn id_in_path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.map(|Path(id)| id).map_err(|e| Problem::new(StatusCode::NOT_FOUND, "not-found", e.body_text()))
}

/// A moment that is over, such as `2026-03-02T09:30:00Z`. An offset is needed: without it, it would be another moment for
/// everybody.
///
/// In a query a `+` stands for a space, so that `+02:00` must be written `%2B02:00`. What browsers and curl send unescaped is refused
/// with that, and never read as another zone.
pub fn moment(text: &str) -> Result<Timestamp, Problem> {
    let bad = |problem: &str| Problem::bad("as-of-invalid", format!("`as_of` {problem}"));
    if text.contains(' ') {
        return Err(bad("has a space, which a `+` in a URL means; write `%2B` for the `+` of an offset"));
    }
    if text.contains('[') {
        return Err(bad("names a time zone; give an offset, as in 2026-03-02T09:30:00%2B01:00"));
    }
    text.parse().map_err(|_| bad("is not a time with an offset, such as 2026-03-02T09:30:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_an_offset_and_a_plus_is_never_read_as_something_else() {
        let at = |text: &str| moment(text).ok().map(|time| time.to_string());
        let eight = Some("2026-11-27T08:00:00Z".to_owned());
        assert_eq!(at("2026-11-27T10:00:00+02:00"), eight);
        assert_eq!(at("2026-11-27T06:00:00-02:00"), eight);
        assert_eq!(at("2026-11-27T08:00:00Z"), eight);
        assert_eq!(at("2026-11-27T08:00:00.000001Z"), Some("2026-11-27T08:00:00.000001Z".to_owned()));
        for refused in [
            "2026-11-27T10:00:00 02:00",
            "2026-11-27T10:00:00",
            "2026-11-27 10:00:00Z",
            "2026-11-27T10:00:00+01:00[Europe/Berlin]",
            "10:00",
            "2026-11-27",
            "2026-13-01T00:00:00Z",
            "now",
            "",
        ] {
            assert_eq!(at(refused), None, "{refused}");
        }
    }
}
