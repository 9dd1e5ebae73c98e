//! Instances that wait for a person, in a runner.

use annals_sagas::{By, Intervention, SagaError, SagaEvent, SagasExt, Status};

use super::stores::{Place, on_every_store};
use super::world::{Order, SOON, World, id, orders, recorded};

on_every_store!(an_undo_that_is_refused_waits_for_a_person_and_the_steps_before_it_with_it);

async fn an_undo_that_is_refused_waits_for_a_person_and_the_steps_before_it_with_it(place: impl Place) {
    let (store, world) = (place.open().await, World::default());
    let sagas = store.sagas().with(orders(&world)).start().await.expect("it starts");
    let (stuck, id) = (id("o-1"), id("o-1"));
    sagas.start(&stuck, Order::refusing("refund")).await.expect("it is new");
    assert_eq!(sagas.wait_for(&stuck, SOON).await.expect("it ends").status, Status::Completed);
    let by = |actor: &str| By::new(actor, "the customer called").expect("it is sound");
    let refused = sagas.intervene(&id, Intervention::Retry, &by("ada")).await;
    assert!(matches!(refused, Err(SagaError::WrongStatus { status: Status::Completed, .. })), "{refused:?}");

    let id = super::world::id("o-2");
    let order = Order { refuses: Some("refund".to_owned()), takes_ms: 200 };
    sagas.start(&id, order).await.expect("it is new");
    sagas.intervene(&id, Intervention::Cancel, &by("ada")).await.expect("it runs");
    let status = sagas.wait_for(&id, SOON).await.expect("it ends");
    assert_eq!((status.status, status.stuck_at.as_deref()), (Status::Stuck, Some("charge")));
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    let rows = sagas.stuck(10).await.expect("it is asked");
    assert_eq!((rows.len(), rows[0].current_step.as_deref()), (1, Some("charge")));
    assert_eq!(rows[0].last_error.as_deref(), Some("undo: `charge` was refused: not today"));

    sagas.intervene(&id, Intervention::Retry, &by("ada")).await.expect("it is stuck");
    let again = async {
        while recorded(&store, &id).await.expect("it is read").0.iter().filter(|event| is_stuck(event)).count() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("it is refused again");
    assert_eq!(world.calls("o-2/charge/undo"), [2], "under the same key");
    let would = sagas.preview(&id, Intervention::Skip, &by("bob")).await.expect("it is stuck");
    assert!(matches!(would.last(), Some(SagaEvent::Compensated)), "{would:?}");
    sagas.intervene(&id, Intervention::Skip, &by("bob")).await.expect("it is stuck");
    let status = sagas.wait_for(&id, SOON).await.expect("it ends");
    assert_eq!(status.status, Status::Compensated);
    assert_eq!(
        status.decision.map(|last| (last.intervention, last.actor)),
        Some((Intervention::Skip, "bob".to_owned()))
    );
    sagas.close().await;
}

fn is_stuck(event: &SagaEvent) -> bool {
    matches!(event, SagaEvent::Stuck { .. })
}
