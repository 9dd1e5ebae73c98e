//! What has happened to an order and in its checkout: who, when and why, and what each event comes from.

use std::collections::HashSet;

use annals::Recorded;
use annals::sagas::SagaEvent;
use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use crate::checkout::timeline::line;
use crate::dashboard::format::moment;
use crate::dashboard::operations::Operation;
use crate::dashboard::personal::{actor, personal};
use crate::dashboard::visitor::{Visitor, escaped};
use crate::service::access::Role;
use crate::service::api::views::{FieldChange, HistoryEvent};

/// One event.
pub struct Entry {
    pub at: Timestamp,
    id: String,
    what: String,
    /// The version of the order; nothing for an event of the checkout.
    version: Option<i64>,
    who: Option<String>,
    why: Option<String>,
    changed: Vec<FieldChange>,
    cause: Option<String>,
    correlation: Option<String>,
    class: &'static str,
}

impl Entry {
    /// An event of the order.
    pub fn of_order(event: HistoryEvent) -> Self {
        let class = match &*event.event {
            "order.cancelled" | "order.returned" => "of-order bad",
            "order.delivered" => "of-order good",
            _ => "of-order",
        };
        Self {
            at: event.at,
            id: event.event_id,
            what: event.event,
            version: Some(event.version),
            who: event.by,
            why: event.reason,
            changed: event.changed,
            cause: event.caused_by,
            correlation: event.request_id,
            class,
        }
    }

    /// An event of the checkout, unless it is one of those that nobody looks for.
    pub fn of_checkout(event: &Recorded<SagaEvent>) -> Option<Self> {
        let class = match &event.event {
            SagaEvent::Refused { .. } | SagaEvent::Failed { .. } | SagaEvent::Stuck { .. } => "bad",
            SagaEvent::Completed => "good",
            _ => "",
        };
        let why = match &event.event {
            SagaEvent::CompensationBegun { reason, .. } | SagaEvent::Stuck { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let metadata = &event.metadata;
        Some(Self {
            at: event.recorded_at,
            id: event.event_id.to_string(),
            what: line(&event.event)?,
            version: None,
            who: metadata.actor.as_ref().map(ToString::to_string),
            why,
            changed: Vec::new(),
            cause: metadata.causation_id.as_ref().map(ToString::to_string),
            correlation: metadata.correlation_id.as_ref().map(ToString::to_string),
            class,
        })
    }

    /// What an operator did with a stream of the order that was set aside.
    pub fn of_operation(n: usize, operation: Operation) -> Self {
        let class = operation.class();
        let outcome = operation.ended.map_or_else(|| "not known".to_owned(), |(_, outcome)| outcome);
        Self {
            at: operation.at,
            id: format!("operation-{n}"),
            what: format!("{}: {outcome}", operation.what),
            version: None,
            who: Some(operation.by),
            why: Some(operation.reason),
            changed: Vec::new(),
            cause: None,
            correlation: None,
            class,
        }
    }
}

/// The newest first. Each leads to the page as it was then, if that page has a past.
pub fn show(visitor: &Visitor, path: Option<&str>, mut entries: Vec<Entry>) -> Markup {
    entries.sort_by_key(|entry| entry.at);
    entries.reverse();
    let here: HashSet<String> = entries.iter().map(|entry| entry.id.clone()).collect();
    html! {
        section.card aria-labelledby="timeline" {
            h2 #timeline { "What has happened " span.quiet { "(UTC)" } }
            @if entries.is_empty() { p.empty { "Nothing had happened yet." } }
            ol.timeline reversed {
                @for (n, entry) in entries.iter().enumerate() {
                    // Where many in a row have one correlation id, the first of them says it.
                    @let is_new = n == 0 || entries[n - 1].correlation != entry.correlation;
                    (one(visitor, path, entry, &here, is_new))
                }
            }
        }
    }
}

fn one(visitor: &Visitor, path: Option<&str>, entry: &Entry, here: &HashSet<String>, says_correlation: bool) -> Markup {
    let is_staff = visitor.caller().role == Role::Admin;
    html! {
        li #{ "event-" (entry.id) } class=(entry.class) {
            div {
                span.what { (entry.what) }
                @if let Some(why) = &entry.why { ": " q { (why) } }
            }
            div.meta {
                @match path {
                    Some(path) => a href={ (path) "?as_of=" (escaped(&entry.at.to_string())) } title="the page as of then" { (moment(entry.at)) },
                    None => (moment(entry.at)),
                }
                @if let Some(version) = entry.version { span { "version " (version) } }
                @if let Some(who) = &entry.who { span { "by " (actor(visitor, who)) } }
                @if let Some(cause) = &entry.cause {
                    @if here.contains(cause) { a href={ "#event-" (cause) } { "its cause" } }
                    @else { span { "cause " code { (cause) } } }
                }
                @if let Some(correlation) = entry.correlation.as_ref().filter(|_| says_correlation) {
                    @if is_staff { a href={ "/dashboard/correlation?id=" (escaped(correlation)) } { "all of " code { (correlation) } } }
                    @else { span { "part of " code { (correlation) } } }
                }
            }
            @if !entry.changed.is_empty() {
                ul {
                    @for change in &entry.changed {
                        li {
                            (change.field) ": "
                            @if change.field == "customer" { (personal(visitor, &text(change.after.as_ref()))) }
                            @else {
                                @if let Some(before) = change.before.as_ref().filter(|before| !before.is_null()) { (text(Some(before))) " → " }
                                (text(change.after.as_ref()))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A value of the state, for people.
fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(fields)) if fields.contains_key("minor") => {
            let minor = fields["minor"].as_i64().unwrap_or_default();
            format!(
                "{} {}",
                crate::domain::money::decimal(minor),
                fields.get("currency").and_then(Value::as_str).unwrap_or_default()
            )
        }
        Some(Value::Array(values)) => values.iter().map(|one| text(Some(one))).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}
