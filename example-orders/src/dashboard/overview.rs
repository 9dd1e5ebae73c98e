//! The first page of an operator: what needs a person now, and how the last hour was.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use annals::projections::{HealthOf, ProjectionHealth, Verdict};
use annals::resilience::breaker::{BreakerState, Mode};
use annals::resilience::health::Status;
use annals::sagas::SagaInstance;
use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};
use tokio::time::timeout;

use crate::dashboard::breakers::policies as all_policies;
use crate::dashboard::chart::{Chart, Kind, Series};
use crate::dashboard::error::Trouble;
use crate::dashboard::format::{count, counted, span, time_utc};
use crate::dashboard::hour::Minute;
use crate::dashboard::layout::Page;
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::{operations, personal, policies, projections, sagas};
use crate::service::health::told;
use crate::service::problem::Problem;

/// Where it is.
pub const PATH: &str = "/dashboard/overview";

/// A read model that is behind by more needs somebody.
const MOST_LAG: Duration = Duration::from_secs(30);

/// The page waits so long for those who have asked for personal data, and is made without them.
const PERSONAL_DATA: Duration = Duration::from_secs(1);

/// So many stuck checkouts are counted, and so many kinds of them are shown.
const MOST: u32 = 1_000;
const MOST_KINDS: usize = 20;

/// The page.
pub async fn show(visitor: Visitor) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, "/operator/projections")?;
    // While the database cannot be asked, the rest is what one comes for.
    let (stuck, unknown) = match stuck(&visitor).await {
        Ok(stuck) => (stuck, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    let health = visitor.dashboard.hour.health();
    // What is broken comes before what follows from it.
    let set_aside = visitor.dashboard.hour.parked(|shop| visitor.sees(shop));
    let of_views = health.iter().filter_map(|health| projection(&visitor, health, &set_aside));
    let checks = visitor.dashboard.health.ready().await.checks;
    let of_checks =
        checks.iter().filter_map(|(name, check)| check_of_health(name, check.status, check.error.as_deref()));
    let of_policies = breakers(&visitor).chain(of_checks);
    let broken: Vec<Need> = of_policies.chain(of_views).chain(set_aside.iter().map(parked)).collect();
    let asked = timeout(PERSONAL_DATA, personal::asked(&visitor, &visitor.caller().tenant)).await;
    let count = broken.len() + stuck.len();
    let kinds = kinds(&stuck);
    let needs: Vec<Need> =
        broken.into_iter().chain(kinds.iter().take(MOST_KINDS).map(|kind| stuck_ones(kind))).collect();
    let minutes = visitor.dashboard.hour.minutes();
    let content = html! {
        div.head { div { h1 { "Overview" } p.quiet { "What needs a person now, and the last hour of this process, in UTC." } } }
        section.card aria-labelledby="needs" {
            h2 #needs { "Needs a person now" @if !needs.is_empty() { " (" (count) @if stuck.len() == MOST as usize { " or more" } ")" } }
            @if let Some(problem) = &unknown { p.notice.warn { "Which checkouts are stuck cannot be read: " (problem.parts().2) } }
            @if needs.is_empty() && unknown.is_none() {
                p.notice.good { "Nothing. No checkout is stuck, no read model has stopped or is behind, and every service is called." }
            } @else {
                ul.todo { @for need in &needs { (need.show()) } }
            }
            @if kinds.len() > MOST_KINDS {
                p.quiet { "Of the checkouts, these are the " (MOST_KINDS) " kinds that wait longest. " a href=(sagas::PATH) { "All that are stuck" } }
            }
        }
        (last_hour(&minutes))
        @match &asked {
            Ok(Ok((asked, _))) if asked.is_empty() => {}
            Ok(Ok((asked, number))) => section.card aria-labelledby="asked" {
                h2 #asked { "Who has asked for personal data" }
                ol.timeline { @for one in asked { li { (operations::line(one)) } } }
                @if *number > asked.len() as u64 { p.quiet { "These are the last " (asked.len()) " of " (number) ". All are events of the shop." } }
            },
            _ => p.notice.warn { "Who has asked for personal data cannot be read at the moment." },
        }
    };
    // Who does not look at the page is told when its title changes.
    let title = if count == 0 {
        "Overview".to_owned()
    } else {
        format!("Overview: {}", counted(count as u64, "thing needs a person", "things need a person"))
    };
    Ok(Page::new(title, content).live(Topic::State).live(Topic::Sagas).with_charts().to(&visitor))
}

/// The checkouts that wait for a person: of the shop of the key, or of all shops for those who belong to none.
async fn stuck(visitor: &Visitor) -> Result<Vec<SagaInstance>, Problem> {
    let sagas = &visitor.dashboard.app.checkouts.sagas;
    let of_all = visitor.runs_the_service();
    let sagas = if of_all { sagas.clone() } else { sagas.tenant(visitor.caller().tenant.clone()) };
    visitor.dashboard.app.query(&visitor.caller().tenant, visitor.deadline(), || sagas.stuck(MOST)).await
}

/// Something that somebody has to look at.
struct Need {
    class: &'static str,
    word: &'static str,
    /// What it is, and where to go.
    what: Markup,
    more: Markup,
}

impl Need {
    fn show(&self) -> Markup {
        html! {
            li {
                span class={ "state " (self.class) } { (self.word) }
                span { (self.what) }
                span.quiet { (self.more) }
            }
        }
    }
}

/// The stuck checkouts, those together that are so at the same step for the same reason; what waits longest first.
fn kinds(stuck: &[SagaInstance]) -> Vec<Vec<&SagaInstance>> {
    let mut kinds: Vec<Vec<&SagaInstance>> = Vec::new();
    let mut places = HashMap::new();
    for row in stuck {
        let place = *places.entry((&row.current_step, &row.last_error)).or_insert(kinds.len());
        match kinds.get_mut(place) {
            Some(kind) => kind.push(row),
            None => kinds.push(vec![row]),
        }
    }
    kinds
}

fn stuck_ones(kind: &[&SagaInstance]) -> Need {
    let (first, last) = (kind[0], kind[kind.len() - 1]);
    let what = html! {
        @match kind {
            [only] => { "Checkout " a href=(sagas::url(&only.tenant, &only.saga_id)) { (only.saga_id) } " of " (only.tenant) },
            all => { a href=(sagas::PATH) { (counted(all.len() as u64, "checkout", "checkouts")) } },
        }
        @if let Some(step) = &first.current_step { " at " code { (step) } }
    };
    let more = html! {
        "since " (time_utc(first.updated_at))
        @if kind.len() > 1 { ", the last since " (time_utc(last.updated_at)) }
        @if let Some(why) = &first.last_error { ": " bdi { (why) } }
    };
    Need { class: "bad", word: "stuck", what, more }
}

/// Streams that were set aside need somebody also while others are tried again.
fn parked((name, number): (&&'static str, &u64)) -> Need {
    let what = html! { "Streams of " a href={ (projections::url(name)) "#parked" } { (name) } };
    let more = html! { (counted(*number, "stream is set aside", "streams are set aside")) };
    Need { class: "warn", word: "parked", what, more }
}

/// What a health check says that no other line does.
fn check_of_health(name: &str, status: Status, error: Option<&str>) -> Option<Need> {
    let (class, word) = match status {
        Status::Down => ("bad", "down"),
        Status::Degraded => ("warn", "degraded"),
        _ => return None,
    };
    // Read models and the services that are called have lines of their own.
    if name == "projections" || name == "payment" {
        return None;
    }
    let what = html! { "Health check " a href={ (policies::PATH) "#health" } { (name) } };
    Some(Need { class, word, what, more: html! { @if let Some(error) = error { (error) } } })
}

fn projection(visitor: &Visitor, health: &ProjectionHealth, set_aside: &BTreeMap<&'static str, u64>) -> Option<Need> {
    let behind = health.lag.filter(|lag| *lag > MOST_LAG);
    let (class, word, more) = match &told(&visitor.dashboard.app, visitor.caller(), health) {
        Verdict::Failed { why } => ("bad", "stopped", html! { (why) }),
        // That number is the one of all shops.
        Verdict::Degraded { .. } if set_aside.contains_key(&*health.name) || !visitor.runs_the_service() => {
            return None;
        }
        Verdict::Degraded { parked } => {
            ("warn", "parked", html! { (counted(*parked as u64, "stream is set aside", "streams are set aside")) })
        }
        Verdict::Retrying { fault } => ("warn", "tries again", html! { (fault) }),
        Verdict::Paused { by, since } => ("warn", "paused", html! { "by " (by) " since " (time_utc(*since)) }),
        _ => ("warn", "behind", html! { (span(behind?)) " behind" }),
    };
    let kind = match health.of {
        HealthOf::Reactor => "Reactor",
        _ => "Read model",
    };
    let what = html! {
        (kind) " "
        a href=(projections::url(&health.name)) { (health.name) }
    };
    Some(Need { class, word, what, more })
}

fn breakers(visitor: &Visitor) -> impl Iterator<Item = Need> {
    all_policies(&visitor.dashboard.app).into_iter().filter_map(|policy| {
        let breaker = policy.breaker();
        let now = breaker.snapshot();
        let (class, word) = match (now.state, now.mode) {
            (_, Mode::HeldOpen) => ("bad", "held open"),
            (_, Mode::HeldClosed) => ("warn", "held closed"),
            (BreakerState::Open, _) => ("bad", "open"),
            (BreakerState::HalfOpen, _) => ("warn", "half open"),
            _ => return None,
        };
        let what = html! {
            "Breaker of "
            a href=(policies::url(breaker.name())) { (breaker.name()) }
        };
        let more = html! {
            "for " (span(now.in_state_for))
            @if now.calls > 0 { ", " (now.failures) " of " (counted(now.calls.into(), "call", "calls")) " failed" }
            @if let Some(left) = now.retry_after { ", called again in " (span(left)) }
        };
        Some(Need { class, word, what, more })
    })
}

/// The name of a line, and its value in a minute.
type Line = (&'static str, fn(&Minute) -> Option<f64>);

fn last_hour(minutes: &[Minute]) -> Markup {
    let chart = |unit, series: Vec<Line>| Chart {
        x: minutes.iter().map(|minute| minute.number * 60).collect(),
        series: series
            .into_iter()
            .map(|(name, value)| Series { name: name.to_owned(), values: minutes.iter().map(value).collect() })
            .collect(),
        unit,
    };
    let requests = chart(
        "",
        vec![
            ("Requests", |minute| Some(f64::from(minute.requests))),
            ("Writes", |minute| Some(f64::from(minute.writes))),
        ],
    );
    let errors = chart(
        "",
        vec![
            ("Refused (4xx)", |minute| Some(f64::from(minute.refused))),
            ("Failed (5xx)", |minute| Some(f64::from(minute.failed))),
        ],
    );
    let lag = chart("s", vec![("Lag", |minute| minute.lag.map(|lag| lag.as_secs_f64()))]);
    let sum = |of: fn(&Minute) -> u32| minutes.iter().map(|minute| u64::from(of(minute))).sum::<u64>();
    let count = |number: u64| count(i64::try_from(number).unwrap_or(i64::MAX));
    let nothing = sum(|minute| minute.requests) == 0;
    html! {
        div.columns {
            section.card {
                h2 { "Requests a minute" }
                (requests.show("Requests a minute", Kind::Hour))
                p.quiet {
                    @if nothing { "Nobody has asked for anything in the last hour." }
                    @else { "In the hour: " (counted(sum(|minute| minute.requests), "request", "requests")) ", " (count(sum(|minute| minute.writes))) " of them writes." }
                }
            }
            section.card {
                h2 { "Errors a minute" }
                (errors.show("Errors a minute", Kind::Hour))
                p.quiet { "In the hour: " (count(sum(|minute| minute.refused))) " refused (4xx), " (count(sum(|minute| minute.failed))) " failed (5xx)." }
            }
            section.card {
                h2 { "Lag of the slowest read model" }
                (lag.show("Lag of the slowest read model", Kind::Hour))
                p.quiet {
                    @match minutes.iter().filter_map(|minute| minute.lag).max() {
                        Some(lag) => { "At most " (span(lag)) " in the hour." },
                        None => "Nobody has looked yet.",
                    }
                }
            }
        }
        section.card {
            details {
                summary { "The figures of the hour" }
                (table(minutes))
            }
        }
    }
}

/// The minutes in which there was something.
fn table(minutes: &[Minute]) -> Markup {
    let any = |minute: &&Minute| minute.requests > 0 || minute.lag.is_some();
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th scope="col" { "Minute (UTC)" } th.number scope="col" { "Requests" } th.number scope="col" { "Writes" }
                        th.number scope="col" { "Refused (4xx)" } th.number scope="col" { "Failed (5xx)" } th.number scope="col" { "Lag" }
                    }
                }
                tbody {
                    @for minute in minutes.iter().rev().filter(any) {
                        tr {
                            th scope="row" { (clock(minute.number)) }
                            td.number { (minute.requests) } td.number { (minute.writes) } td.number { (minute.refused) }
                            td.number { (minute.failed) } td.number { @match minute.lag { Some(lag) => (span(lag)), None => "none" } }
                        }
                    }
                }
            }
        }
    }
}

fn clock(minute: i64) -> String {
    format!("{:02}:{:02}", minute.div_euclid(60).rem_euclid(24), minute.rem_euclid(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_that_fails_is_something_to_look_at_unless_another_line_says_it() {
        let shown =
            |name, status| check_of_health(name, status, Some("no room <left>")).map(|need| need.show().into_string());
        let down = shown("idempotency-keys", Status::Down).expect("a line");
        assert!(down.contains("state bad\">down") && down.contains("no room &lt;left&gt;"), "{down}");
        assert!(shown("cache", Status::Degraded).is_some_and(|line| line.contains("state warn\">degraded")));
        assert!(shown("cache", Status::Up).is_none() && shown("cache", Status::Starting).is_none());
        assert!(shown("projections", Status::Down).is_none() && shown("payment", Status::Down).is_none());
    }
}
