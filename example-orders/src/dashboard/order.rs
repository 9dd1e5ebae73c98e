//! One order: what blocks it, its figures, what has happened, and its checkout; now, or at any moment before.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use crate::dashboard::blocks::Blocks;
use crate::dashboard::checkout::Checkout;
use crate::dashboard::error::Trouble;
use crate::dashboard::format::{count, money, time_utc};
use crate::dashboard::layout::Page;
use crate::dashboard::personal::{self, personal};
use crate::dashboard::query::{OrderOf, Query, Then};
use crate::dashboard::timeline::Entry;
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::{Visitor, escaped};
use crate::dashboard::{operations, orders as list, sagas, slider, timeline};
use crate::domain::order::{OrderId, Status};
use crate::service::access::Role;
use crate::service::api::orders::{self, DetailQuery};
use crate::service::api::views::{HistoryEvent, OrderDetails};
use crate::service::ask::{Asked, OrderPath};
use crate::service::problem::Problem;
use annals::resilience::breaker::BreakerState;

/// When.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderQuery {
    #[serde(default)]
    as_of: String,
}

/// The page.
pub async fn show(
    visitor: Visitor,
    OrderOf(order): OrderOf,
    Query(query): Query<OrderQuery>,
) -> Result<Response, Trouble> {
    // An operator sees the checkout and not the order.
    visitor.needs(&Method::GET, "/orders/{order}/checkout")?;
    let asked = Then::read(&query.as_of);
    let then = asked.at;
    let checkout = Checkout::of(&visitor, &order, then).await?;
    let may_read = visitor.may(&Method::GET, "/orders/{order}/history");
    let events = if may_read { or_none(history(&visitor, &order).await) } else { Ok(None) };
    // An event that cannot be read is a reason to look at the rest.
    let (events, unreadable) = match events {
        Err(problem) if problem.parts().0 == StatusCode::INTERNAL_SERVER_ERROR => (Vec::new(), Some(problem)),
        events => (events?.unwrap_or_default(), None),
    };
    let details = if may_read { or_none(details(&visitor, &order, asked.of_the_api()).await) } else { Ok(None) };
    let details = if unreadable.is_some() { details.unwrap_or_default() } else { details? };
    if events.is_empty() && checkout.is_none() && details.is_none() {
        let unreadable = unreadable.filter(|_| visitor.caller().role != Role::Customer);
        return Err(unreadable.unwrap_or_else(|| Problem::not_found("order", &order)).into());
    }

    let mut moments: Vec<Timestamp> = events.iter().map(|event| event.at).collect();
    moments.extend(checkout.iter().flat_map(|checkout| &checkout.moments));
    moments.sort_unstable();
    moments.dedup();
    let of_order = events.into_iter().filter(|event| then.is_none_or(|then| event.at <= then)).map(Entry::of_order);
    let of_checkout = checkout.iter().flat_map(|checkout| &checkout.events).filter_map(Entry::of_checkout);
    // What the shop did with its own machinery is not for customers.
    let operations = match visitor.caller().role {
        Role::Customer => Vec::new(),
        _ => operations::last(&visitor.dashboard.app, &visitor.caller().tenant, &format!("order-{order}")).await?,
    };
    let operations = operations.into_iter().filter(|operation| then.is_none_or(|then| operation.at <= then));
    let of_operators = operations.enumerate().map(|(n, operation)| Entry::of_operation(n, operation));
    let entries: Vec<Entry> = of_order.chain(of_checkout).chain(of_operators).collect();
    let path = format!("{}/{}", list::PATH, escaped(order.as_str()));
    let content = html! {
        div.head {
            div {
                p {
                    @if visitor.may(&Method::GET, "/orders") { a href=(list::PATH) { "← Orders" } }
                    @else { a href=(sagas::PATH) { "← Checkouts" } }
                }
                h1 { "Order " (order) " " @if let Some(details) = &details { (list::badge(details.status)) } }
            }
            (personal::button(&visitor))
        }
        @if let Some(problem) = &unreadable {
            p.notice.bad role="alert" { "Its events cannot be read, so the timeline lacks them: " (problem.parts().2) }
        }
        (slider::slider(&path, &moments, &asked))
        (blocks(&visitor, then, details.as_ref(), checkout.as_ref()).show())
        @if let Some(checkout) = checkout.as_ref().filter(|_| visitor.may(&Method::GET, sagas::ROUTE)) {
            p { a.button href=(sagas::url(&visitor.caller().tenant, checkout.id.as_str())) { "To its checkout" } }
        }
        div.columns.wide-first {
            div {
                @if let Some(details) = &details { (facts(&visitor, details)) (lines(details)) }
                // The notice says that what has happened cannot be read.
                @if unreadable.is_none() || !entries.is_empty() { (timeline::show(&visitor, Some(&*path), entries)) }
            }
            div {
                @match &checkout {
                    Some(checkout) => (checkout.show(&order)),
                    None => section.card { h2 { "Checkout" } p.quiet { "It was ordered without one: each step was reported by itself." } },
                }
            }
        }
    };
    let page = Page::new(format!("Order {order}"), content).live(Topic::Order(order));
    Ok(asked.answered(if then.is_some() { page.past() } else { page }.to(&visitor)))
}

async fn history(visitor: &Visitor, order: &OrderId) -> Result<Vec<HistoryEvent>, Problem> {
    let app = State(visitor.dashboard.app.clone());
    let Json(history) =
        orders::history(app, visitor.caller().clone(), visitor.deadline(), OrderPath(order.clone())).await?;
    Ok(history.events)
}

async fn details(visitor: &Visitor, order: &OrderId, as_of: Option<String>) -> Result<OrderDetails, Problem> {
    let app = State(visitor.dashboard.app.clone());
    let asked = Asked(DetailQuery { as_of, at_least: None });
    let path = OrderPath(order.clone());
    let Json(details) = orders::detail(app, visitor.caller().clone(), visitor.deadline(), path, asked).await?;
    Ok(details)
}

/// What is not there is none, as an order is before it was placed, or in the moment until its row is written.
fn or_none<T>(found: Result<T, Problem>) -> Result<Option<T>, Problem> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(problem) if problem.is_not_found() => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn blocks(
    visitor: &Visitor,
    then: Option<Timestamp>,
    details: Option<&OrderDetails>,
    checkout: Option<&Checkout>,
) -> Blocks {
    let services = &visitor.dashboard.app.checkouts.services;
    let clients = [("payment", &services.payment), ("stock", &services.stock), ("shipping", &services.shipping)];
    let is_open =
        |(_, client): &&(&str, &crate::services::Client)| client.policy.breaker().state() == BreakerState::Open;
    // How the breakers were is not recorded.
    let open = clients.iter().find(is_open).map(|(name, _)| *name).filter(|_| then.is_none());
    let checkout = checkout.and_then(|checkout| Some((checkout.row.as_ref()?, &*checkout.steps)));
    let status: Option<Status> = details.map(|details| details.status);
    Blocks::of(status, details.and_then(|details| details.estimated_delivery), checkout, open)
}

fn facts(visitor: &Visitor, details: &OrderDetails) -> Markup {
    let name = details.customer_name.as_deref();
    html! {
        section.card aria-labelledby="facts" {
            h2 #facts { "The order" }
            dl.facts {
                dt { "Status" } dd data-field="status" { (details.status) }
                dt { "Customer" } dd data-field="customer" {
                    @if let Some(name) = name { (personal(visitor, name)) " " }
                    @if name.is_none() || visitor.session.shows_personal_data { code { (personal(visitor, details.customer.as_str())) } }
                }
                dt { "Total" } dd data-field="total" { (money(details.total)) }
                dt { "Paid" } dd data-field="paid" { (money(details.paid)) }
                dt { "Carrier" } dd data-field="carrier" { (details.carrier.as_deref().unwrap_or("none yet")) }
                dt { "Tracking" } dd data-field="tracking" { (details.tracking.as_deref().filter(|number| !number.is_empty()).unwrap_or("none yet")) }
                dt { "Delivery" } dd data-field="delivery" {
                    @match details.estimated_delivery { Some(day) => time datetime=(day) { (day) }, None => "none" }
                }
                dt { "Placed" } dd data-field="placed" { (time_utc(details.placed_at)) }
                dt { "Changed" } dd data-field="changed" { (time_utc(details.changed_at)) }
            }
        }
    }
}

fn lines(details: &OrderDetails) -> Markup {
    html! {
        section.card aria-labelledby="lines" {
            h2 #lines { "What was ordered" }
            table.stack {
                thead { tr { th scope="col" { "Product" } th.number scope="col" { "Pieces" } th.number scope="col" { "Price of one" } } }
                tbody {
                    @for line in &details.lines {
                        tr {
                            td data-name="Product" { (line.product) }
                            td.number data-name="Pieces" { (count(i64::from(line.quantity))) }
                            td.number data-name="Price of one" { (money(line.price)) }
                        }
                    }
                }
            }
        }
    }
}
