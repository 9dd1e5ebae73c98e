//! Leases: one owner at a time, whose successor fences it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;
use uuid::Uuid;

use super::{Backend, LookUp, MODEL, checkpoint, incarnation, prepare, row, shape_of, unit, work};
use crate::database::{Model, Moved, Paused, Place, ReadModels, Runner, Survey, UnitId, Work};
use crate::error::StartError;
use crate::shape::Shape;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(150);
const SECOND: Model = Model { version: 2, ..MODEL };

fn runner(number: u128) -> Runner {
    let runs = vec![("everything", 1), ("everything", 2)];
    Runner { id: Uuid::from_u128(number), name: format!("runner {number}"), runs, stopped: Vec::new() }
}

/// The epoch by which the runner has claimed the unit; `None` if it could not.
async fn claim(models: &dyn ReadModels, number: u128, unit: UnitId, lease: Duration) -> Option<i64> {
    let claimed = models.claim(&runner(number), &[unit], lease).await.unwrap();
    claimed.first().map(|claimed| {
        assert_eq!(claimed.unit, unit);
        claimed.epoch
    })
}

/// Moves the first slot of a model by some owner, from its checkpoint to the next.
async fn commit(models: &dyn ReadModels, model: Model, epoch: i64) -> Moved {
    let at = models.checkpoint(&model).await.unwrap().expect("it was prepared");
    let next = at.position.get() + 1;
    let from = Place { slot: 0, epoch, checkpoint: at };
    let part = Work { model, from, ..work(0, next, vec![row("a", next, 1.0)], vec![]) };
    models.commit(&[&part], NOW).await.unwrap()[0]
}

fn owner_in(survey: &Survey, unit: UnitId) -> Option<Uuid> {
    survey.units.iter().find(|state| state.unit == unit).expect("it is listed").owner
}

pub(super) async fn a_unit_has_one_owner_and_the_next_one_fences_it(backend: &dyn Backend) {
    prepare(backend, &MODEL).await.unwrap();
    let (first, second) = (backend.handle(), backend.handle());
    let unit = unit(&MODEL);
    let old = claim(&*first, 1, unit, LONG).await.expect("nobody has it");
    assert_eq!(claim(&*second, 2, unit, LONG).await, None);
    assert_eq!(claim(&*first, 1, unit, LONG).await, None, "nor twice by one");
    assert_eq!(commit(&*first, MODEL, old).await, Moved::Done);
    assert_eq!(commit(&*second, MODEL, old - 1).await, Moved::Overtaken, "a former owner owns nothing");
    first.release(&[(unit, old)]).await.unwrap();
    assert_eq!(commit(&*first, MODEL, old).await, Moved::Done, "nobody else has it, so nothing is fenced");
    let new = claim(&*second, 2, unit, LONG).await.expect("it was released");
    assert!(new > old);
    assert_eq!(commit(&*first, MODEL, old).await, Moved::Overtaken);
    assert_eq!(commit(&*second, MODEL, new).await, Moved::Done);
    // What it once owned is not its to release.
    first.release(&[(unit, old)]).await.unwrap();
    assert_eq!(claim(&*first, 1, unit, LONG).await, None);
}

pub(super) async fn whoever_seizes_a_unit_keeps_it_only_until_it_is_seized_again(backend: &dyn Backend) {
    prepare(backend, &MODEL).await.unwrap();
    let models = backend.handle();
    let (unit, [one, other]) = (unit(&MODEL), [1, 2].map(Uuid::from_u128));
    let owner = claim(&*models, 1, unit, LONG).await.expect("nobody has it");
    let first = models.seize(unit, one, None, LONG).await.unwrap().expect("also if another has it");
    assert_eq!(commit(&*models, MODEL, owner).await, Moved::Overtaken);
    let longer = models.seize(unit, one, Some(first.epoch), LONG).await.unwrap().expect("it is still its own");
    let second = models.seize(unit, other, None, LONG).await.unwrap().expect("also if another has it");
    assert_eq!(models.seize(unit, one, Some(longer.epoch), LONG).await.unwrap(), None, "it is not its own any more");
    assert_eq!(commit(&*models, MODEL, second.epoch).await, Moved::Done, "and the other one still has it");
    models.pause("everything", "somebody", NOW).await.unwrap();
    assert_eq!(models.seize(unit, other, None, LONG).await.unwrap(), None);
}

pub(super) async fn a_lease_ends_by_itself_unless_it_is_renewed(backend: &dyn Backend) {
    prepare(backend, &MODEL).await.unwrap();
    let models = backend.handle();
    let unit = unit(&MODEL);
    claim(&*models, 1, unit, SHORT).await.expect("nobody has it");
    for _ in 0..4 {
        sleep(SHORT / 2).await;
        let survey = models.survey(&runner(1), SHORT * 4).await.unwrap();
        assert_eq!(owner_in(&survey, unit), Some(Uuid::from_u128(1)));
        assert_eq!(claim(&*models, 2, unit, LONG).await, None, "it was renewed");
    }
    sleep(SHORT * 5).await;
    let survey = models.survey(&runner(2), LONG).await.unwrap();
    assert_eq!(owner_in(&survey, unit), None);
    assert_eq!(survey.runners.len(), 1, "the first has not said for long that it is alive: {survey:?}");
    assert!(claim(&*models, 2, unit, LONG).await.is_some());
}

pub(super) async fn runners_see_each_other_until_they_leave(backend: &dyn Backend) {
    prepare(backend, &MODEL).await.unwrap();
    let models = backend.handle();
    let stopped = Runner { stopped: vec![unit(&MODEL)], ..runner(2) };
    models.survey(&stopped, LONG).await.unwrap();
    let other = Runner { runs: vec![("something_else", 1)], ..runner(3) };
    models.survey(&other, LONG).await.unwrap();
    let survey = models.survey(&runner(1), LONG).await.unwrap();
    let names: Vec<&str> = survey.runners.iter().map(|runner| runner.name.as_str()).collect();
    assert_eq!(names, ["runner 1", "runner 2", "runner 3"]);
    let elsewhere = Runner { runs: vec![("something_else", 1)], ..runner(2) };
    assert!(claim(&*models, 2, unit(&MODEL), LONG).await.is_some());
    for (asking, sees) in [(runner(1), 1), (elsewhere, 0)] {
        let seen = models.survey(&asking, LONG).await.unwrap();
        assert_eq!(seen.runners.iter().map(|runner| runner.units).collect::<Vec<_>>(), [0, 1, 0], "{seen:?}");
        assert_eq!(seen.units.len(), sees, "what it does not run is counted, not listed");
    }
    models.survey(&stopped, LONG).await.unwrap();
    let can: Vec<bool> = survey.runners.iter().map(|runner| runner.can_run(&unit(&MODEL))).collect();
    assert_eq!(can, [true, false, false]);
    assert!(survey.runners[1].can_run(&UnitId { slot: 1, ..unit(&MODEL) }), "only one slot has stopped there");
    models.leave(&runner(2)).await.unwrap();
    assert_eq!(models.survey(&runner(1), LONG).await.unwrap().runners.len(), 2);
}

pub(super) async fn a_pause_holds_for_every_version_until_it_is_ended(backend: &dyn Backend) {
    prepare(backend, &MODEL).await.unwrap();
    let models = backend.handle();
    let owner = claim(&*models, 1, unit(&MODEL), LONG).await.expect("nobody has it");
    let since = Timestamp::from_second(1_000).unwrap();
    let paused = Some(Paused { by: "somebody".to_owned(), since });
    assert_eq!(models.pause("everything", "somebody", since).await.unwrap(), paused);
    assert_eq!(commit(&*models, MODEL, owner).await, Moved::Overtaken);
    assert_eq!(models.pause("everything", "another", NOW).await.unwrap(), paused, "it stays as it was");
    assert_eq!(models.pause("nothing", "somebody", NOW).await.unwrap(), None);
    prepare(backend, &SECOND).await.unwrap();
    for model in [MODEL, SECOND] {
        assert_eq!(claim(&*models, 2, unit(&model), LONG).await, None, "{}", model.version);
    }
    let survey = models.survey(&runner(1), LONG).await.unwrap();
    assert!(survey.units.iter().all(|state| state.paused == paused && state.owner.is_none()), "{survey:?}");
    assert_eq!(survey.units.len(), 2);
    assert!(models.resume("everything").await.unwrap());
    assert!(!models.resume("everything").await.unwrap());
    for model in [MODEL, SECOND] {
        let epoch = claim(&*models, 2, unit(&model), LONG).await.expect("it goes on");
        assert_eq!(commit(&*models, model, epoch).await, Moved::Done);
    }
}

pub(super) async fn slots_have_owners_and_places_of_their_own(backend: &dyn Backend) {
    let models = backend.handle();
    models.migrate().await.unwrap();
    let shape = Shape { slots: 3, ..shape_of(&MODEL) };
    let prepared = models.prepare(&MODEL, &shape, incarnation(), NOW).await.unwrap();
    assert_eq!(prepared.places.iter().map(|place| place.slot).collect::<Vec<_>>(), [0, 1, 2]);
    let slot = |slot| UnitId { slot, ..unit(&MODEL) };
    let claimed = models.claim(&runner(1), &[slot(2), slot(0)], LONG).await.unwrap();
    assert_eq!(claimed.len(), 2);
    assert!(claim(&*models, 2, slot(1), LONG).await.is_some());
    // One commit moves several slots, which write rows of their own.
    let part = |at: u32, to: i64| {
        let from = prepared.places[at as usize];
        Work { from: Place { epoch: 1, ..from }, ..work(0, to, vec![row("a", i64::from(at), 1.0)], vec![]) }
    };
    let (one, other) = (part(2, 7), part(0, 5));
    assert_eq!(models.commit(&[&one, &other], NOW).await.unwrap(), [Moved::Done, Moved::Done]);
    let places = models.places(&[slot(0), slot(1), slot(2), slot(3)]).await.unwrap();
    let positions: Vec<_> = places.iter().map(|place| place.map(|place| place.checkpoint.position.get())).collect();
    assert_eq!(positions, [Some(5), Some(0), Some(7), None]);
    // A name shows what all slots have read.
    let shown = models.shown(&[MODEL]).await.unwrap().remove(0).expect("it is there");
    assert_eq!(
        shown.places.iter().map(|(slot, at)| (*slot, at.position.get())).collect::<Vec<_>>(),
        [(0, 5), (1, 0), (2, 7)]
    );
    assert_eq!(models.prepare(&MODEL, &shape, incarnation(), NOW).await.unwrap().places[2].checkpoint, checkpoint(7));
    let refused = models.prepare(&MODEL, &shape_of(&MODEL), incarnation(), NOW).await.unwrap_err();
    assert!(matches!(refused, StartError::SlotsChanged { stored: 3, declared: 1, .. }), "{refused:?}");
}
