//! The policies of the service, and the states of their breakers over time.
//!
//! A breaker keeps its last changes itself, so nothing has to run for this: they are fetched when somebody looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use annals::engine::{Clock, SystemClock};
use annals::resilience::Policy;
use annals::resilience::breaker::{BreakerState, Cause, Transition, Transitions};
use futures::FutureExt;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::dashboard::format::counted;
use crate::service::app::App;
use crate::services::Client;

/// So many changes of a breaker are kept.
const KEPT: usize = 256;

/// The time that a picture of a breaker shows.
const SHOWN: Duration = Duration::from_secs(15 * 60);

/// The services that are called, each with its policy.
pub fn services(app: &App) -> Vec<Client> {
    let clients = &app.checkouts.services;
    vec![clients.payment.clone(), clients.stock.clone(), clients.shipping.clone(), app.degradation.notification.clone()]
}

/// All policies.
pub fn policies(app: &App) -> Vec<Policy> {
    app.policies().into_iter().cloned().collect()
}

/// What breakers did since the service has started.
pub struct Breakers {
    /// From when on.
    pub since: Timestamp,
    followed: Mutex<BTreeMap<String, (Transitions, VecDeque<Change>)>>,
}

/// One change of a breaker.
#[derive(Clone, Debug)]
pub struct Change {
    /// What.
    pub transition: Transition,
    /// When.
    pub at: Timestamp,
}

impl Breakers {
    /// Follows them from now on.
    pub fn follow(app: &App) -> Self {
        let followed = |policy: Policy| (policy.name().to_owned(), (policy.breaker().transitions(), VecDeque::new()));
        let followed = Mutex::new(policies(app).into_iter().map(followed).collect());
        Self { since: SystemClock.now(), followed }
    }

    /// The changes of a breaker, the first first.
    pub fn changes(&self, policy: &Policy) -> Vec<Change> {
        let now = SystemClock.now();
        let mut all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((transitions, changes)) = all.get_mut(policy.name()) else { return Vec::new() };
        let mut fresh = Vec::new();
        while let Some(Some(next)) = transitions.next().now_or_never() {
            // Those that are missed are older than those that are kept.
            fresh.extend(next.ok());
        }
        if let Some(last) = fresh.last().map(|last| last.at) {
            // A change says how long after the making of the breaker it was; the last one was this long ago.
            let ago = policy.breaker().snapshot().in_state_for;
            let when = |transition: &Transition| {
                let before = ago.saturating_add(last.saturating_sub(transition.at));
                now.checked_sub(before).unwrap_or(now)
            };
            changes.extend(fresh.into_iter().map(|transition| Change { at: when(&transition), transition }));
            let surplus = changes.len().saturating_sub(KEPT);
            changes.drain(..surplus);
        }
        changes.iter().cloned().collect()
    }
}

/// A state in a word.
pub fn word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half open",
        BreakerState::Open => "open",
    }
}

/// A colour of a state.
pub fn class(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "good",
        BreakerState::HalfOpen => "warn",
        BreakerState::Open => "bad",
    }
}

/// Why it changed.
pub fn why(cause: Cause) -> String {
    match cause {
        Cause::FailureRate { failures, calls } => format!("{failures} of {} failed", of_calls(calls)),
        Cause::SlowRate { slow, calls } => format!("{slow} of {} were slow", of_calls(calls)),
        Cause::ConsecutiveFailures { failures: 1 } => "1 call failed".to_owned(),
        Cause::ConsecutiveFailures { failures } => format!("{} failed one after another", of_calls(failures)),
        Cause::OpenPeriodOver => "the open time is over".to_owned(),
        Cause::ProbeFailed => "a probe failed".to_owned(),
        Cause::ProbesSucceeded => "the probes succeeded".to_owned(),
        Cause::ByHand => "by hand".to_owned(),
    }
}

fn of_calls(calls: u32) -> String {
    counted(calls.into(), "call", "calls")
}

/// The last quarter of an hour of a breaker, as a strip of its states. The table of its changes says the same in words.
pub fn strip(name: &str, state: BreakerState, changes: &[Change], since: Timestamp) -> Markup {
    let now = SystemClock.now();
    let width = SHOWN.as_secs_f64();
    // How long before now, as a place from the left.
    let place = |at: Timestamp| (width - at.duration_until(now).as_secs_f64()).clamp(0.0, width);
    let mut spans = Vec::new();
    // Before the start there was no breaker.
    let mut from = place(since);
    for change in changes {
        let to = place(change.at);
        spans.push((from, to, change.transition.from));
        from = to;
    }
    spans.push((from, width, state));
    html! {
        svg.strip viewBox={ "0 0 " (width) " 12" } preserveAspectRatio="none" role="img"
            aria-label={ "The breaker of " (name) " in the last 15 minutes; it is " (word(state)) " now" } {
            @for (from, to, state) in spans {
                @if to > from {
                    rect class=(class(state)) x={ (format!("{from:.1}")) } y="0" height="12" width={ (format!("{:.1}", to - from)) } {
                        title { (word(state)) }
                    }
                }
            }
        }
    }
}
