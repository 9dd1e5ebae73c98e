//! Which units a process claims and which it gives back, so that the processes that are there share the work. Pure: every
//! process computes the same from the same survey, and a difference between two surveys costs a round, never a unit.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::database::{LeaseState, RunnerState, Survey, UnitId};

/// What a process does after a survey.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) claim: Vec<UnitId>,
    pub(crate) give_back: Vec<UnitId>,
}

/// What the runner `me` does. `free_before` are the units that the last survey found free.
///
/// - A free unit goes to the runner with the fewest units, of those that run its projection. If that does not take it, because
///   it has died or has stopped the projection, anyone takes it at the next survey.
/// - A unit moves from a runner to one that has at least two less: so the numbers come to differ by one at most, and stay.
pub(crate) fn plan(me: Uuid, survey: &Survey, free_before: &BTreeSet<UnitId>) -> Plan {
    let mut loads: BTreeMap<Uuid, usize> = survey.runners.iter().map(|runner| (runner.id, 0)).collect();
    for owner in survey.units.iter().filter_map(|state| state.owner) {
        if let Some(load) = loads.get_mut(&owner) {
            *load += 1;
        }
    }
    let mut plan = Plan::default();
    for LeaseState { unit, .. } in survey.units.iter().filter(|state| is_free(state)) {
        let Some(least) = least_loaded(survey, &loads, unit) else { continue };
        let can_take = survey.runners.iter().any(|runner| runner.id == me && runner.can_run(unit));
        let takes = if can_take && free_before.contains(unit) { me } else { least };
        loads.entry(takes).and_modify(|load| *load += 1);
        if takes == me {
            plan.claim.push(*unit);
        }
    }
    let mut owners: BTreeMap<UnitId, Uuid> =
        survey.units.iter().filter_map(|state| state.owner.map(|owner| (state.unit, owner))).collect();
    while let Some((unit, from, to)) = next_move(survey, &loads, &owners) {
        owners.insert(unit, to);
        loads.entry(from).and_modify(|load| *load -= 1);
        loads.entry(to).and_modify(|load| *load += 1);
        if from == me {
            plan.give_back.push(unit);
        }
    }
    plan
}

/// The units that nobody has and somebody may have.
pub(crate) fn free(survey: &Survey) -> BTreeSet<UnitId> {
    survey.units.iter().filter(|state| is_free(state)).map(|state| state.unit).collect()
}

fn is_free(state: &LeaseState) -> bool {
    state.owner.is_none() && state.paused.is_none()
}

/// The runner of a unit's projection that has the fewest units; of several, the first.
fn least_loaded(survey: &Survey, loads: &BTreeMap<Uuid, usize>, unit: &UnitId) -> Option<Uuid> {
    let can_run = survey.runners.iter().filter(|runner| runner.can_run(unit));
    can_run.map(|runner: &RunnerState| runner.id).min_by_key(|id| loads[id])
}

/// The move that evens out the most.
fn next_move(
    survey: &Survey,
    loads: &BTreeMap<Uuid, usize>,
    owners: &BTreeMap<UnitId, Uuid>,
) -> Option<(UnitId, Uuid, Uuid)> {
    let moves = owners.iter().filter_map(|(unit, from)| {
        let (to, load) = (least_loaded(survey, loads, unit)?, loads.get(from)?);
        (loads[&to] + 2 <= *load).then_some((*unit, *from, to))
    });
    moves.max_by_key(|(_, from, to)| loads[from] - loads[to])
}
