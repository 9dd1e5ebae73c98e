//! All events of one correlation id: what a request or a checkout has led to, in every stream of the shop.

use annals::{CorrelationId, EventStoreExt, Filter, Position, RecordedEvent};
use axum::http::Method;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt};
use maud::{Markup, html};
use serde::Deserialize;

use crate::dashboard::error::Trouble;
use crate::dashboard::format::time;
use crate::dashboard::layout::Page;
use crate::dashboard::orders;
use crate::dashboard::personal::{actor, personal};
use crate::dashboard::query::Query;
use crate::dashboard::visitor::{Visitor, escaped};
use crate::domain::credit::Credit;
use crate::domain::customer::Customer;
use crate::domain::order::Order;
use annals::Aggregate;

/// So many are shown.
const MOST: usize = 500;

/// Which.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrelationQuery {
    id: String,
}

/// The page. It is for those who see all orders of the shop.
pub async fn show(
    visitor: Visitor,
    Query(CorrelationQuery { id }): Query<CorrelationQuery>,
) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, "/analytics/days")?;
    let filter = Filter::all().tenant(visitor.caller().tenant.clone()).correlation(CorrelationId::new(&id)?);
    let events = visitor.dashboard.app.shop.store.read_all(Position::START, filter).take(MOST);
    let events: Vec<RecordedEvent> = events.try_collect().await?;
    let content = html! {
        div.head { div { p { a href=(orders::PATH) { "← Orders" } } h1 { "All of " code { (id) } } } }
        section.card aria-label="Events" {
            @if events.is_empty() { p.empty { "No event of this shop has this correlation id." } }
            @else { (table(&visitor, &events)) }
            @if events.len() == MOST { p.quiet { "These are the first " (MOST) "." } }
        }
    };
    Ok(Page::new(format!("All of {id}"), content).to(&visitor))
}

fn table(visitor: &Visitor, events: &[RecordedEvent]) -> Markup {
    html! {
        table.stack {
            thead {
                tr {
                    th scope="col" { "Event" } th scope="col" { "Of" } th.number scope="col" { "Version" } th scope="col" { "By" }
                    th scope="col" { "Cause" } th scope="col" { "When (UTC)" }
                }
            }
            tbody {
                @for event in events {
                    @let cause = event.metadata.causation_id.as_ref().map(ToString::to_string);
                    tr #{ "event-" (event.event_id) } {
                        th scope="row" data-name="Event" { (event.name) }
                        td data-name="Of" {
                            (event.stream.aggregate_type()) " "
                            @let id = event.stream.aggregate_id();
                            @if event.stream.aggregate_type() == Order::TYPE { a href={ (orders::PATH) "/" (escaped(id)) } { (id) } }
                            // What names a customer is about a person, too.
                            @else if [Customer::TYPE, Credit::TYPE].contains(&event.stream.aggregate_type()) { code { (personal(visitor, id)) } }
                            @else { code { (id) } }
                        }
                        td.number data-name="Version" { (event.version.get()) }
                        td data-name="By" { @if let Some(by) = &event.metadata.actor { (actor(visitor, by.as_str())) } @else { "the service" } }
                        td data-name="Cause" {
                            @match cause.and_then(|cause| events.iter().find(|other| other.event_id.to_string() == cause)) {
                                Some(other) => a href={ "#event-" (other.event_id) } { (other.name) },
                                None => span.quiet { "none here" },
                            }
                        }
                        td data-name="When (UTC)" { (time(event.recorded_at)) }
                    }
                }
            }
        }
    }
}
