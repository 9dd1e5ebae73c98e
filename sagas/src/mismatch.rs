//! Whether an instance that an earlier build began can go on in this one.

use crate::definition::{Definition, Kind};
use crate::instance::Instance;

/// Why an instance cannot go on under this definition: each step that was begun must be there with its kind, behind no step
/// that was not done before it.
pub(crate) fn mismatch<C>(definition: &Definition<C>, instance: &Instance) -> Option<String> {
    if definition.name() != instance.saga {
        return Some(format!("it is one of the saga `{}`, not of `{}`", instance.saga, definition.name()));
    }
    instance
        .steps
        .keys()
        .find_map(|name| of_step(definition, instance, name))
        .or_else(|| of_pivot(definition, instance))
}

fn of_step<C>(definition: &Definition<C>, instance: &Instance, name: &str) -> Option<String> {
    let Some(step) = definition.find(name) else {
        return Some(format!("its step `{name}` is not in this build of the saga"));
    };
    let was = instance.steps.get(name).and_then(|state| state.kind)?;
    let is = step.kind.word();
    if was != is {
        return Some(format!("its step `{name}` was begun as {was}, and is {is} in this build"));
    }
    let earlier = step.after.iter().map(|&before| &definition.steps()[before]);
    let missed = earlier.filter(|earlier| match earlier.kind {
        Kind::Pivot => !instance.pivot_passed,
        _ => !done_before(instance, &earlier.name, name),
    });
    missed
        .map(|earlier| {
            format!("its step `{name}` was begun before `{}`, which comes first in this build", earlier.name)
        })
        .next()
}

/// Whether `first` was done before `then` was, or is done if that is not.
fn done_before(instance: &Instance, first: &str, then: &str) -> bool {
    let at = |name: &str| instance.done.iter().position(|done| done == name);
    match (at(first), at(then)) {
        (Some(first), Some(then)) => first < then,
        (first, _) => first.is_some(),
    }
}

fn of_pivot<C>(definition: &Definition<C>, instance: &Instance) -> Option<String> {
    if !instance.pivot_passed {
        return None;
    }
    let Some(pivot) = definition.steps().iter().find(|step| matches!(step.kind, Kind::Pivot)) else {
        return Some("it has passed its pivot, and this build has none".to_owned());
    };
    let earlier = pivot.after.iter().map(|&before| &definition.steps()[before].name);
    let missed = earlier.filter(|name| !instance.done.contains(name));
    missed.map(|name| format!("it has passed its pivot before `{name}`, which comes first in this build")).next()
}
