//! A person decides about one checkout or several: what the decision would record is shown first, for each, and then what came of it.
//!
//! The decision is an event of the checkout, with who and why. All that are decided about together have the key of one request, so
//! that a second click changes nothing.

use std::collections::{BTreeMap, HashSet};

use annals::Tenant;
use annals::engine::IdSource;
use annals::sagas::{By, Intervention, SagaId};
use axum::extract::RawQuery;
use axum::http::Method;
use axum::response::Response;
use futures::future::join_all;
use maud::{Markup, html};
use serde::Deserialize;

use crate::checkout::timeline::line;
use crate::dashboard::error::Trouble;
use crate::dashboard::form::{Form, read};
use crate::dashboard::layout::Page;
use crate::dashboard::operations::{checked, reason_filled};
use crate::dashboard::sagas::{PATH, ROUTE, state, url, why_not};
use crate::dashboard::visitor::{Visitor, escaped};
use crate::service::problem::Problem;

/// So many are decided about at once.
const MOST: usize = 100;
/// Of so many it is tried beforehand what can be decided about them.
const MOST_TRIED: usize = 10;

/// What can be decided, and what it means.
const DECISIONS: [(&str, Intervention, &str); 5] = [
    ("retry", Intervention::Retry, "The failed step gets all its attempts again."),
    (
        "skip",
        Intervention::Skip,
        "The failed step counts as done, or as undone, and the next one is called as if it were so.",
    ),
    ("compensate", Intervention::Compensate, "The finished steps are undone. Behind the pivot nothing can be."),
    (
        "complete",
        Intervention::Complete,
        "It counts as completed. Nothing more is called, and the order stays as it is.",
    ),
    (
        "cancel",
        Intervention::Cancel,
        "One that runs is given up: its finished steps are undone. Behind the pivot nothing can be.",
    ),
];

/// About which: `SHOP/ID`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Chosen {
    saga: Vec<String>,
    /// What was chosen before, by somebody who changes it.
    decision: String,
    reason: String,
}

/// What is decided.
#[derive(Deserialize)]
pub struct Decided {
    #[serde(default)]
    saga: Vec<String>,
    decision: String,
    reason: String,
    /// Only of a decision that was seen before.
    #[serde(default)]
    key: String,
}

/// What cannot be decided about any of those that are chosen, and why. Of many, it is seen when it is tried.
async fn impossible(visitor: &Visitor, chosen: &[One]) -> Result<BTreeMap<&'static str, String>, Problem> {
    if chosen.len() > MOST_TRIED {
        return Ok(BTreeMap::new());
    }
    let checkouts = &visitor.dashboard.app.checkouts;
    let by = &By::new(&*visitor.caller().key, "to see what is possible")?;
    let tried = DECISIONS.iter().map(async |(name, what, _)| {
        let all = chosen.iter().map(async |(shop, id)| checkouts.preview(shop, id, what.clone(), by).await.err());
        let mut refused = join_all(all).await.into_iter().zip(chosen);
        // One that is possible is enough.
        let why = refused.try_fold(None, |_, (refused, (_, id))| refused.map(|refused| Some(why_not(id, refused))));
        why.flatten().map(|why| (*name, why.parts().2.to_owned()))
    });
    Ok(join_all(tried).await.into_iter().flatten().collect())
}

/// The form.
pub async fn form(visitor: Visitor, RawQuery(query): RawQuery) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, ROUTE)?;
    let Chosen { saga, decision, reason } =
        read(&query.unwrap_or_default()).map_err(|e| Problem::bad("query-invalid", e))?;
    let chosen = chosen(&visitor, &saga)?;
    let impossible = impossible(&visitor, &chosen).await?;
    let possible = || DECISIONS.iter().filter(|(name, ..)| !impossible.contains_key(name));
    let can_be_decided = possible().next().is_some();
    let asked_for = DECISIONS.iter().find(|(name, ..)| *name == decision);
    let checked =
        asked_for.filter(|(name, ..)| !can_be_decided || !impossible.contains_key(name)).or_else(|| possible().next());
    let content = html! {
        div.head { h1 { "Decide" } }
        @if chosen.is_empty() {
            section.card { p.empty { "No checkout is chosen. " a href=(PATH) { "Choose some" } "." } }
        } @else {
            (standings(&visitor, &chosen).await)
            section.card aria-labelledby="decision" {
                h2 #decision { "The decision" }
                form.stacked method="post" action={ (PATH) "/preview" } {
                    (visitor.form_token())
                    (names(&chosen))
                    fieldset {
                        legend { "What" }
                        @for (name, _, meaning) in &DECISIONS {
                            div {
                                input #(name) type="radio" name="decision" value=(name) required
                                    checked[checked.is_some_and(|(checked, ..)| checked == name)] disabled[impossible.contains_key(name)];
                                " " label for=(name) { (name) }
                                " " span.quiet { (meaning) @if let Some(why) = impossible.get(name) { " Not here: " (why) "." } }
                            }
                        }
                    }
                    @if chosen.len() > MOST_TRIED { p.quiet { "What cannot be decided about so many is seen in the next step." } }
                    (reason_filled("reason", &reason))
                    button.main type="submit" disabled[!can_be_decided] { "See what it would do" }
                }
            }
        }
    };
    Ok(Page::new("Decide", content).to(&visitor))
}

/// A dry run: nothing is changed by it.
pub async fn preview(Form { visitor, fields }: Form<Decided>) -> Result<Response, Trouble> {
    let (chosen, what, by) = decision(&visitor, &fields)?;
    let checkouts = &visitor.dashboard.app.checkouts;
    let previews = join_all(chosen.iter().map(async |(shop, id)| {
        let would = checkouts.preview(shop, id, what.clone(), &by).await.map_err(|e| why_not(id, e))?;
        Ok::<Vec<String>, Problem>(would.iter().filter_map(line).collect())
    }));
    let previews = previews.await;
    let can = previews.iter().filter(|preview| preview.is_ok()).count();
    let key = visitor.dashboard.app.ids.next_id().to_string();
    let content = html! {
        div.head { div { h1 { "What “" (fields.decision) "” would do" } p.quiet { "Nothing is changed yet. Reason: " (fields.reason) } } }
        (results(&chosen, &previews, |would| html! {
            p { "It would record:" }
            ol { @for event in would { li { (event) } } }
        }))
        section.card {
            @if can == 0 {
                p { "None of them can be decided about so." }
            } @else {
                form method="post" action={ (PATH) "/decide" } {
                    (visitor.form_token())
                    (names(&chosen))
                    input type="hidden" name="decision" value=(fields.decision);
                    input type="hidden" name="reason" value=(fields.reason);
                    input type="hidden" name="key" value=(key);
                    button.main type="submit" { "Do it" }
                }
            }
            p.row {
                a href=(again(&chosen, &fields)) { "← Change the decision" }
                a href=(PATH) { "Leave it" }
            }
        }
    };
    Ok(Page::new("What it would do", content).to(&visitor))
}

/// The decision, with what came of it for each.
pub async fn decide(Form { visitor, fields }: Form<Decided>) -> Result<Response, Trouble> {
    let (chosen, what, by) = decision(&visitor, &fields)?;
    if fields.key.is_empty() {
        return Err(Problem::bad("key", "see first what the decision would do").into());
    }
    let by = by.request(format!("{}/{}", visitor.caller().name(), fields.key));
    let (app, all) = (visitor.dashboard.app.clone(), chosen.clone());
    // All of them are decided about, also if the browser does not wait for that.
    let decided = tokio::spawn(async move {
        join_all(all.iter().map(async |(shop, id)| {
            app.checkouts.decide(shop, id, what.clone(), &by).await.map_err(|e| why_not(id, e))?;
            app.checkouts.standing(shop, id).await.map_err(|e| why_not(id, e))
        }))
        .await
    });
    let decided = decided.await.map_err(|e| Problem::broken(&e))?;
    let done = decided.iter().filter(|result| result.is_ok()).count();
    let content = html! {
        div.head { h1 { "Decided" } }
        p class={ "notice " (if done == decided.len() { "good" } else { "warn" }) } role="status" {
            "“" (fields.decision) "” for " (done) " of " (decided.len()) ", because: " (fields.reason)
        }
        (results(&chosen, &decided, |standing| html! { p { (state(standing.status)) " " (standing.answer) } }))
        p { a.button href=(PATH) { "To the checkouts" } }
    };
    Ok(Page::new("Decided", content).to(&visitor))
}

type One = (Tenant, SagaId);

/// The form with what it was filled with.
fn again(chosen: &[One], fields: &Decided) -> String {
    let chosen = chosen.iter().map(|(shop, id)| format!("saga={}/{}&", escaped(shop.as_str()), escaped(id.as_str())));
    let chosen: String = chosen.collect();
    format!("{PATH}/decide?{chosen}decision={}&reason={}", escaped(&fields.decision), escaped(&fields.reason))
}

fn decision(visitor: &Visitor, fields: &Decided) -> Result<(Vec<One>, Intervention, By), Problem> {
    visitor.needs(&Method::POST, "/orders/{order}/checkout/decision")?;
    let what = DECISIONS.iter().find(|(name, ..)| *name == fields.decision).map(|(_, what, _)| what.clone());
    let what = what.ok_or_else(|| Problem::bad("decision", "`decision` is none that can be made"))?;
    let by = By::new(&*visitor.caller().key, checked(&fields.reason)?)?;
    let chosen = chosen(visitor, &fields.saga)?;
    if chosen.is_empty() {
        return Err(Problem::bad("saga", "no checkout is chosen; choose one at least"));
    }
    Ok((chosen, what, by))
}

/// The chosen ones that the visitor sees.
fn chosen(visitor: &Visitor, names: &[String]) -> Result<Vec<One>, Problem> {
    if names.len() > MOST {
        return Err(Problem::bad("saga", format!("{} are chosen; choose {MOST} at most", names.len())));
    }
    let one = |name: &String| {
        let none = || Problem::not_found("checkout", name.escape_debug());
        let (shop, id) = name.split_once('/').ok_or_else(none)?;
        let one = (Tenant::new(shop).map_err(|_| none())?, SagaId::new(id).map_err(|_| none())?);
        if visitor.sees(&one.0) { Ok(one) } else { Err(none()) }
    };
    // Twice chosen is chosen.
    let mut all: Vec<One> = names.iter().map(one).collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    all.retain(|one| seen.insert(one.clone()));
    Ok(all)
}

fn names(chosen: &[One]) -> Markup {
    html! { @for (shop, id) in chosen { input type="hidden" name="saga" value={ (shop) "/" (id) }; } }
}

/// Where each of them stands.
async fn standings(visitor: &Visitor, chosen: &[One]) -> Markup {
    let checkouts = &visitor.dashboard.app.checkouts;
    let standings =
        join_all(chosen.iter().map(async |(shop, id)| checkouts.standing(shop, id).await.map_err(|e| why_not(id, e))));
    results(chosen, &standings.await, |standing| {
        html! {
            p { (state(standing.status)) " " (standing.answer) }
            @if let Some(reason) = &standing.reason { p { (reason) } }
        }
    })
}

/// A result for each of them.
fn results<T>(chosen: &[One], results: &[Result<T, Problem>], show: impl Fn(&T) -> Markup) -> Markup {
    html! {
        @for ((shop, id), result) in chosen.iter().zip(results) {
            section.card data-saga=(id) {
                h2 { a href=(url(shop, id.as_str())) { (id) } " " span.quiet { "of " (shop) } }
                @match result {
                    Ok(result) => (show(result)),
                    Err(problem) => p.notice.bad { (problem.parts().2) },
                }
            }
        }
    }
}
