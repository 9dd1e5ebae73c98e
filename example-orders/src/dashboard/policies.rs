//! The policies around calls that may fail: their breakers, retries, pools and limits; what goes wrong with the services that are
//! called; and what a person can do with each.

use annals::Tenant;
use annals::resilience::breaker::{BreakerSnapshot, BreakerState, Mode};
use annals::resilience::health::{Report, Status};
use annals::resilience::{Policy, PolicySettings};
use axum::http::Method;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use crate::dashboard::breakers::{Change, class, policies, services, strip, why, word};
use crate::dashboard::error::Trouble;
use crate::dashboard::form::FormAbout;
use crate::dashboard::format::{count, counted, span, time};
use crate::dashboard::layout::Page;
use crate::dashboard::operations::{self, Wanted, last, reason_field};
use crate::dashboard::query::PathOf;
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::{Visitor, escaped};
use crate::service::problem::Problem;
use crate::services::{Client, Faults};

/// Where it is.
pub const PATH: &str = "/dashboard/policies";
/// A route of the API for the same people.
pub const ROUTE: &str = "/operator/projections";

/// All of them, the limits, and health.
pub async fn list(visitor: Visitor) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, ROUTE)?;
    let dashboard = &visitor.dashboard;
    let all = policies(&dashboard.app);
    let limits = &dashboard.limits;
    let health = dashboard.health.ready().await;
    let content = html! {
        div.head { h1 { "Policies" } p.quiet { "Calls that may fail, and pools of the shop's own work" } }
        section.card {
            div.scroll {
                table.stack {
                    thead { tr {
                        th scope="col" { "Name" } th scope="col" { "Breaker" } th scope="col" { "Last 15 minutes" }
                        th.number scope="col" { "Failed calls" } th.number scope="col" { "Refused calls" } th.number scope="col" { "In use" }
                        th.number scope="col" { "Waiting" } th.number scope="col" { "Retries left" }
                    } }
                    tbody { @for policy in &all { (line(policy, &dashboard.breakers.changes(policy), dashboard.breakers.since)) } }
                }
            }
        }
        div.columns {
            (health_card(&health))
            section.card aria-labelledby="limits" {
                h2 #limits { "Limits of the API for each shop" }
                dl.facts {
                    dt { "Requests" } dd { (count(limits.calls.into())) " in " (span(limits.per)) }
                    dt { "At once" } dd { (count(limits.burst.unwrap_or(limits.calls).into())) }
                }
            }
        }
    };
    Ok(Page::new("Policies", content).live(Topic::State).to(&visitor))
}

fn line(policy: &Policy, changes: &[Change], since: Timestamp) -> Markup {
    let state = policy.state();
    let slots = policy.settings().bulkhead.as_ref().map(|bulkhead| bulkhead.slots);
    html! {
        tr data-policy=(policy.name()) {
            th scope="row" data-name="Name" { a href=(url(policy.name())) { (policy.name()) } }
            td data-name="Breaker" { (breaker(&state.breaker)) }
            td data-name="Last 15 minutes" {
                @if state.breaker.mode == Mode::Disabled { "–" } @else { (strip(policy.name(), state.breaker.state, changes, since)) }
            }
            td.number data-name="Failed calls" { span { (state.breaker.failures) " of " (state.breaker.calls) } }
            td.number data-name="Refused calls" { (state.breaker.refused) }
            td.number data-name="In use" { (of(state.in_use, slots)) }
            td.number data-name="Waiting" { (number(state.waiting)) }
            td.number data-name="Retries left" { (number(state.retries_left)) }
        }
    }
}

fn of(used: Option<u32>, slots: Option<u32>) -> String {
    match (used, slots) {
        (Some(used), Some(slots)) => format!("{used} of {slots}"),
        _ => "–".to_owned(),
    }
}

fn number(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "–".to_owned(), |number| number.to_string())
}

/// The state of a breaker, and who holds it.
fn breaker(breaker: &BreakerSnapshot) -> Markup {
    let by_hand = match breaker.mode {
        Mode::Normal => None,
        Mode::Disabled => return html! { span.state { "none" } },
        Mode::HeldOpen | Mode::HeldClosed => Some("held"),
        Mode::MetricsOnly => Some("only counts"),
    };
    html! {
        span class={ "state " (class(breaker.state)) } { (word(breaker.state)) @if let Some(by_hand) = by_hand { ", " (by_hand) } }
    }
}

fn health_card(health: &Report) -> Markup {
    let state = |status: Status| {
        let (class, word) = match status {
            Status::Up => ("good", "up"),
            Status::Degraded => ("warn", "degraded"),
            Status::Starting => ("busy", "starting"),
            Status::Draining => ("warn", "stopping"),
            _ => ("bad", "down"),
        };
        html! { span class={ "state " (class) } { (word) } }
    };
    html! {
        section.card aria-labelledby="health" {
            h2 #health { "Health " (state(health.status)) }
            dl.facts {
                @for (name, check) in &health.checks {
                    dt { (name) @if check.critical { " (critical)" } }
                    dd { (state(check.status)) @if let Some(error) = &check.error { " " (error) } }
                }
            }
        }
    }
}

/// The page of one.
pub fn url(name: &str) -> String {
    format!("{PATH}/{}", escaped(name))
}

/// One of them, what its breaker did, and what operators did with it.
pub async fn one(visitor: Visitor, PathOf(name): PathOf<String>) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, ROUTE)?;
    let dashboard = &visitor.dashboard;
    let policy = find(&visitor, &name)?;
    let state = policy.state();
    let changes = dashboard.breakers.changes(&policy);
    let service = services(&dashboard.app).into_iter().find(|service| service.policy.name() == name);
    let operations = last(&dashboard.app, &Tenant::default(), &target(&name)).await?;
    let content = html! {
        div.head { div { h1 { (name) } p { (breaker(&state.breaker)) } } }
        div.columns {
            section.card aria-labelledby="facts" {
                h2 #facts { "At this moment" }
                dl.facts {
                    dt { "Failed calls" } dd { (state.breaker.failures) " of the last " (state.breaker.calls) }
                    dt { "Slow calls" } dd { (state.breaker.slow) }
                    dt { "Refused calls" } dd { (state.breaker.refused) " since the start" }
                    dt { "In this state" } dd { "for " (span(state.breaker.in_state_for)) }
                    @if let Some(rest) = state.breaker.retry_after { dt { "Probes" } dd { "in " (span(rest)) } }
                    dt { "In use" } dd { (of(state.in_use, policy.settings().bulkhead.as_ref().map(|bulkhead| bulkhead.slots))) }
                    dt { "Waiting" } dd { (number(state.waiting)) }
                    dt { "Retries left" } dd { (number(state.retries_left)) }
                }
            }
            section.card aria-labelledby="settings" { h2 #settings { "Settings" } (settings(policy.settings())) }
        }
        @if state.breaker.mode != Mode::Disabled { (history(&name, state.breaker.state, &changes, dashboard.breakers.since)) }
        div.columns {
            @if visitor.runs_the_service() {
                (mode_form(&visitor, &name, state.breaker.mode))
                @if let Some(service) = &service { (faults_form(&visitor, service).await) }
            }
        }
        (operations::card(&operations))
    };
    Ok(Page::new(name, content).live(Topic::State).to(&visitor))
}

fn find(visitor: &Visitor, name: &str) -> Result<Policy, Problem> {
    let policy = policies(&visitor.dashboard.app).into_iter().find(|policy| policy.name() == name);
    policy.ok_or_else(|| Problem::not_found("policy", name.escape_debug()))
}

fn target(name: &str) -> String {
    format!("policy-{name}")
}

fn settings(settings: &PolicySettings) -> Markup {
    let time = |time: Option<std::time::Duration>| time.map_or_else(|| "–".to_owned(), span);
    html! {
        dl.facts {
            dt { "An attempt" } dd { "at most " (time(settings.timeout)) }
            dt { "A call" } dd { "at most " (time(settings.deadline)) }
            dt { "Attempts" } dd { (settings.retry.as_ref().map_or(1, |retry| retry.attempts)) }
            @if let Some(breaker) = &settings.breaker {
                dt { "Opens" } dd {
                    @match breaker.failure_rate {
                        Some(rate) => { "when " (format!("{:.0} %", rate * 100.0)) " of " (counted(breaker.minimum_calls.into(), "call fails", "calls fail")) },
                        None => "not for failed calls",
                    }
                    ", for " (span(breaker.open))
                }
            }
            @if let Some(bulkhead) = &settings.bulkhead {
                dt { "Pool" } dd { (bulkhead.slots) " at once, " (bulkhead.queue) " may wait" }
            }
            @if let Some(limit) = &settings.rate_limit { dt { "Limit" } dd { (limit.calls) " in " (span(limit.per)) } }
        }
    }
}

fn history(name: &str, state: BreakerState, changes: &[Change], since: Timestamp) -> Markup {
    html! {
        section.card aria-labelledby="history" {
            h2 #history { "Its breaker over time" }
            (strip(name, state, changes, since))
            @if changes.is_empty() { p.empty { "It has not changed since the service has started." } }
            @else {
                div.scroll {
                    table.stack {
                        thead { tr { th scope="col" { "When (UTC)" } th scope="col" { "To" } th scope="col" { "Why" } } }
                        tbody { @for change in changes.iter().rev().take(20) {
                            tr {
                                td data-name="When (UTC)" { (time(change.at)) }
                                td data-name="To" { span class={ "state " (class(change.transition.to)) } { (word(change.transition.to)) } }
                                td data-name="Why" { (why(change.transition.cause)) }
                            }
                        } }
                    }
                }
            }
        }
    }
}

const MODES: [(&str, Mode, &str); 3] = [
    ("normal", Mode::Normal, "Opens and closes by itself."),
    ("open", Mode::HeldOpen, "Refuses every call until somebody changes it."),
    ("closed", Mode::HeldClosed, "Lets every call pass, whatever fails."),
];

fn mode_form(visitor: &Visitor, name: &str, mode: Mode) -> Markup {
    html! {
        section.card aria-labelledby="mode" {
            h2 #mode { "Hold the breaker" }
            form.stacked method="post" action={ (url(name)) "/mode" } {
                (visitor.form_token())
                fieldset {
                    legend { "How it works" }
                    @for (value, one, meaning) in MODES {
                        div {
                            input id={ "mode-" (value) } type="radio" name="mode" value=(value) required checked[one == mode];
                            " " label for={ "mode-" (value) } { (value) } " " span.quiet { (meaning) }
                        }
                    }
                }
                (reason_field("reason-mode"))
                button type="submit" { "Change it" }
            }
        }
    }
}

/// How the breaker is to work.
#[derive(Deserialize)]
pub struct NewMode {
    mode: String,
    reason: String,
}

/// Holds a breaker open or closed, or lets it go.
pub async fn set_mode(FormAbout { visitor, name, fields }: FormAbout<NewMode>) -> Result<Response, Trouble> {
    visitor.needs_the_service()?;
    let policy = find(&visitor, &name)?;
    let mode = MODES.iter().find(|(value, ..)| *value == fields.mode);
    let (value, mode, meaning) = mode.ok_or_else(|| Problem::bad("mode", "`mode` is `normal`, `open` or `closed`"))?;
    let act = async move {
        policy.breaker().set_mode(*mode);
        Ok((*meaning).to_owned())
    };
    wanted(&name, format!("breaker of `{name}`: {value}"), fields.reason).perform(&visitor, act).await
}

async fn faults_form(visitor: &Visitor, service: &Client) -> Markup {
    let name = service.policy.name();
    let faults = service.faults().await;
    html! {
        section.card aria-labelledby="faults" {
            h2 #faults { "What goes wrong with the service" }
            @match &faults {
                Err(_) => p.notice.warn { "The service does not say what goes wrong with it." },
                Ok(faults) => form.stacked method="post" action={ (url(name)) "/faults" } {
                    (visitor.form_token())
                    label for="latency" { "Milliseconds that each request takes longer" }
                    input #latency type="number" name="latency_ms" min="0" max=(MOST_LATENCY_MS) value=(faults.latency_ms) required;
                    label for="errors" { "Share of requests that fail, from 0 to 1" }
                    input #errors type="number" name="errors" min="0" max="1" step="any" value=(faults.errors) required;
                    label for="lost" { "Share of requests whose answer is lost, from 0 to 1" }
                    input #lost type="number" name="lost_answers" min="0" max="1" step="any" value=(faults.lost_answers) required;
                    div { input #closed type="checkbox" name="closed" value="true" checked[faults.closed]; " " label for="closed" { "It refuses each request" } }
                    div { input #down type="checkbox" name="down" value="true" checked[faults.down]; " " label for="down" { "Nobody is there" } }
                    (reason_field("reason-faults"))
                    button type="submit" { "Change it" }
                },
            }
        }
    }
}

/// Longer than anybody waits.
const MOST_LATENCY_MS: u64 = 60_000;

/// What is to go wrong.
#[derive(Deserialize)]
pub struct NewFaults {
    latency_ms: u64,
    errors: f64,
    lost_answers: f64,
    #[serde(default)]
    closed: bool,
    #[serde(default)]
    down: bool,
    reason: String,
}

/// Sets what goes wrong with a service.
pub async fn set_faults(FormAbout { visitor, name, fields }: FormAbout<NewFaults>) -> Result<Response, Trouble> {
    let service = services(&visitor.dashboard.app).into_iter().find(|service| service.policy.name() == name);
    let service = service.ok_or_else(|| Problem::not_found("service", name.escape_debug()))?;
    visitor.needs_the_service()?;
    let NewFaults { latency_ms, errors, lost_answers, closed, down, reason } = fields;
    if latency_ms > MOST_LATENCY_MS {
        return Err(Problem::bad("latency", format!("`latency_ms` is {MOST_LATENCY_MS} at most")).into());
    }
    for (field, share) in [("errors", errors), ("lost_answers", lost_answers)] {
        if !share.is_finite() {
            return Err(Problem::bad(field, format!("`{field}` is {share}; give a share from 0 to 1")).into());
        }
    }
    let faults = Faults { latency_ms, errors, lost_answers, closed, down };
    let what = format!("faults of `{name}`: {}", in_words(&faults));
    let act = async move {
        let text = |e: reqwest::Error| format!("the service did not take it: {}", e.without_url());
        service.set_faults(&faults).await.map_err(|e| Problem::later("service", text(e)))?;
        Ok("The service has taken it.".to_owned())
    };
    wanted(&name, what, reason).perform(&visitor, act).await
}

fn wanted(name: &str, what: String, reason: String) -> Wanted {
    Wanted { with: vec![(Tenant::default(), target(name), what)], reason, page: url(name) }
}

fn in_words(faults: &Faults) -> String {
    let mut words = Vec::new();
    if faults.latency_ms > 0 {
        words.push(format!("{} ms longer", faults.latency_ms));
    }
    for (share, what) in [(faults.errors, "fail"), (faults.lost_answers, "are not answered")] {
        if share != 0.0 {
            words.push(format!("{:.0} % {what}", share * 100.0));
        }
    }
    words.extend(faults.closed.then(|| "refuses all".to_owned()));
    words.extend(faults.down.then(|| "down".to_owned()));
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
