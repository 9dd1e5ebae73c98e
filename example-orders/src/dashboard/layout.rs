//! What all pages have in common: the head, the navigation, and a place for the content.

use annals::engine::{Clock, SystemClock};
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::dashboard::assets::{Asset, CHART_STYLES, CHARTS, HTMX, HTMX_SSE, SCRIPTS, STYLES};
use crate::dashboard::format::clock;
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::{analytics, orders, overview, policies, projections, sagas};

/// Path, name, and the route of the API that has the same: who may not ask that does not see the page.
pub const PAGES: [(&str, &str, &str); 6] = [
    (overview::PATH, "Overview", "/operator/projections"),
    (orders::PATH, "Orders", "/orders"),
    (analytics::PATH, "Analytics", "/analytics/days"),
    (sagas::PATH, "Checkouts", sagas::ROUTE),
    (projections::PATH, "Projections", projections::ROUTE),
    (policies::PATH, "Policies", policies::ROUTE),
];

/// Nothing that htmx would do with `eval` or with styles of its own, and nothing from elsewhere.
const HTMX_CONFIG: &str = r#"{"extensions":"sse","includeIndicatorCSS":false,"mode":"same-origin","history":"reload","morphIgnore":["data-htmx-powered","open"]}"#;

/// A page.
pub struct Page {
    title: String,
    content: Markup,
    topics: Vec<Topic>,
    has_charts: bool,
    is_past: bool,
}

impl Page {
    /// A page with this content, which begins with an `h1`.
    pub fn new(title: impl Into<String>, content: Markup) -> Self {
        Self { title: title.into(), content, topics: Vec::new(), has_charts: false, is_past: false }
    }

    /// It is made again whenever something of this kind has changed.
    pub fn live(mut self, topic: Topic) -> Self {
        self.topics.push(topic);
        self
    }

    /// It shows the past, which does not change.
    pub fn past(mut self) -> Self {
        self.is_past = true;
        self
    }

    /// It has charts.
    pub fn with_charts(mut self) -> Self {
        self.has_charts = true;
        self
    }

    /// As it is sent: whole, or only what is inside of `main`, for a page that is there.
    pub fn to(self, visitor: &Visitor) -> Response {
        let live = !self.topics.is_empty();
        let main = html! {
            main #main tabindex="-1" data-of=(visitor.session.name()) data-live[live && !self.is_past] class=[self.is_past.then_some("past")] {
                (self.content)
                p.made { "All times are UTC. This page was made at " (clock(SystemClock.now())) @if live && !self.is_past { ", and follows what happens" } "." }
            }
        };
        let markup = if visitor.wants_content {
            html! { title { (self.title) " · shop" } (main) }
        } else {
            let page = html! {
                (top(visitor))
                (main)
                @if live {
                    @let topics = self.topics.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                    @let topics = super::visitor::escaped(&topics);
                    div #live hx-sse:connect={ "/dashboard/live?topics=" (topics) "&seen=" (visitor.seen) } hx-swap="none" {}
                }
                button #newer .main type="button" hidden { "Show what is new" }
                p #offline .notice .warn role="status" hidden {}
                p #announced .visually-hidden role="status" {}
            };
            outer(&self.title, self.has_charts, &page)
        };
        let mut response = answer(markup);
        response.headers_mut().insert("vary", HeaderValue::from_static("hx-request"));
        response
    }
}

/// A page without navigation.
pub fn outer(title: &str, has_charts: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX_CONFIG);
                title { (title) " · shop" }
                link rel="icon" href="data:,";
                (style(&STYLES))
                @if has_charts { (style(&CHART_STYLES)) }
                // Before anything is drawn: it chooses between light and dark.
                script src=(SCRIPTS.url) {}
                // It begins when the page and all that is deferred is there; if it were deferred itself it could begin without the next one.
                script src=(HTMX.url) {}
                (script(&HTMX_SSE))
                @if has_charts { (script(&CHARTS)) }
            }
            body { (body) }
        }
    }
}

fn top(visitor: &Visitor) -> Markup {
    let path = visitor.uri.path();
    let shops = visitor.shops();
    let caller = visitor.caller();
    html! {
        a.skip href="#main" { "Skip to the content" }
        header.top {
            a.brand href="/dashboard" { "shop" }
            nav aria-label="Pages" {
                @for (to, name, route) in PAGES {
                    @if visitor.may(&Method::GET, route) {
                        @let here = path == to || (to != "/dashboard" && path.starts_with(to));
                        a href=(to) aria-current=[here.then_some("page")] { (name) }
                    }
                }
            }
            div.who {
                @if shops.is_empty() {
                    span { "Shop " strong { (caller.tenant) } }
                } @else {
                    form method="post" action="/dashboard/shop" {
                        (visitor.form_token())
                        input type="hidden" name="next" value=(path);
                        label for="shop" { "Shop" }
                        select #shop name="shop" {
                            @if !shops.contains(&caller.tenant) { option value="" { "choose one" } }
                            @for shop in &shops {
                                option value=(shop) selected[*shop == caller.tenant] { (shop) }
                            }
                        }
                        button type="submit" { "Show" }
                    }
                }
                span.key { "Key " (caller.key) " (" (caller.role.name()) ")" }
                button #theme type="button" hidden { "Dark" }
                form method="post" action="/dashboard/sign-out" {
                    (visitor.form_token())
                    button type="submit" { "Sign out" }
                }
            }
        }
    }
}

fn style(asset: &Asset) -> Markup {
    html! { link rel="stylesheet" href=(asset.url); }
}

fn script(asset: &Asset) -> Markup {
    html! { script defer src=(asset.url) {} }
}

/// HTML as an answer.
pub fn answer(markup: Markup) -> Response {
    ([("content-type", "text/html; charset=utf-8")], markup.into_string()).into_response()
}
