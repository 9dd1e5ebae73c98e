//! Which version the stable name of a read model shows.

use annals_eventstore::{Incarnation, Tenant};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Backend, MODEL, checkpoint, incarnation, prepare, shape_of, work};
use crate::database::{Model, Moved, Shows, Switch, Work};
use crate::shape::Shape;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const SECOND: Model = Model { version: 2, ..MODEL };
const THIRD: Model = Model { version: 3, ..MODEL };
const BY_ITSELF: Switch = Switch { even_down: false, foreign: None };
const ON_REQUEST: Switch = Switch { even_down: true, foreign: None };

/// Moves the checkpoint of a model that has applied nothing.
async fn read(backend: &dyn Backend, model: Model, from: i64, to: i64) {
    let moved = backend.handle().commit(&[&Work { model, ..work(from, to, vec![], vec![]) }], NOW).await.unwrap();
    assert_eq!(moved, [Moved::Done]);
}

pub(super) async fn the_name_moves_up_by_itself_and_down_only_on_request(backend: &dyn Backend) {
    for model in [MODEL, SECOND, THIRD] {
        prepare(backend, &model).await.unwrap();
    }
    // Another handle each time, as each process has its own.
    let show = async |model: &Model, how| backend.handle().show(model, how).await.unwrap();
    let shown = async || backend.handle().shown(&[MODEL]).await.unwrap()[0].as_ref().expect("it is there").version;
    assert_eq!((show(&MODEL, BY_ITSELF).await, shown().await), (Shows::This, 1));
    assert_eq!((show(&SECOND, BY_ITSELF).await, shown().await), (Shows::This, 2));
    assert_eq!((show(&MODEL, BY_ITSELF).await, shown().await), (Shows::Stays(2), 2));
    assert_eq!((show(&MODEL, ON_REQUEST).await, shown().await), (Shows::This, 1));
    assert_eq!(
        (show(&SECOND, BY_ITSELF).await, shown().await),
        (Shows::Stays(1), 1),
        "it was taken back from this one"
    );
    assert!(!prepare(backend, &SECOND).await.unwrap().shown);
    assert_eq!((show(&THIRD, BY_ITSELF).await, shown().await), (Shows::This, 3), "but not from this one");
    assert_eq!((show(&SECOND, ON_REQUEST).await, shown().await), (Shows::This, 2));
    assert!(prepare(backend, &SECOND).await.unwrap().shown);
    assert_eq!(backend.shown("select").await, Some(2));
}

/// An event that queries by the name have found is found after a switch too.
pub(super) async fn the_name_never_moves_to_a_version_that_has_read_less(backend: &dyn Backend) {
    for model in [MODEL, SECOND, THIRD] {
        prepare(backend, &model).await.unwrap();
    }
    read(backend, MODEL, 0, 2).await;
    read(backend, SECOND, 0, 1).await;
    for how in [BY_ITSELF, ON_REQUEST] {
        assert_eq!(backend.handle().show(&SECOND, how).await.unwrap(), Shows::Further(checkpoint(2)));
        assert_eq!(backend.handle().show(&THIRD, how).await.unwrap(), Shows::Further(checkpoint(2)));
    }
    assert_eq!(backend.shown("select").await, Some(1));
    read(backend, SECOND, 1, 2).await;
    assert_eq!(backend.handle().show(&SECOND, BY_ITSELF).await.unwrap(), Shows::This);
    // What was read of a log that is gone is no measure.
    let foreign = Switch { foreign: Some(checkpoint(2)), ..BY_ITSELF };
    assert_eq!(backend.handle().show(&THIRD, foreign).await.unwrap(), Shows::This);
    let shown = backend.handle().shown(&[THIRD, MODEL]).await.unwrap();
    assert_eq!(shown[0], shown[1], "both have one name");
    assert_eq!(shown[0].as_ref().unwrap().places[0].1.position.get(), 0);
}

pub(super) async fn other_events_or_another_tenant_are_another_shape(backend: &dyn Backend) {
    prepare(backend, &MODEL).await.unwrap();
    let other = Tenant::new("north").unwrap();
    let shapes = [
        (shape_of(&MODEL), None),
        (Shape::of(MODEL.table, vec!["happened", "happened"], None), None),
        (Shape::of(MODEL.table, vec!["happened", "again", "before"], None), Some("`again` is new, `before` is new;")),
        (
            Shape::of(MODEL.table, vec!["happened\torder"], None),
            Some("`happened of order` is new, `happened` is missing;"),
        ),
        (Shape::of(MODEL.table, vec!["again"], None), Some("`again` is new, `happened` is missing;")),
        (Shape::of(MODEL.table, vec!["happened"], Some(&other)), Some("now wants those of tenant `north`;")),
    ];
    for (shape, refused) in shapes {
        let prepared = backend.handle().prepare(&MODEL, &shape, incarnation(), NOW).await;
        match refused {
            None => assert!(prepared.is_ok()),
            Some(why) => {
                let error = prepared.unwrap_err().to_string();
                assert!(error.contains(why) && error.contains("raise its `VERSION`"), "{error}");
            }
        }
        let raised = Model { version: fastrand::u32(2..), ..MODEL };
        backend.handle().prepare(&raised, &shape, Incarnation(Uuid::from_u128(7)), NOW).await.unwrap();
    }
}
