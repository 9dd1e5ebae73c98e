//! Signing in with an API key, signing out, and which shop is shown.

use axum::extract::State;
use axum::extract::rejection::StringRejection;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;

use crate::dashboard::error::Trouble;
use crate::dashboard::form::{Form, from_here, is_over_tls, read, unread};
use crate::dashboard::layout::{PAGES, Page, answer, outer};
use crate::dashboard::query::Query;
use crate::dashboard::sessions::{cookie, no_cookie, tokens_of};
use crate::dashboard::state::Dashboard;
use crate::dashboard::visitor::Visitor;
use crate::service::problem::Problem;

/// Where to go afterwards.
#[derive(Deserialize)]
pub struct Next {
    #[serde(default)]
    next: String,
}

/// The form.
pub async fn show(Query(Next { next }): Query<Next>) -> Response {
    page(StatusCode::OK, &next, None)
}

fn page(status: StatusCode, next: &str, problem: Option<&str>) -> Response {
    let content = html! {
        main.narrow #main {
            h1 { "Sign in" }
            p { "The dashboard shows what an API key may see." }
            form.stacked method="post" action="/dashboard/sign-in" {
                input type="hidden" name="next" value=(page_of_ours(next));
                label for="key" { "API key" }
                input #key name="key" type="password" required autofocus autocomplete="current-password" spellcheck="false"
                    aria-invalid=[problem.map(|_| "true")] aria-describedby=[problem.map(|_| "problem")];
                @if let Some(problem) = problem { p.problem #problem role="alert" { (problem) } }
                button.main type="submit" { "Sign in" }
            }
        }
    };
    (status, answer(outer("Sign in", false, &content))).into_response()
}

#[derive(Deserialize)]
struct Key {
    key: String,
    #[serde(default)]
    next: String,
}

/// Begins a session, if the key is one of ours.
pub async fn sign_in(
    State(dashboard): State<Dashboard>,
    headers: HeaderMap,
    body: Result<String, StringRejection>,
) -> Result<Response, Trouble> {
    from_here(&headers)?;
    let body = body.map_err(unread)?;
    let Key { key, next } = read(&body).map_err(|e| Problem::bad("form-invalid", e))?;
    let Some(caller) = dashboard.app.keys.find(key.trim()) else {
        tracing::info!("somebody has tried to sign in with what is no key");
        return Ok(page(StatusCode::UNAUTHORIZED, &next, Some("This is no key of the shop.")));
    };
    dashboard.count_page(&caller.key)?;
    tracing::info!(key = &*caller.key, "signed in");
    tokens_of(&headers).for_each(|before| dashboard.sessions.end(before));
    let token = dashboard.sessions.begin(caller.clone()).map_err(|e| Problem::broken(&e))?;
    let cookie = cookie(&token, is_over_tls(&headers));
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(page_of_ours(&next))).into_response())
}

/// Ends a session.
pub async fn sign_out(Form { visitor, .. }: Form<Next>) -> Response {
    visitor.dashboard.sessions.end(&visitor.token);
    ([(header::SET_COOKIE, no_cookie())], Redirect::to("/dashboard/sign-in")).into_response()
}

#[derive(Deserialize)]
pub struct Shop {
    shop: String,
    #[serde(default)]
    next: String,
}

/// Shows another shop to an operator of all of them.
pub async fn choose_shop(Form { visitor, fields }: Form<Shop>) -> Result<Redirect, Trouble> {
    let shop = visitor.shops().into_iter().find(|shop| shop.as_str() == fields.shop);
    let shop = shop.ok_or_else(|| Problem::not_found("shop", fields.shop.escape_debug()))?;
    visitor.dashboard.sessions.choose_shop(&visitor.token, shop);
    Ok(Redirect::to(page_of_ours(&fields.next)))
}

/// The first page that the key may see.
pub async fn first_page(visitor: Visitor) -> Response {
    match PAGES.iter().find(|(_, _, route)| visitor.may(&Method::GET, route)) {
        Some((path, ..)) => Redirect::to(path).into_response(),
        None => Page::new("Nothing to see", html! { h1 { "Nothing to see" } p { "There is no page for this key." } })
            .to(&visitor),
    }
}

/// Where a form leads: a page of the dashboard, whatever it says.
pub fn page_of_ours(next: &str) -> &str {
    let inside = next.strip_prefix("/dashboard").is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    // `..` would lead out of it.
    let inside = inside
        && !next.split(['/', '?', '#']).any(|part| part == "..")
        && !next.contains("%2e")
        && !next.contains("%2E");
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if inside && plain { next } else { "/dashboard" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_to_a_page_of_the_dashboard_only() {
        for inside in ["/dashboard", "/dashboard/orders?q=a%20b", "/dashboard?x"] {
            assert_eq!(page_of_ours(inside), inside);
        }
        for outside in [
            "",
            "//evil.example",
            "https://evil.example/dashboard",
            "/dashboardx",
            "/dashboard/\\evil",
            "/dashboard/../evil",
            "/dashboard/x/%2e%2E/../evil",
            "/dashboard/\r\nx",
            "javascript:1",
        ] {
            assert_eq!(page_of_ours(outside), "/dashboard", "{outside}");
        }
    }
}
