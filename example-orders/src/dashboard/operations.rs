//! What operators do with the service is an event before it is done, with who and why; and then another one says what came of it. So
//! what was done is always recorded, and what is recorded without an end was cut off.
//!
//! Each thing that is operated has a stream: a projection, a policy, a service; and each stream that was set aside, in the shop that it
//! belongs to. What people decide about a checkout is recorded in its own stream.

use std::future::Future;

use annals::engine::{Clock, SystemClock};
use annals::{Aggregate, Context, Event, Evolve, Invalid, Repository, Tenant, prelude::*, text_id};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::dashboard::controls::ASKED;
use crate::dashboard::error::Trouble;
use crate::dashboard::format::time_utc;
use crate::dashboard::visitor::Visitor;
use crate::service::app::App;
use crate::service::problem::Problem;

/// So many of the last ones are kept in the state, and shown.
const KEPT: usize = 20;

/// So often an event is appended anew because others were first.
const ATTEMPTS: u32 = 10_000;

/// The longest reason, in characters.
const LONGEST_REASON: usize = 150;

text_id! {
    /// What is operated: `projection-order_list`, say.
    pub struct Target;
}

/// What can happen to something that is operated.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum OperationEvent {
    /// Somebody is about to do something.
    #[event(name = "operation.begun")]
    Begun {
        /// What.
        what: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// It is done, or could not be.
    #[event(name = "operation.ended")]
    Ended {
        /// The version of the event with which it began.
        begun: i64,
        /// Whether it is done.
        is_done: bool,
        /// What came of it.
        outcome: String,
    },
}

/// One thing that somebody has done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    begun: i64,
    /// What.
    pub what: String,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Whether it is done, and what came of it; `None` if that was not recorded.
    pub ended: Option<(bool, String)>,
}

/// What was done last with something.
#[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug)]
#[aggregate(name = "operation", id = Target, event = OperationEvent)]
pub struct Operations {
    version: i64,
    number: u64,
    /// The last ones, the first of them first.
    pub last: Vec<Operation>,
}

impl Evolve for Operations {
    fn evolve(&mut self, event: &OperationEvent) {
        self.version += 1;
        match event {
            OperationEvent::Begun { what, by, reason, at } => {
                self.number += 1;
                if self.last.len() == KEPT {
                    self.last.remove(0);
                }
                let (what, by, reason) = (what.clone(), by.clone(), reason.clone());
                self.last.push(Operation { begun: self.version, what, by, reason, at: *at, ended: None });
            }
            OperationEvent::Ended { begun, is_done, outcome } => {
                if let Some(operation) = self.last.iter_mut().find(|operation| operation.begun == *begun) {
                    operation.ended = Some((*is_done, outcome.clone()));
                }
            }
        }
    }
}

fn of(app: &App, context: Context) -> Repository<Operations> {
    // Nothing is decided on the state, so others who were first are no reason to give up.
    app.shop.store.aggregate::<Operations>().with(context).attempts(ATTEMPTS)
}

/// What was done last with something of a shop, or of the whole service; the last first.
pub async fn last(app: &App, shop: &Tenant, target: &str) -> Result<Vec<Operation>, Problem> {
    Ok(last_of_all(app, shop, target).await?.0)
}

/// The same, with how many there are in all.
pub async fn last_of_all(app: &App, shop: &Tenant, target: &str) -> Result<(Vec<Operation>, u64), Problem> {
    let operations = of(app, Context::of(shop.clone())).load(&Target::new(target)?).await?;
    Ok((operations.state.last.iter().rev().cloned().collect(), operations.state.number))
}

/// Something that an operator wants to be done, and that is recorded.
pub struct Wanted {
    /// With what, of which shop; and how that is said to those who look there.
    pub with: Vec<(Tenant, String, String)>,
    pub reason: String,
    /// The page where it is asked for.
    pub page: String,
}

impl Wanted {
    /// Does it. What `act` gives is what came of it, and so is a problem. It is done and recorded to its end also if nobody waits for
    /// that any more: a browser that sends a form twice forgets the first one.
    ///
    /// # Errors
    /// The reason is none, or it could not be recorded. Nothing is done then.
    pub async fn perform(
        self,
        visitor: &Visitor,
        act: impl Future<Output = Result<String, Problem>> + Send + 'static,
    ) -> Result<Response, Trouble> {
        let caller = visitor.caller();
        let (reason, at) = (checked(&self.reason)?, SystemClock.now());
        let mut records = Vec::new();
        for (shop, target, what) in self.with {
            let context = Context::of(shop).with_actor(caller.actor()?);
            let (by, reason) = (caller.key.to_string(), reason.to_owned());
            let begun = OperationEvent::Begun { what, by, reason, at };
            records.push((of(&visitor.dashboard.app, context), Target::new(&target)?, begun));
        }
        let done = tokio::spawn(async move {
            let mut open = Vec::new();
            for (operations, target, begun) in records {
                let begun = record(&operations, &target, begun).await?;
                open.push((operations, target, begun));
            }
            let (is_done, outcome) = match act.await {
                Ok(outcome) => (true, outcome),
                Err(problem) => (false, problem.parts().2.to_owned()),
            };
            for (operations, target, begun) in open {
                let ended = OperationEvent::Ended { begun, is_done, outcome: outcome.clone() };
                record(&operations, &target, ended).await?;
            }
            Ok::<_, Problem>(())
        });
        done.await.map_err(|e| Problem::broken(&e))??;
        // There the browser says what came of it, and goes on from there by keyboard.
        Ok(Redirect::to(&format!("{}#operations", self.page)).into_response())
    }
}

/// Records an event; gives its version.
async fn record(operations: &Repository<Operations>, target: &Target, event: OperationEvent) -> Result<i64, Problem> {
    let recorded = operations.execute(target, |_| Ok::<_, Invalid>(vec![event.clone()])).await;
    Ok(recorded?.version.get())
}

/// A reason that a person can read later.
pub fn checked(reason: &str) -> Result<&str, Problem> {
    let reason = reason.trim();
    let length = reason.chars().count();
    if !reason.chars().any(is_visible) || length > LONGEST_REASON || reason.chars().any(char::is_control) {
        return Err(Problem::bad(
            "reason",
            format!(
                "`reason` is 1 to {LONGEST_REASON} characters, of which one at least can be seen, and none is a control character"
            ),
        ));
    }
    Ok(reason)
}

/// Whether a reader sees it: it is no space, and none of those that have no width or only set the direction of others.
fn is_visible(character: char) -> bool {
    !character.is_whitespace()
        && !matches!(character, '\u{ad}' | '\u{300}'..='\u{36f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
            | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

/// The field for a reason. Several of them on a page have names of their own.
pub fn reason_field(id: &str) -> Markup {
    reason_filled(id, "")
}

/// The same with a reason in it.
pub fn reason_filled(id: &str, reason: &str) -> Markup {
    html! {
        label for=(id) { "Reason" }
        input #(id) name="reason" value=[Some(reason).filter(|reason| !reason.is_empty())] required maxlength=(LONGEST_REASON) autocomplete="off" placeholder="for those who read it later";
    }
}

/// What operators did, on a card.
pub fn card(operations: &[Operation]) -> Markup {
    html! {
        section.card aria-labelledby="operations" {
            h2 #operations tabindex="-1" { "What operators did" }
            @if operations.is_empty() { p.empty { "Nothing yet." } }
            @else {
                ol.timeline {
                    @for operation in operations { li class=(operation.class()) { (line(operation)) } }
                }
            }
        }
    }
}

impl Operation {
    /// The colour of what came of it; none while that is not known.
    pub fn class(&self) -> &'static str {
        match &self.ended {
            Some((true, outcome)) if outcome != ASKED => "good",
            Some((false, _)) => "bad",
            _ => "",
        }
    }
}

/// One of them, for a list.
pub fn line(operation: &Operation) -> Markup {
    html! {
        div.what { (operation.what) }
        div.meta { (time_utc(operation.at)) span { "by " (operation.by) } bdi { "because: " (operation.reason) } }
        @match &operation.ended {
            Some((true, outcome)) => p { (outcome) },
            Some((false, outcome)) => p { strong { "Not done: " } (outcome) },
            None => p { "What came of it was not recorded." },
        }
    }
}
