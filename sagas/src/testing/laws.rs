//! What holds for every saga, whatever it does.

use std::collections::{BTreeMap, BTreeSet};

use super::world::Ran;
use crate::definition::{Definition, Kind, Undo};
use crate::event::{Direction, Intervention, SagaEvent};
use crate::instance::Status;

/// The first law that a run breaks.
pub(crate) fn broken<C>(definition: &Definition<C>, ran: &Ran) -> Option<String> {
    let status = match &ran.status {
        Err(error) => return Some(format!("it could not be run: {error}")),
        Ok(status) => status.status,
    };
    if !matches!(status, Status::Completed | Status::Compensated | Status::Stuck) {
        return Some(format!("it ended neither completed nor compensated nor stuck, but {status:?}"));
    }
    let mut keys = BTreeMap::new();
    for (of, key) in &ran.keys {
        let first = keys.entry(of).or_insert(key);
        if *first != key {
            return Some(format!("`{}` {} has the keys `{first}` and `{key}`", of.0, of.1));
        }
    }
    if keys.values().collect::<BTreeSet<_>>().len() != keys.len() {
        return Some("two steps have the same key".to_owned());
    }
    order(definition, &ran.events).or_else(|| undone(definition, &ran.events, status))
}

/// Intents and outcomes come in an order that makes sense.
fn order<C>(definition: &Definition<C>, events: &[SagaEvent]) -> Option<String> {
    let mut compensating = false;
    let mut pivot_passed = false;
    let mut open = BTreeSet::new();
    let mut with_effect = BTreeSet::new();
    let mut answered = BTreeSet::new();
    for event in events {
        match event {
            SagaEvent::CompensationBegun { .. } => compensating = true,
            SagaEvent::Intervened {
                intervention: Intervention::Approve { step } | Intervention::Reject { step },
                ..
            } if compensating || !answered.insert(step) => {
                return Some(format!("`{step}` was answered twice, or during the compensation"));
            }
            SagaEvent::PivotPassed => pivot_passed = true,
            SagaEvent::Begun { step, direction: Direction::Do, attempt } => {
                if compensating {
                    return Some(format!("`{step}` was begun during the compensation"));
                }
                open.insert((step, Direction::Do, *attempt));
            }
            SagaEvent::Begun { step, direction: Direction::Undo, attempt } => {
                if pivot_passed {
                    return Some(format!("`{step}` was undone after the pivot"));
                }
                if open.iter().any(|(of, direction, _)| *of == step && *direction == Direction::Do) {
                    return Some(format!("`{step}` was undone while a call of it was under way"));
                }
                if let Some(later) = later_than(definition, step).find(|later| with_effect.contains(later)) {
                    return Some(format!("`{step}` was undone before `{later}`"));
                }
                open.insert((step, Direction::Undo, *attempt));
            }
            SagaEvent::Succeeded { step, direction, attempt, .. }
            | SagaEvent::Refused { step, direction, attempt, .. }
            | SagaEvent::Failed { step, direction, attempt, .. } => {
                if *attempt > 0 && !open.remove(&(step, *direction, *attempt)) {
                    return Some(format!("attempt {attempt} of `{step}` {direction} has an outcome and no intent"));
                }
                if *attempt == 0 && compensating && *direction == Direction::Do {
                    return Some(format!("`{step}` was done during the compensation"));
                }
                match (event, direction) {
                    (SagaEvent::Succeeded { .. }, Direction::Undo) => {
                        with_effect.remove(step.as_str());
                    }
                    (
                        SagaEvent::Succeeded { .. }
                        | SagaEvent::Refused { may_have_happened: true, .. }
                        | SagaEvent::Failed { may_have_happened: true, .. },
                        Direction::Do,
                    ) if has_undo(definition, step) => {
                        with_effect.insert(step.as_str());
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    open.into_iter().next().map(|(step, direction, attempt)| {
        format!("attempt {attempt} of `{step}` {direction} has no outcome, although the saga has ended")
    })
}

/// What ends compensated has undone everything that has an undo and may have happened; what ends completed has done
/// every step.
fn undone<C>(definition: &Definition<C>, events: &[SagaEvent], status: Status) -> Option<String> {
    let succeeded = |name: &str, wanted: Direction| {
        events.iter().any(|event| {
            matches!(event, SagaEvent::Succeeded { step, direction, .. } if step == name && *direction == wanted)
        })
    };
    let may_have_happened = |name: &str| {
        events.iter().any(|event| match event {
            SagaEvent::Succeeded { step, direction: Direction::Do, .. } => step == name,
            SagaEvent::Refused { step, direction: Direction::Do, may_have_happened, .. }
            | SagaEvent::Failed { step, direction: Direction::Do, may_have_happened, .. } => {
                step == name && *may_have_happened
            }
            _ => false,
        })
    };
    definition.steps().iter().filter(|step| !matches!(step.kind, Kind::Pivot)).find_map(|step| match status {
        Status::Completed if !succeeded(&step.name, Direction::Do) => {
            Some(format!("it is completed, and `{}` was not done", step.name))
        }
        Status::Compensated
            if has_undo(definition, &step.name)
                && may_have_happened(&step.name)
                && !succeeded(&step.name, Direction::Undo) =>
        {
            Some(format!("it is compensated, and `{}` may have happened and was not undone", step.name))
        }
        _ => None,
    })
}

fn has_undo<C>(definition: &Definition<C>, name: &str) -> bool {
    definition.find(name).is_some_and(|step| !matches!(step.undo, Undo::Nothing(_)))
}

/// The steps that need `name`, directly or not.
fn later_than<'d, C>(definition: &'d Definition<C>, name: &str) -> impl Iterator<Item = &'d str> {
    let steps = definition.steps();
    let mut later = vec![false; steps.len()];
    for index in 0..steps.len() {
        later[index] = steps[index].after.iter().any(|&before| later[before] || steps[before].name == name);
    }
    steps.iter().zip(later).filter(|(_, later)| *later).map(|(step, _)| step.name.as_str())
}
