//! An error as a page, of the same status as the API would answer.

use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use maud::html;

use crate::dashboard::layout::{answer, outer};
use crate::service::problem::Problem;

/// Why a page cannot be shown.
pub struct Trouble(Problem);

impl<P: Into<Problem>> From<P> for Trouble {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, code, detail) = self.0.parts();
        let title = status.canonical_reason().unwrap_or("Error");
        let content = html! {
            main.narrow #main {
                h1 { (title) }
                p role="alert" { (detail) }
                p.quiet { "Status " (status.as_u16()) ", code " code { (code) } "." }
                p { a href="/dashboard" { "To the first page" } " · " a href="/dashboard/sign-in" { "Sign in with another key" } }
            }
        };
        let mut response = (status, answer(outer(title, false, &content))).into_response();
        if let Some(seconds) = self.0.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
