//! Stands before every route of the API: no key, no answer; a key of the wrong role, no answer either.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::caller::Caller;
use crate::service::app::App;
use crate::service::problem::Problem;

/// Finds out who the caller is, and whether the route is for them.
pub async fn guard(
    State(app): State<App>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    // What is no route is no secret either: the fallback says so.
    let Some(path) = path else { return Ok(next.run(request).await) };
    let caller = caller(&app, &request).ok_or_else(unknown)?;
    // A method that the route does not have is answered with 405, which needs no right.
    if app.rights.knows(request.method(), path.as_str())
        && !app.rights.allow(request.method(), path.as_str(), caller.role)
    {
        let detail = format!("a key of the role `{}` is not for this route", caller.role.name());
        return Err(Problem::new(StatusCode::FORBIDDEN, "role", detail));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn caller(app: &App, request: &Request) -> Option<Caller> {
    let mut headers = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return None };
    let (scheme, key) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    app.keys.find(key.trim()).cloned()
}

/// No key, or none of ours.
pub fn unknown() -> Problem {
    let detail = "send `Authorization: Bearer KEY` with an API key of the shop";
    Problem::new(StatusCode::UNAUTHORIZED, "key", detail)
}
