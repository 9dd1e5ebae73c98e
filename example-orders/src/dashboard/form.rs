//! What a form brings. It is taken only from a page of this dashboard: the browser says where it comes from, and it has the token of
//! the session, which no other page knows.

use axum::extract::rejection::StringRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;

use crate::dashboard::error::Trouble;
use crate::dashboard::projections::ROUTE;
use crate::dashboard::query::PathOf;
use crate::dashboard::state::Dashboard;
use crate::dashboard::visitor::Visitor;
use crate::service::problem::Problem;

/// The fields of a form, and who sends it.
pub struct Form<T> {
    pub visitor: Visitor,
    pub fields: T,
}

/// The form of an operator about what the path names.
pub struct FormAbout<T> {
    pub visitor: Visitor,
    pub name: String,
    pub fields: T,
}

impl<T: DeserializeOwned> FromRequest<Dashboard> for FormAbout<T> {
    type Rejection = Response;

    async fn from_request(request: Request, dashboard: &Dashboard) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let name = PathOf::from_request_parts(&mut parts, dashboard).await;
        let PathOf(name) = name.map_err(IntoResponse::into_response)?;
        let Form { visitor, fields } = Form::from_request(Request::from_parts(parts, body), dashboard).await?;
        let needed = visitor.needs(&Method::GET, ROUTE);
        needed.map_err(|problem| Trouble::from(problem).into_response())?;
        Ok(Self { visitor, name, fields })
    }
}

#[derive(Deserialize)]
struct Token {
    form_token: String,
}

impl<T: DeserializeOwned> FromRequest<Dashboard> for Form<T> {
    type Rejection = Response;

    async fn from_request(request: Request, dashboard: &Dashboard) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        from_here(&parts.headers).map_err(|problem| Trouble::from(problem).into_response())?;
        let visitor = Visitor::from_request_parts(&mut parts, dashboard).await.map_err(IntoResponse::into_response)?;
        let body = String::from_request(Request::from_parts(parts, body), dashboard).await;
        let body = body.map_err(|e| Trouble::from(unread(e)).into_response())?;
        let token: Option<Token> = read(&body).ok();
        let is_ours =
            |token: Token| bool::from(token.form_token.as_bytes().ct_eq(visitor.session.form_token.as_bytes()));
        if !token.is_some_and(is_ours) {
            let detail = "the form is not of this session; open the page again, and send it from there";
            return Err(Trouble::from(Problem::new(StatusCode::FORBIDDEN, "form-token", detail)).into_response());
        }
        let fields = read(&body);
        let fields = fields.map_err(|e| Trouble::from(Problem::bad("form-invalid", e)).into_response())?;
        Ok(Self { visitor, fields })
    }
}

/// A body that is too long, or no text.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` has")]
pub fn unread(body: StringRejection) -> Problem {
    Problem::new(body.status(), "form-invalid", body.body_text())
}

/// Reads the fields of a form.
pub fn read<T: DeserializeOwned>(body: &str) -> Result<T, serde::de::value::Error> {
    serde_html_form::from_str(body)
}

/// Refuses what another site sends. Browsers say where every form comes from, and a page cannot change it.
///
/// # Errors
/// It comes from elsewhere, or does not say.
pub fn from_here(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    let origin = origin.filter(|(scheme, _)| ["http", "https"].contains(scheme)).map(|(_, authority)| authority);
    match (origin, text(header::HOST)) {
        (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => Ok(()),
        _ => {
            let detail = "a form is taken only from a page of this dashboard";
            Err(Problem::new(StatusCode::FORBIDDEN, "origin", detail))
        }
    }
}

/// Whether the browser is connected over TLS, which may end in front of the service.
pub fn is_over_tls(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}
