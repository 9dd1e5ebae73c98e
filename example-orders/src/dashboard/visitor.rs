//! Who looks at a page: somebody who is signed in, with the rights of an API key.

use annals::Tenant;
use annals::resilience::Deadline;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use std::time::Duration;

use crate::dashboard::error::Trouble;
use crate::dashboard::sessions::{Session, tokens_of};
use crate::dashboard::sign_in::page_of_ours;
use crate::dashboard::state::Dashboard;
use crate::service::access::{Caller, Role};
use crate::service::problem::Problem;

/// A page is made within this time, or not at all.
pub const PAGE: Duration = Duration::from_secs(10);

/// Somebody who is signed in, and what is asked for.
#[derive(Clone)]
pub struct Visitor {
    pub dashboard: Dashboard,
    pub session: Session,
    pub token: String,
    /// The page, with its query.
    pub uri: Uri,
    /// Whether only the content of the page is asked for, because the rest is there.
    pub wants_content: bool,
    /// Everything that was written up to here is on the page.
    pub seen: i64,
}

impl Visitor {
    /// Who it is for the functions of the API.
    pub fn caller(&self) -> &Caller {
        &self.session.caller
    }

    /// Whether the key may use this route of the API.
    pub fn may(&self, method: &Method, route: &str) -> bool {
        self.dashboard.app.rights.allow(method, route, self.session.caller.role)
    }

    /// A page shows what a route of the API answers, to those who may ask the route.
    ///
    /// # Errors
    /// The role of the key is not one of those.
    pub fn needs(&self, method: &Method, route: &str) -> Result<(), Problem> {
        if self.may(method, route) {
            return Ok(());
        }
        let role = self.session.caller.role.name();
        let detail = format!("a key of the role `{role}` is not for this page; sign in with another one");
        Err(Problem::new(StatusCode::FORBIDDEN, "role", detail))
    }

    /// Whether it is an operator of the whole service, and not of one shop.
    pub fn runs_the_service(&self) -> bool {
        let caller = self.caller();
        caller.role == Role::Operator && self.dashboard.app.keys.is_of_no_shop(&caller.key)
    }

    /// What all shops share is changed by those alone who run the service.
    ///
    /// # Errors
    /// The key belongs to a shop.
    pub fn needs_the_service(&self) -> Result<(), Problem> {
        if self.runs_the_service() {
            return Ok(());
        }
        let detail = "all shops share this; it is changed with the key of an operator who belongs to none of them";
        Err(Problem::new(StatusCode::FORBIDDEN, "role", detail))
    }

    /// Whether what an operator may see of this shop is there for this visitor.
    pub fn sees(&self, shop: &Tenant) -> bool {
        self.caller().tenant == *shop || self.runs_the_service()
    }

    /// The shops among which this visitor may choose: only an operator whose key belongs to no shop may.
    pub fn shops(&self) -> Vec<Tenant> {
        if self.runs_the_service() { self.dashboard.app.keys.shops() } else { Vec::new() }
    }

    /// How long the page may take.
    pub fn deadline(&self) -> Deadline {
        Deadline::within(PAGE)
    }

    /// What every form of a page begins with.
    pub fn form_token(&self) -> Markup {
        html! { input type="hidden" name="form_token" value=(self.session.form_token); }
    }
}

/// The session to which the page belongs that asks for its content anew.
const PAGE_OF: &str = "x-page-of";
/// A page asks by itself, and nobody need be there.
const BY_ITSELF: &str = "x-by-itself";

/// Why there is no visitor.
pub enum NotHere {
    /// Nobody is signed in: where to do that.
    SignInFirst { next: String, wants_content: bool },
    /// The page that asks for its content anew is one of another session or shop, and has to be made anew as a whole.
    OtherSession { here: String },
    /// The key has asked for too many pages.
    TooMany(Problem),
}

impl IntoResponse for NotHere {
    fn into_response(self) -> Response {
        // A redirection would put one page into the other that is there.
        let leave = |status, place: &str| {
            let place = HeaderValue::from_str(place).unwrap_or(HeaderValue::from_static("/dashboard"));
            (status, [("hx-redirect", place)]).into_response()
        };
        match self {
            Self::TooMany(problem) => Trouble::from(problem).into_response(),
            Self::OtherSession { here } => leave(StatusCode::CONFLICT, &here),
            Self::SignInFirst { next, wants_content } => {
                let place = format!("/dashboard/sign-in?next={}", escaped(&next));
                if wants_content {
                    leave(StatusCode::UNAUTHORIZED, &place)
                } else {
                    Redirect::to(&place).into_response()
                }
            }
        }
    }
}

/// The page from which a form was sent.
fn page_before(headers: &HeaderMap) -> String {
    let page = headers.get(header::REFERER).and_then(|page| page.to_str().ok());
    let page = page.and_then(|page| page.split_once("://")?.1.split_once('/'));
    page.map_or_else(String::new, |(_, path)| page_of_ours(&format!("/{path}")).to_owned())
}

impl FromRequestParts<Dashboard> for Visitor {
    type Rejection = NotHere;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Dashboard) -> Result<Self, NotHere> {
        let wants_content = parts.headers.contains_key("hx-request");
        let by_person = is_by_person(&parts.headers);
        let mut found = tokens_of(&parts.headers)
            .filter_map(|token| Some((token.to_owned(), dashboard.sessions.find(token, by_person)?)));
        let found = found.next();
        let here = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let Some((token, session)) = found else {
            // What a form is sent to is no page; the one that it is on is.
            let next = if parts.method.is_safe() { here } else { page_before(&parts.headers) };
            return Err(NotHere::SignInFirst { next, wants_content });
        };
        dashboard.count_page(&session.caller.key).map_err(NotHere::TooMany)?;
        if parts.headers.get(PAGE_OF).is_some_and(|of| of.as_bytes() != session.name().as_bytes()) {
            return Err(NotHere::OtherSession { here });
        }
        let seen = dashboard.live.position();
        Ok(Self { dashboard: dashboard.clone(), session, token, uri: parts.uri.clone(), wants_content, seen })
    }
}

/// Whether a person asks, whose session goes on by that.
fn is_by_person(headers: &HeaderMap) -> bool {
    !headers.contains_key(BY_ITSELF)
}

/// A text as a value in a query.
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a page that is left open would keep its session for ever.
    #[test]
    fn what_a_page_asks_for_by_itself_is_no_use_of_a_session() {
        let mut headers = HeaderMap::new();
        assert!(is_by_person(&headers));
        // As assets/dashboard.js sends it.
        headers.insert("X-By-Itself".parse::<header::HeaderName>().expect("a name"), HeaderValue::from_static("1"));
        assert!(!is_by_person(&headers));
    }
}
