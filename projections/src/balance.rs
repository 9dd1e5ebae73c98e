//! Which units a process claims and which it gives back, so that the processes that are there share the work. Pure: every
//! process counts all units of all others, also of projections that it does not run itself, so that none gives back what
//! another gave it. A difference between two surveys costs a round, never a unit.

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
/// - Of those that could move, it is one of the projection whose slots are shared the least, so that several work on it.
pub(crate) fn plan(me: Uuid, survey: &Survey, free_before: &BTreeSet<UnitId>) -> Plan {
    let mut loads: BTreeMap<Uuid, usize> = survey.runners.iter().map(|runner| (runner.id, runner.units)).collect();
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
    let of = |runner: &Uuid, unit: &UnitId| {
        let is_of = |(other, owner): &(&UnitId, &Uuid)| *owner == runner && other.projection == unit.projection;
        owners.iter().filter(is_of).count()
    };
    moves.max_by_key(|(unit, from, to)| (loads[from] - loads[to], of(from, unit).saturating_sub(of(to, unit))))
}

#[cfg(test)]
mod tests {
    use annals_eventstore::{Checkpoint, Incarnation};
    use fastrand::Rng;

    use super::*;
    use crate::database::LeaseState;

    /// The truth that surveys look at: who owns what, and who is alive.
    struct World {
        owners: BTreeMap<UnitId, Option<Uuid>>,
        runners: Vec<RunnerState>,
        free_before: BTreeMap<Uuid, BTreeSet<UnitId>>,
        moves: usize,
    }

    const ALL: [(&str, u32); 2] = [("single", 1), ("split", 1)];

    fn unit(slot: u32) -> UnitId {
        let (projection, version) = ALL[usize::from(!slot.is_multiple_of(3))];
        UnitId { projection, version, slot }
    }

    fn runner(id: Uuid, runs: &[(&'static str, u32)]) -> RunnerState {
        RunnerState { id, name: String::new(), units: 0, runs: runs.to_vec(), stopped: Vec::new() }
    }

    impl World {
        /// What one of the runners sees, which runs `runs`.
        fn survey(&self, runs: &[(&'static str, u32)]) -> Survey {
            let checkpoint = Checkpoint::start(Incarnation(Uuid::nil()));
            let is_alive = |owner: &Uuid| self.runners.iter().any(|runner| runner.id == *owner);
            let state = |(unit, owner): (&UnitId, &Option<Uuid>)| LeaseState {
                unit: *unit,
                checkpoint,
                epoch: 0,
                owner: owner.filter(is_alive),
                paused: None,
            };
            let is_run = |projection: &str| runs.iter().any(|(own, _)| *own == projection);
            let units = self.owners.iter().filter(|(unit, _)| is_run(unit.projection)).map(state);
            let mut runners = self.runners.clone();
            for runner in &mut runners {
                runner.runs.retain(|(projection, _)| is_run(projection));
            }
            let owners: Vec<Uuid> = self.owners.values().flatten().copied().collect();
            Survey::new(units.collect(), runners, &owners)
        }

        /// What one runner does, who sees a survey that may be as old as the round.
        fn act(&mut self, me: Uuid, survey: &Survey) {
            let plan = plan(me, survey, self.free_before.get(&me).unwrap_or(&BTreeSet::new()));
            self.free_before.insert(me, free(survey));
            for unit in plan.claim {
                let alive = |owner: &Uuid| self.runners.iter().any(|runner| runner.id == *owner);
                if self.owners[&unit].is_none_or(|owner| !alive(&owner)) {
                    self.owners.insert(unit, Some(me));
                    self.moves += 1;
                }
            }
            for unit in plan.give_back {
                if self.owners[&unit] == Some(me) {
                    self.owners.insert(unit, None);
                }
            }
        }
    }

    /// However processes come and go, and however old what they have seen is: after a few rounds every unit has an owner that can
    /// run it, the numbers differ by one at most where all run the same, and nothing moves any more.
    #[test]
    fn the_work_is_shared_evenly_after_a_few_rounds_and_then_rests() {
        let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
        println!("ANNALS_SEED={seed}");
        let mut rng = Rng::with_seed(seed);
        for _ in 0..300 {
            let units = rng.u32(1..30);
            let same = rng.bool();
            let owners = (0..units).map(|slot| (unit(slot), None)).collect();
            let mut world = World { owners, runners: Vec::new(), free_before: BTreeMap::new(), moves: 0 };
            let mut next = 0;
            for _ in 0..rng.usize(1..12) {
                if world.runners.is_empty() || rng.u32(..3) > 0 {
                    next += 1;
                    let runs =
                        if same || next == 1 { &ALL[..] } else { [&ALL[..1], &ALL[1..], &ALL[..]][rng.usize(..3)] };
                    world.runners.push(runner(Uuid::from_u128(rng.u128(..)), runs));
                    world.runners.sort_by_key(|runner| runner.id);
                } else {
                    let gone = rng.usize(..world.runners.len());
                    if same || world.runners[gone].runs.len() == 1 {
                        world.runners.remove(gone);
                    }
                }
                rounds(&mut world, &mut rng, 2);
            }
            if world.runners.is_empty() {
                continue;
            }
            rounds(&mut world, &mut rng, 40);
            let survey = world.survey(&ALL);
            let owner = |state: &LeaseState| state.owner.expect("each unit has an owner");
            let mut loads: BTreeMap<Uuid, usize> = world.runners.iter().map(|runner| (runner.id, 0)).collect();
            for state in &survey.units {
                let of = world.runners.iter().find(|runner| runner.id == owner(state)).expect("it is alive");
                assert!(of.can_run(&state.unit));
                loads.entry(of.id).and_modify(|load| *load += 1);
            }
            let most = loads.values().max().expect("there is one");
            assert!(!same || loads.values().all(|load| load + 1 >= *most), "{loads:?}");
            let moves = world.moves;
            rounds(&mut world, &mut rng, 5);
            assert_eq!(world.moves, moves, "nothing moves without a reason");
        }
    }

    fn rounds(world: &mut World, rng: &mut Rng, number: usize) {
        for _ in 0..number {
            let mut all = world.runners.clone();
            let old: BTreeMap<Uuid, Survey> = all.iter().map(|me| (me.id, world.survey(&me.runs))).collect();
            rng.shuffle(&mut all);
            for me in all {
                let survey = if rng.bool() { world.survey(&me.runs) } else { old[&me.id].clone() };
                world.act(me.id, &survey);
            }
        }
    }

    /// Slots are there to share the work of one projection: a process that comes takes over some of them, and not others alone.
    #[test]
    fn the_slots_of_each_projection_are_shared() {
        let split = |slot| UnitId { projection: "split", version: 1, slot };
        let others = ["a", "b", "z"].map(|projection| UnitId { projection, version: 1, slot: 0 });
        let units: Vec<UnitId> = (0..4).map(split).chain(others).collect();
        let runs = vec![("split", 1), ("a", 1), ("b", 1), ("z", 1)];
        for newcomer in [0, 2] {
            let runner =
                |id| RunnerState { id, name: String::new(), units: 0, runs: runs.clone(), stopped: Vec::new() };
            let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(newcomer));
            let mut world = World {
                owners: units.iter().map(|unit| (*unit, Some(first))).collect(),
                runners: vec![runner(first), runner(second)],
                free_before: BTreeMap::new(),
                moves: 0,
            };
            world.runners.sort_by_key(|runner| runner.id);
            rounds(&mut world, &mut Rng::with_seed(1), 20);
            let owns = |who: Uuid| world.owners.iter().filter(move |(_, owner)| **owner == Some(who));
            let split = |who| owns(who).filter(|(unit, _)| unit.projection == "split").count();
            assert_eq!((split(first), split(second)), (2, 2), "{:?}", world.owners);
            assert!(owns(second).count() >= 3, "{:?}", world.owners);
        }
    }

    #[test]
    fn a_unit_that_the_least_loaded_does_not_take_is_taken_by_another() {
        let runners = [1, 2].map(|id| runner(Uuid::from_u128(id), &ALL));
        let world = World {
            owners: BTreeMap::from([(unit(1), None)]),
            runners: runners.to_vec(),
            free_before: BTreeMap::new(),
            moves: 0,
        };
        let (survey, second) = (world.survey(&ALL), Uuid::from_u128(2));
        assert_eq!(plan(second, &survey, &BTreeSet::new()), Plan::default());
        assert_eq!(plan(second, &survey, &free(&survey)).claim, [unit(1)]);
    }
}
