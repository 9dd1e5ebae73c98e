//! The steps of a checkout with their states: a fold of its events up to a moment.

use annals::Recorded;
use annals::sagas::{Direction, Intervention, SagaEvent};
use maud::{Markup, html};

use crate::dashboard::format::time_utc;
use crate::domain::order::OrderId;
use jiff::Timestamp;

/// What a step does at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Waits,
    Runs,
    Done,
    /// Why, and when it is tried again.
    Failed(String, Option<Timestamp>),
    /// A person has decided that it counts as done, or as undone.
    Skipped,
    IsUndone,
    Undone,
}

/// A step of a checkout.
#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    /// `local`, `remote`, `event` or `pivot`.
    kind: String,
    has_undo: bool,
    calls: u32,
    pub state: State,
}

/// The steps of a choreographed checkout are events of others; each but the first is undone by another one.
const FLOW: &str = "\
event  order.placed
event  payment.completed, undo
event  inventory.reserved, undo
event  shipment.created, undo
";

/// The steps of an outline, as a definition gives it: kind, name, and what is behind a comma.
fn steps(outline: &str) -> Vec<Step> {
    let step = |line: &str| {
        let (kind, rest) = line.split_once(' ')?;
        let (name, more) = rest.trim_start().split_once(',').unwrap_or((rest.trim_start(), ""));
        let has_undo = more.split(',').any(|part| part.trim() == "undo");
        let (name, kind) = (name.to_owned(), kind.to_owned());
        Some(Step { name, kind, has_undo, calls: 0, state: State::Waits })
    };
    outline.lines().filter_map(step).collect()
}

/// The steps of an orchestrated checkout, of which this is the outline, or of a choreographed one, after these events.
pub fn after<'a>(outline: Option<&str>, events: impl Iterator<Item = &'a Recorded<SagaEvent>>) -> Vec<Step> {
    let mut steps = steps(outline.unwrap_or(FLOW));
    for event in events {
        if let SagaEvent::Intervened { intervention: decided @ (Intervention::Skip | Intervention::Retry), .. } =
            &event.event
        {
            for one in steps.iter_mut().filter(|one| matches!(one.state, State::Failed(..))) {
                one.state = if *decided == Intervention::Skip { State::Skipped } else { State::Waits };
            }
        }
        let (step, state, calls) = match &event.event {
            SagaEvent::Begun { step, direction, attempt } => {
                (&**step, direction.of(State::Runs, State::IsUndone), *attempt)
            }
            SagaEvent::Succeeded { step, direction, attempt, .. } => {
                (&**step, direction.of(State::Done, State::Undone), *attempt)
            }
            SagaEvent::Refused { step, reason, attempt, .. } => {
                (&**step, State::Failed(reason.clone(), None), *attempt)
            }
            SagaEvent::Failed { step, error, attempt, retry_at, .. } => {
                (&**step, State::Failed(error.clone(), *retry_at), *attempt)
            }
            SagaEvent::PivotPassed => ("pivot", State::Done, 0),
            _ => continue,
        };
        let of_event = |one: &&mut Step| one.name == step || step == "pivot" && one.kind == "pivot";
        if let Some(one) = steps.iter_mut().find(of_event) {
            (one.state, one.calls) = (state, one.calls.max(calls));
        }
    }
    steps
}

trait Of {
    fn of(self, done: State, undone: State) -> State;
}

impl Of for &Direction {
    fn of(self, done: State, undone: State) -> State {
        match self {
            Direction::Do => done,
            Direction::Undo => undone,
        }
    }
}

impl State {
    /// As a word, and the class of its colour.
    pub fn word(&self) -> (&'static str, &'static str) {
        match self {
            Self::Waits => ("waits", ""),
            Self::Runs => ("under way", "busy"),
            Self::Done => ("done", "good"),
            Self::Failed(..) => ("failed", "bad"),
            Self::Skipped => ("skipped", "warn"),
            Self::IsUndone => ("is undone", "warn"),
            Self::Undone => ("undone", "warn"),
        }
    }
}

/// The steps from top to bottom, with why one has failed.
pub fn list(order: &OrderId, steps: &[Step]) -> Markup {
    html! {
        ol.steps aria-label={ "Steps of the checkout of " (order) } {
            @for step in steps {
                @let (word, class) = step.state.word();
                @if step.kind == "pivot" {
                    li.pivot { "Pivot: what is before is not undone any more" @if step.state == State::Done { " (passed)" } }
                } @else {
                    li class=(class) {
                        div {
                            strong { (step.name) } " "
                            span.kind { (step.kind) @if step.has_undo { ", can be undone" } @if step.calls > 1 { ", " (step.calls) " calls" } }
                            @if let State::Failed(why, again) = &step.state {
                                div { (why) @if let Some(again) = again { " · again at " (time_utc(*again)) } }
                            }
                        }
                        span class={ "state " (class) } { (word) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use annals::{EventId, Position, StreamId, StreamVersion, Tenant};
    use serde_json::Value;

    use super::*;

    const OUTLINE: &str = "local  place, undo\nremote charge, after place, undo\nlocal  pay, after charge, no undo: it is cancelled\npivot  pivot, after pay\n";

    fn states(events: Vec<SagaEvent>) -> Vec<&'static str> {
        let stream = StreamId::new(Tenant::new("alpha").expect("a tenant"), "saga", "checkout-o-1").expect("a stream");
        let recorded = |event| {
            let id = EventId::new(annals::engine::IdSource::next_id(&annals::engine::TimeOrderedIds)).expect("an id");
            Recorded::new(event, stream.clone(), StreamVersion::NONE, Position::START, id, Timestamp::UNIX_EPOCH)
        };
        let events: Vec<_> = events.into_iter().map(recorded).collect();
        after(Some(OUTLINE), events.iter()).iter().map(|step| step.state.word().0).collect()
    }

    fn begun(step: &str, direction: Direction) -> SagaEvent {
        SagaEvent::Begun { step: step.to_owned(), direction, attempt: 1 }
    }

    fn succeeded(step: &str, direction: Direction) -> SagaEvent {
        SagaEvent::Succeeded { step: step.to_owned(), direction, attempt: 1, output: Value::Null }
    }

    #[test]
    fn a_step_is_as_its_last_event_says() {
        use Direction::{Do, Undo};
        assert_eq!(states(vec![]), ["waits"; 4]);
        let mut events = vec![succeeded("place", Do), begun("charge", Do)];
        assert_eq!(states(events.clone()), ["done", "under way", "waits", "waits"]);
        events.extend([succeeded("charge", Do), succeeded("pay", Do), SagaEvent::PivotPassed]);
        assert_eq!(states(events.clone()), ["done"; 4]);
        events.extend([begun("charge", Undo), succeeded("charge", Undo), begun("place", Undo)]);
        assert_eq!(states(events), ["is undone", "undone", "done", "done"]);
    }

    #[test]
    fn what_a_person_has_skipped_has_not_failed_and_what_is_retried_waits() {
        let failed = SagaEvent::Refused {
            step: "charge".to_owned(),
            direction: Direction::Do,
            attempt: 1,
            reason: "it is closed".to_owned(),
            may_have_happened: false,
        };
        let decided = |intervention| SagaEvent::Intervened {
            intervention,
            actor: "carol".to_owned(),
            reason: "it is done".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            request: None,
            until: None,
        };
        let after = |events: Vec<SagaEvent>| states(events)[1];
        assert_eq!(after(vec![failed.clone()]), "failed");
        assert_eq!(after(vec![failed.clone(), decided(Intervention::Skip)]), "skipped");
        assert_eq!(after(vec![failed, decided(Intervention::Retry)]), "waits");
    }

    #[test]
    fn an_outline_says_which_steps_can_be_undone() {
        let undo: Vec<bool> = steps(OUTLINE).iter().map(|step| step.has_undo).collect();
        assert_eq!(undo, [true, true, false, false]);
    }
}
