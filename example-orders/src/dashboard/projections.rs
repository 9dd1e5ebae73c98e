//! Projections and reactors: how far each is, who runs it, what it has set aside; and what a person can do with one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use annals::projections::{HealthOf, ProjectionHealth, ProjectionProgress, Verdict};
use annals::{Projections, StreamId, Tenant};
use axum::http::Method;
use axum::response::Response;
use futures::future::{join_all, try_join_all};
use maud::{Markup, html};
use serde::Deserialize;

use crate::dashboard::controls::{self, Act, Letter};
use crate::dashboard::error::Trouble;
use crate::dashboard::form::FormAbout;
use crate::dashboard::format::{count, counted, span, time_utc};
use crate::dashboard::layout::Page;
use crate::dashboard::operations::{self, Operation, Wanted, checked, last, reason_field};
use crate::dashboard::orders;
use crate::dashboard::query::PathOf;
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::{Visitor, escaped};
use crate::service::app::App;
use crate::service::health::{fault_told, told};
use crate::service::problem::Problem;

/// Where it is.
pub const PATH: &str = "/dashboard/projections";
/// The route of the API that has the same.
pub const ROUTE: &str = "/operator/projections";

/// The longest text that a pause keeps.
const LONGEST_BY: usize = 200;

/// So many streams that are set aside are on a page, and so many are retried at once.
const MOST_PARKED: usize = 50;
const MOST_RETRIED: usize = 1_000;
/// So many of the last things that operators did are on a page.
const MOST_OPERATIONS: usize = 20;

/// A projection or a reactor.
struct One {
    health: ProjectionHealth,
    /// How far queries see, and the version that they see; a reactor has neither.
    shown: Option<(ProjectionProgress, u32)>,
    rate: f64,
    owners: BTreeSet<String>,
    last_error: Option<String>,
    can_pause: bool,
}

impl One {
    fn name(&self) -> &str {
        &self.health.name
    }

    fn kind(&self) -> &'static str {
        match self.health.of {
            HealthOf::Projection { .. } => "read model",
            _ => "reactor",
        }
    }
}

async fn all(app: &App) -> Result<Vec<One>, Problem> {
    let all = join_all(app.runners().map(async |views: &Projections| {
        let (health, progress) = tokio::join!(views.health(), views.progress());
        let (progress, status, reactors) = (progress.map_err(Problem::from)?, views.status(), views.reactors());
        let one = |health: ProjectionHealth| {
            let name = &health.name;
            if let Some(reactor) = reactors.iter().find(|reactor| reactor.name == *name) {
                let owners = reactor.owner.iter().map(ToString::to_string).collect();
                let last_error = reactor.last_error.clone();
                return One { shown: None, rate: reactor.rate(), owners, last_error, can_pause: false, health };
            }
            let status = status.iter().find(|status| status.name == *name);
            let owners = status.iter().flat_map(|status| &status.slots).filter_map(|slot| slot.owner.as_ref());
            let owners = owners.map(ToString::to_string).collect();
            let here = status.map_or(1, |status| status.version);
            let shown = progress.iter().find(|progress| progress.projection == *name).cloned();
            let shown = shown.map(|shown| {
                let version = shown.elsewhere.as_ref().map_or(here, |elsewhere| elsewhere.version);
                (shown, version)
            });
            let last_error = status.and_then(|status| status.last_error()).map(|error| error.text.to_string());
            let rate = status.map_or(0.0, annals::projections::ProjectionStatus::rate);
            One { shown, rate, owners, last_error, can_pause: true, health }
        };
        Ok::<_, Problem>(health.into_iter().map(one).collect::<Vec<_>>())
    }));
    let mut found = Vec::new();
    for some in all.await {
        found.extend(some?);
    }
    Ok(found)
}

/// All of them.
pub async fn list(visitor: Visitor) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, ROUTE)?;
    let app = &visitor.dashboard.app;
    let letters = app.query(&visitor.caller().tenant, visitor.deadline(), || controls::letters(app));
    let (all, letters) = tokio::join!(all(app), letters);
    let (all, mut letters) = (all?, letters?);
    letters.retain(|letter| visitor.sees(letter.stream.tenant()));
    let head = app.shop.store.head().await.map_err(Problem::from)?;
    let content = html! {
        div.head {
            div { h1 { "Projections" } p.quiet { "The log ends at " (count(head.position.get())) "." } }
        }
        section.card {
            div.scroll {
                table.stack {
                    thead { tr {
                        th scope="col" { "Name" } th scope="col" { "State" }
                        th.number scope="col" { "Position" } th.number scope="col" { "Shown" } th.number scope="col" { "Events behind" }
                        th.number scope="col" { "Events/s" } th scope="col" { "Run by" } th.number scope="col" { "Set aside" }
                    } }
                    tbody { @for one in &all {
                        (line(one, letters.iter().filter(|letter| letter.of == one.name()).count()))
                    } }
                }
            }
        }
    };
    Ok(Page::new("Projections", content).live(Topic::State).to(&visitor))
}

fn line(one: &One, parked: usize) -> Markup {
    html! {
        tr {
            th scope="row" data-name="Name" { a href=(url(one.name())) { (one.name()) } }
            td data-name="State" { (state(&one.health.verdict)) }
            td.number data-name="Position" { (count(one.health.position.get())) }
            td.number data-name="Shown" { (shown(one)) }
            td.number data-name="Events behind" { (behind(&one.health)) }
            td.number data-name="Events/s" { (rate(one.rate)) }
            td data-name="Run by" { (owners(one)) }
            td.number data-name="Set aside" { @if parked > 0 { span.state.warn { (parked) } } @else { "0" } }
        }
    }
}

fn shown(one: &One) -> Markup {
    html! { span { @match &one.shown {
        Some((progress, version)) => { "v" (version) " at " (count(progress.position.get())) },
        None => "–",
    } } }
}

fn behind(health: &ProjectionHealth) -> Markup {
    html! { span {
        @match health.behind { Some(behind) => (count(i64::try_from(behind).unwrap_or(i64::MAX))), None => "not known" }
        @if let Some(lag) = health.lag.filter(|lag| !lag.is_zero()) { ", " (span(lag)) }
    } }
}

fn rate(rate: f64) -> String {
    format!("{rate:.1}")
}

fn owners(one: &One) -> String {
    if one.owners.is_empty() { "nobody".to_owned() } else { one.owners.iter().cloned().collect::<Vec<_>>().join(", ") }
}

/// A verdict as a word and a colour.
pub fn state(verdict: &Verdict) -> Markup {
    let (class, word) = match verdict {
        Verdict::Healthy => ("good", "up to date"),
        Verdict::CatchingUp => ("busy", "catching up"),
        Verdict::Retrying { .. } => ("warn", "retrying"),
        Verdict::Degraded { .. } => ("warn", "some set aside"),
        Verdict::Paused { .. } => ("warn", "paused"),
        _ => ("bad", "failed"),
    };
    html! { span class={ "state " (class) } { (word) } }
}

/// The page of one.
pub fn url(name: &str) -> String {
    format!("{PATH}/{}", escaped(name))
}

/// One of them, what it has set aside, and what operators did with it.
pub async fn one(visitor: Visitor, PathOf(name): PathOf<String>) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, ROUTE)?;
    let app = &visitor.dashboard.app;
    let all = all(app).await?;
    let one = all.iter().find(|one| one.name() == name);
    let one = one.ok_or_else(|| Problem::not_found("projection", name.escape_debug()))?;
    let mut letters = app.query(&visitor.caller().tenant, visitor.deadline(), || controls::letters(app)).await?;
    letters.retain(|letter| letter.of == name && visitor.sees(letter.stream.tenant()));
    let of_page = letters.len().min(MOST_PARKED);
    let more = letters.split_off(of_page).len();
    let parked = try_join_all(letters.into_iter().map(async |letter| {
        let operations = last(app, letter.stream.tenant(), &target_of(&letter.stream)).await?;
        Ok::<_, Problem>((letter, operations))
    }));
    let parked = parked.await?;
    // What is done with a projection concerns all shops, and what is done with the streams of a shop that one.
    let mut shops = BTreeSet::from_iter(visitor.shops());
    shops.extend([Tenant::default(), visitor.caller().tenant.clone()]);
    let target = format!("projection-{name}");
    let operations = try_join_all(shops.iter().map(|shop| last(app, shop, &target)));
    let mut operations = operations.await?.concat();
    operations.sort_by_key(|operation| Reverse(operation.at));
    operations.truncate(MOST_OPERATIONS);
    let verdict = told(app, visitor.caller(), &one.health);
    // The number of streams that are set aside is that of all shops; those that are of this one follow.
    let says_why = visitor.runs_the_service() || !matches!(verdict, Verdict::Degraded { .. });
    let content = html! {
        div.head { div { h1 { (name) } p { (state(&one.health.verdict)) " " span.quiet { (one.kind()) } } } }
        @if says_why && !matches!(verdict, Verdict::Healthy | Verdict::CatchingUp) {
            p.notice.warn { (verdict) }
        }
        div.columns.wide-first {
            section.card aria-labelledby="facts" {
                h2 #facts { "How far it is" }
                dl.facts {
                    dt { "Position" } dd { (count(one.health.position.get())) }
                    dt { "Shown" } dd { (shown(one)) }
                    dt { "Events behind" } dd { (behind(&one.health)) }
                    dt { "Events/s" } dd { (rate(one.rate)) }
                    dt { "Run by" } dd { (owners(one)) }
                    @if let Some(error) = &one.last_error { dt { "Last fault" } dd { (fault_told(app, visitor.caller(), &name, error)) } }
                }
            }
            @if one.can_pause && visitor.runs_the_service() { (control(&visitor, one)) }
        }
        section.card aria-labelledby="parked" {
            h2 #parked { "Streams that it has set aside" }
            @if parked.is_empty() { p.empty { "None." } }
            @if parked.len() > 1 {
                form.stacked method="post" action={ (url(&name)) "/parked" } {
                    (visitor.form_token())
                    (reason_field("reason-all"))
                    button type="submit" name="act" value="retry-all" { "Retry all " (count((parked.len() + more) as i64)) }
                }
            }
            @for (n, (letter, operations)) in parked.iter().enumerate() { (self::letter(&visitor, n, letter, operations)) }
            @if more > 0 {
                p.quiet { "Behind these, " (counted(more as u64, "other stream is", "other streams are")) " set aside; they follow when these are dealt with." }
            }
        }
        (operations::card(&operations))
    };
    Ok(Page::new(name, content).live(Topic::State).to(&visitor))
}

/// Where it is recorded what operators do with a stream: where those look who ask what happened to it.
fn target_of(stream: &StreamId) -> String {
    format!("{}-{}", stream.aggregate_type(), stream.aggregate_id())
}

fn control(visitor: &Visitor, one: &One) -> Markup {
    let (act, name) = match one.health.verdict {
        Verdict::Paused { .. } => ("resume", "Resume"),
        Verdict::Failed { .. } => ("start-again", "Start again"),
        _ => ("pause", "Pause"),
    };
    html! {
        section.card aria-labelledby="control" {
            h2 #control { (name) }
            form.stacked method="post" action={ (url(one.name())) "/control" } {
                (visitor.form_token())
                input type="hidden" name="act" value=(act);
                (reason_field("reason"))
                button type="submit" { (name) }
            }
        }
    }
}

fn letter(visitor: &Visitor, n: usize, letter: &Letter, operations: &[Operation]) -> Markup {
    let (version, event, position) = &letter.event;
    let stream = &letter.stream;
    html! {
        article aria-labelledby={ "parked-" (n) } {
            h3 id={ "parked-" (n) } { (stream.aggregate_type()) " " (of_stream(visitor, stream)) " " span.quiet { "of " (stream.tenant()) } }
            p.notice.bad { (letter.reason) }
            dl.facts {
                dt { "Event" } dd { (event) ", version " (version) ", position " (count(*position)) }
                @if let Some(at) = letter.parked_at { dt { "Set aside" } dd { (time_utc(at)) } }
                @if let Some(waiting) = letter.waiting { dt { "Behind it" } dd { (counted(waiting, "event waits", "events wait")) } }
            }
            h3 { "Attempts of operators" }
            @let attempts: Vec<_> = operations.iter().filter(|operation| operation.what.ends_with(&format!("`{}`", letter.of))).collect();
            @if attempts.is_empty() { p.quiet { "None." } }
            @else { ol.timeline { @for attempt in attempts { li { (operations::line(attempt)) } } } }
            form.stacked method="post" action={ (url(letter.of)) "/parked" } {
                (visitor.form_token())
                input type="hidden" name="shop" value=(stream.tenant());
                input type="hidden" name="kind" value=(stream.aggregate_type());
                input type="hidden" name="id" value=(stream.aggregate_id());
                (reason_field(&format!("reason-{n}")))
                div.row {
                    button.main type="submit" name="act" value="retry" { "Retry" }
                    @if letter.can_drop { button.danger type="submit" name="act" value="drop" { "Give up its events" } }
                }
            }
        }
    }
}

/// The id of a stream, which leads to its page where there is one for the visitor.
fn of_stream(visitor: &Visitor, stream: &StreamId) -> Markup {
    let is_here = visitor.caller().tenant == *stream.tenant() && visitor.may(&Method::GET, "/orders/{order}/checkout");
    let id = stream.aggregate_id();
    html! {
        @if is_here && stream.aggregate_type() == "order" { a href={ (orders::PATH) "/" (escaped(id)) } { (id) } }
        @else { (id) }
    }
}

/// What is to be done with a projection.
#[derive(Deserialize)]
pub struct Controlled {
    act: Act,
    reason: String,
}

/// Pauses a projection, resumes it, or starts it again.
pub async fn control_one(FormAbout { visitor, name, fields }: FormAbout<Controlled>) -> Result<Response, Trouble> {
    visitor.needs_the_service()?;
    let Controlled { act, reason } = fields;
    let none = || Problem::not_found("projection", name.escape_debug());
    let (views, control) = controls::find(&visitor.dashboard.app, &name).ok_or_else(none)?;
    let by: String = format!("{}: {}", visitor.caller().key, checked(&reason)?).chars().take(LONGEST_BY).collect();
    let with = vec![of_projection(Tenant::default(), control.name, format!("{} `{}`", act.name(), control.name))];
    let wanted = Wanted { with, reason, page: url(&name) };
    wanted.perform(&visitor, async move { control.perform(&views, act, &by).await }).await
}

/// Where it is recorded what operators do with a projection.
fn of_projection(shop: Tenant, name: &str, what: String) -> (Tenant, String, String) {
    (shop, format!("projection-{name}"), what)
}

/// What is to be done with a stream that was set aside, or with all of them.
#[derive(Deserialize)]
pub struct Parked {
    act: ParkedAct,
    reason: String,
    #[serde(default)]
    shop: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    id: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum ParkedAct {
    Retry,
    RetryAll,
    Drop,
}

/// Retries a stream or all of them, or gives up the events of one.
pub async fn parked(FormAbout { visitor, name, fields }: FormAbout<Parked>) -> Result<Response, Trouble> {
    let Parked { act, reason, shop, kind, id } = fields;
    let app = visitor.dashboard.app.clone();
    let mut letters = controls::letters(&app).await.map_err(Problem::from)?;
    letters.retain(|letter| letter.of == name && visitor.sees(letter.stream.tenant()));
    if act != ParkedAct::RetryAll {
        let stream = StreamId::new(Tenant::new(&shop)?, &*kind, &*id)?;
        letters.retain(|letter| letter.stream == stream);
    }
    letters.truncate(MOST_RETRIED);
    let mut shops = BTreeMap::<Tenant, Vec<StreamId>>::new();
    for letter in letters {
        shops.entry(letter.stream.tenant().clone()).or_default().push(letter.stream);
    }
    let by: String = visitor.caller().key.chars().take(LONGEST_BY).collect();
    let why = checked(&reason)?.to_owned();
    let word = if act == ParkedAct::Drop { "drop" } else { "retry" };
    let mut answer = Err(Problem::not_found("stream that is set aside", id.escape_debug()).into());
    // Each shop has a record of its own streams: reasons and outcomes name them, and are not for others.
    for (shop, streams) in shops {
        let number = counted(streams.len() as u64, "stream", "streams");
        let mut with = vec![of_projection(shop.clone(), &name, format!("{word} of {number} in `{name}`, of {shop}"))];
        if act != ParkedAct::RetryAll {
            with.push((shop, target_of(&streams[0]), format!("{word} in `{name}`")));
        }
        let wanted = Wanted { with, reason: reason.clone(), page: url(&name) };
        let (app, name, by, why) = (app.clone(), name.clone(), by.clone(), why.clone());
        let act = async move {
            match act {
                ParkedAct::Retry => controls::retry(&app, &name, &streams[0]).await,
                ParkedAct::RetryAll => retry_all(&app, &name, &streams).await,
                ParkedAct::Drop => controls::give_up(&app, &name, &streams[0], &by, &why).await,
            }
        };
        answer = Ok(wanted.perform(&visitor, act).await?);
    }
    answer
}

/// Retries one after another, whatever came of those before it. It has failed if none could be retried.
async fn retry_all(app: &App, name: &str, streams: &[StreamId]) -> Result<String, Problem> {
    let (mut done, mut refused) = (0, None);
    for stream in streams {
        match controls::retry(app, name, stream).await {
            Ok(_) => done += 1,
            Err(problem) => refused = Some(problem),
        }
    }
    match refused {
        Some(problem) if done == 0 => Err(problem),
        Some(problem) => Ok(format!("{done} of {} are retried. Of the others: {}", streams.len(), problem.parts().2)),
        None => Ok(format!("{}.", counted(done, "stream is retried", "streams are retried"))),
    }
}
