//! Checkouts: those that run, those that wait for a person, and those that have ended; and one of them.

use annals::Tenant;
use annals::sagas::{SagaError, SagaId, SagaInstance, Status};
use axum::http::Method;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use crate::checkout::CheckoutError;
use crate::checkout::timeline::for_staff;
use crate::dashboard::checkout::Checkout;
use crate::dashboard::error::Trouble;
use crate::dashboard::format::{time, time_utc};
use crate::dashboard::layout::Page;
use crate::dashboard::query::{PathOf, Query};
use crate::dashboard::saga_rows::{SagasQuery, Which};
use crate::dashboard::timeline::{self, Entry};
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::{Visitor, escaped};
use crate::domain::order::OrderId;
use crate::service::problem::Problem;

/// Where it is.
pub const PATH: &str = "/dashboard/sagas";
/// The route of the API that has the same: who may not ask that does not see the page.
pub const ROUTE: &str = "/checkouts/stuck";

/// The shop whose checkouts a visitor sees; `None` for all of them, while an operator of all has chosen none.
pub fn shop(visitor: &Visitor) -> Option<Tenant> {
    let (shops, shop) = (visitor.shops(), &visitor.caller().tenant);
    (shops.is_empty() || shops.contains(shop)).then(|| shop.clone())
}

/// All of them.
pub async fn list(visitor: Visitor, Query(query): Query<SagasQuery>) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, ROUTE)?;
    let (shop, which) = (shop(&visitor), query.which);
    let wanted = query.find.trim();
    if !wanted.is_empty()
        && let Some((shop, id)) = find(&visitor, shop.as_ref(), wanted).await?
    {
        return Ok(Redirect::to(&url(&shop, id.as_str())).into_response());
    }
    let (rows, next) = query.rows(&visitor, shop.as_ref()).await?;
    let content = html! {
        div.head {
            div { h1 { "Checkouts" } p.quiet { @match &shop { Some(shop) => { "of the shop " (shop) }, None => "of all shops" } } }
            nav.row aria-label="Which checkouts" {
                @for one in Which::ALL {
                    a.button href={ (PATH) "?which=" (one.name()) } aria-current=[(one == which).then_some("page")] { (one.name()) }
                }
            }
        }
        form.row.alone method="get" action=(PATH) role="search" {
            label for="find" { "Order or checkout" }
            input #find name="find" value=(wanted) required maxlength="200" autocomplete="off" spellcheck="false"
                aria-describedby=[(!wanted.is_empty()).then_some("not-found")];
            button type="submit" { "Find" }
            @if !wanted.is_empty() { p.problem #not-found role="alert" { "There is no checkout of this name, and none of an order of this name." } }
        }
        section.card data-list {
            @if rows.is_empty() { p.empty { @if query.is_first() { (nothing(which)) } @else { "There are no older ones." } } }
            // Chosen ones would be forgotten if the page changed, so that with a choice does not.
            @else if which == Which::Stuck {
                form method="get" action={ (PATH) "/decide" } {
                    p.row.choosing {
                        button.main type="submit" { "Decide about the chosen ones" }
                        label.with-script { input type="checkbox" data-all="saga"; " All on this page" }
                    }
                    (table(&rows, true, shop.is_none()))
                }
            } @else { (table(&rows, false, shop.is_none())) }
            @if !query.is_first() || next.is_some() {
                nav.pages aria-label="Parts of the list" {
                    @if query.is_first() { span {} } @else { a.button href={ (PATH) "?which=" (which.name()) } { "← Newest" } }
                    @if let Some(next) = next { a.button rel="next" href={ (PATH) "?" (next) } { "Older →" } }
                }
            }
        }
    };
    let page = Page::new(format!("Checkouts: {}", which.name()), content);
    let page = if which == Which::Stuck && !rows.is_empty() { page } else { page.live(Topic::Sagas) };
    Ok(page.to(&visitor))
}

/// The checkout of this name, or of an order of this name: in a shop, or in the first that has one.
async fn find(visitor: &Visitor, shop: Option<&Tenant>, name: &str) -> Result<Option<(Tenant, SagaId)>, Problem> {
    let checkouts = &visitor.dashboard.app.checkouts;
    let shops = shop.map_or_else(|| visitor.shops(), |shop| vec![shop.clone()]);
    for shop in shops {
        if let Ok(order) = OrderId::new(name)
            && let Some((id, _)) = checkouts.find(&shop, &order).await?
        {
            return Ok(Some((shop, id)));
        }
        let Ok(id) = SagaId::new(name) else { continue };
        match checkouts.standing(&shop, &id).await.map_err(|e| why_not(&id, e)) {
            Ok(_) => return Ok(Some((shop, id))),
            Err(problem) if problem.is_not_found() => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(None)
}

fn nothing(which: Which) -> &'static str {
    match which {
        Which::Stuck => "No checkout waits for a person.",
        Which::Running => "No checkout runs at the moment.",
        Which::Ended => "No checkout has ended yet.",
    }
}

fn table(rows: &[SagaInstance], with_choice: bool, with_shop: bool) -> Markup {
    html! {
        div.scroll {
            table.stack {
                thead { tr {
                    @if with_choice { th scope="col" { "Choose" } }
                    th scope="col" { "Checkout" }
                    @if with_shop { th scope="col" { "Shop" } }
                    th scope="col" { "State" } th scope="col" { "Step" } th scope="col" { "Last event (UTC)" } th scope="col" { "Why" }
                } }
                tbody { @for row in rows { (line(row, with_choice, with_shop)) } }
            }
        }
    }
}

fn line(row: &SagaInstance, with_choice: bool, with_shop: bool) -> Markup {
    html! {
        tr {
            @if with_choice {
                td data-name="Choose" {
                    input type="checkbox" name="saga" value={ (row.tenant) "/" (row.saga_id) } aria-label={ "Choose " (row.saga_id) };
                }
            }
            th scope="row" data-name="Checkout" { a href=(url(&row.tenant, &row.saga_id)) { (row.saga_id) } }
            @if with_shop { td data-name="Shop" { (row.tenant) } }
            td data-name="State" { (state(row.status)) }
            td data-name="Step" { span { (row.current_step.as_deref().unwrap_or("–")) @if row.attempt > 1 { ", call " (row.attempt) } } }
            td data-name="Last event (UTC)" { (time(row.updated_at)) }
            td data-name="Why" { span { (row.last_error.as_deref().unwrap_or("–")) } }
        }
    }
}

/// A state as a word and a colour.
pub fn state(status: Status) -> Markup {
    let class = match status {
        Status::Completed => "good",
        Status::Stuck => "bad",
        Status::Compensating | Status::Compensated => "warn",
        Status::Running => "busy",
        _ => "",
    };
    html! { span class={ "state " (class) } { (status) } }
}

/// The page of one.
pub fn url(shop: &Tenant, id: &str) -> String {
    format!("{PATH}/{}/{}", escaped(shop.as_str()), escaped(id))
}

/// Why nothing is known of one, or nothing can be decided about it: those that one comes to by a page have begun.
pub fn why_not(id: &SagaId, error: CheckoutError) -> Problem {
    match error {
        CheckoutError::Saga(SagaError::NotStarted { .. }) | CheckoutError::Invalid(_) => {
            Problem::not_found("checkout", id)
        }
        error => error.into(),
    }
}

/// One checkout, and how it came to be so.
pub async fn one(mut visitor: Visitor, PathOf((shop, id)): PathOf<(String, String)>) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, ROUTE)?;
    let none = || Problem::not_found("checkout", id.escape_debug());
    let (shop, id) = (Tenant::new(&shop).map_err(|_| none())?, SagaId::new(&id).map_err(|_| none())?);
    if !visitor.sees(&shop) {
        return Err(none().into());
    }
    // They were asked for in another shop.
    visitor.session.shows_personal_data &= visitor.caller().tenant == shop;
    let checkouts = &visitor.dashboard.app.checkouts;
    let standing = checkouts.standing(&shop, &id).await.map_err(|e| why_not(&id, e))?;
    let checkout = Checkout::at(&visitor.dashboard.app, &shop, id.clone(), standing.flow, None, for_staff).await?;
    let events: Vec<_> = checkout.events.iter().filter_map(Entry::of_checkout).collect();
    let number = events.len();
    let is_final = standing.status.is_final();
    let content = html! {
        div.head {
            div { h1 { (id) } p { (state(standing.status)) " " span.quiet { (standing.answer) } } }
            @if !is_final {
                a.button.main href={ (PATH) "/decide?saga=" (escaped(shop.as_str())) "/" (escaped(id.as_str())) } { "Decide" }
            }
        }
        @if let Some(reason) = &standing.reason {
            p class={ "notice " (if standing.status == Status::Stuck { "bad" } else { "busy" }) } { (reason) }
        }
        div.columns.wide-first {
            (timeline::show(&visitor, None, events))
            div {
                section.card aria-labelledby="facts" {
                    h2 #facts { "Where it stands" }
                    dl.facts {
                        dt { "Shop" } dd { (shop) }
                        dt { "Order" } dd {
                            @if visitor.may(&Method::GET, "/orders/{order}/checkout") && visitor.caller().tenant == shop {
                                a href={ "/dashboard/orders/" (escaped(standing.order.as_str())) } { (standing.order) }
                            } @else { (standing.order) }
                        }
                        dt { "Next call" } dd { @match standing.next_try { Some(at) => (time_utc(at)), None => "–" } }
                        dt { "Events" } dd { (number) }
                    }
                }
                (checkout.show(&standing.order))
            }
        }
    };
    Ok(Page::new(id.to_string(), content).live(Topic::Order(standing.order)).to(&visitor))
}
