//! Instances that an earlier build began.

use std::time::Duration;

use annals_eventstore::{SystemClock, Tenant};
use annals_resilience::Policy;
use annals_sagas::{By, Definition, Engine, Intervention, Saga, SagaError, SagasExt, Status};

use super::stores::{Place, on_every_store};
use super::world::{Order, SOON, World, id, orders, orders_with};

on_every_store!(
    instances_that_do_not_fit_a_build_are_found_before_it_is_deployed_and_stuck_after_it,
    instances_whose_saga_is_gone_are_reported_and_go_on_when_it_is_back,
);

/// Waits for a signal before the step that is renamed.
fn signalled(reserve: &'static str) -> Definition<u32> {
    let policy = Policy::fast("stock").build().expect("it is sound");
    Saga::<u32>::new("signalled")
        .signal::<u32>("paid")
        .remote(reserve, &policy, |_, _| async { Ok(()) })
        .no_undo("nothing is kept")
        .build()
        .expect("it is sound")
}

async fn instances_that_do_not_fit_a_build_are_found_before_it_is_deployed_and_stuck_after_it(place: impl Place) {
    let (store, world) = (place.open().await, World::default());
    let sagas = store.sagas().with(orders(&world)).with(signalled("reserve")).start().await.expect("it starts");
    sagas.start(&id("waits"), 1_u32).await.expect("it is new");
    sagas.start(&id("ended"), Order::default()).await.expect("it is new");
    sagas.wait_for(&id("ended"), SOON).await.expect("it ends");
    sagas.start(&id("behind"), Order::refusing("ship")).await.expect("it is new");
    let (by, slowly) = (By::new("ada", "as before").expect("it is sound"), 300);
    let undoing = Order { refuses: Some("release".to_owned()), takes_ms: slowly };
    sagas.start(&id("undoing"), undoing).await.expect("it is new");
    sagas.wait_for(&id("behind"), SOON).await.expect("it is stuck");
    called(&world, "undoing/reserve/do").await;
    sagas.intervene(&id("undoing"), Intervention::Cancel, &by).await.expect("it runs");
    assert_eq!(sagas.wait_for(&id("undoing"), SOON).await.expect("it is stuck").status, Status::Stuck);
    sagas.close().await;
    // A process ends while it calls.
    let engine = Engine::new(store.clone(), orders(&world), SystemClock);
    let open = id("open");
    engine.start(&open, Order { refuses: None, takes_ms: slowly }).await.expect("it is new");
    tokio::select! {
        _ = engine.run(&open) => panic!("it takes long"),
        () = called(&world, "open/reserve/do") => {}
    }

    let new = || store.sagas().with(orders_with("hold", &world)).with(signalled("hold"));
    let unfit = new().check().await.expect("it is read");
    let found: Vec<_> = unfit.iter().map(|unfit| (unfit.id.to_string(), unfit.status)).collect();
    let expected = [("behind", Status::Stuck), ("open", Status::Running), ("undoing", Status::Stuck)];
    assert_eq!(found, expected.map(|(id, status)| (id.to_owned(), status)));
    assert_eq!(unfit[0].reason, "its step `reserve` is not in this build of the saga");
    assert!(
        store.sagas().with(orders(&world)).with(signalled("reserve")).check().await.expect("it is read").is_empty()
    );

    let sagas = new().start().await.expect("it starts");
    sagas.signal(&id("waits"), "paid", 1).await.expect("it fits");
    assert_eq!(sagas.wait_for(&id("waits"), SOON).await.expect("it ends").status, Status::Completed);
    let status = sagas.wait_for(&id("open"), SOON).await.expect("it does not fit");
    assert_eq!((status.status, status.reason), (Status::Stuck, Some(unfit[0].reason.clone())));
    sagas.close().await;
    assert_eq!(world.calls("/hold/do"), [0; 0], "nothing was called");

    let sagas = store.sagas().with(orders(&world)).start().await.expect("it starts");
    sagas.intervene(&id("open"), Intervention::Retry, &by).await.expect("it is stuck");
    let ended = sagas.wait_for(&id("open"), SOON).await.expect("it ends").status;
    // The call of which nothing is known is made again, under its key.
    assert_eq!((ended, world.calls("open/reserve/do")), (Status::Completed, vec![2]));
    sagas.close().await;
}

async fn called(world: &World, key: &str) {
    let called = async {
        while world.calls(key).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, called).await.expect("it is called");
}

async fn instances_whose_saga_is_gone_are_reported_and_go_on_when_it_is_back(place: impl Place) {
    let (store, world) = (place.open().await, World::default());
    let engine = Engine::new(store.clone(), orders(&world), SystemClock);
    engine.start(&id("o-1"), Order::default()).await.expect("it is new");
    // The table exists since the build before.
    let sagas = store.sagas().with(signalled("reserve")).start().await.expect("it starts");
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    sagas.close().await;

    let sagas = store.sagas().with(signalled("reserve")).start().await.expect("it starts");
    let reported = async {
        while sagas.runner().missing != ["order"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, reported).await.expect("it is reported");
    let unknown = sagas.signal(&id("o-1"), "paid", 1).await;
    assert!(matches!(unknown, Err(SagaError::NoDefinition { .. })), "{unknown:?}");
    assert_eq!(sagas.status(&id("o-1")).await.expect("it is there").status, Status::Running);
    let north = Tenant::new("north").expect("it is a name");
    let of_north = Engine::new(store.clone(), orders(&world), SystemClock).tenant(north.clone());
    of_north.start(&id("n-1"), Order::default()).await.expect("it is new");
    let unfit = store.sagas().with(signalled("reserve")).check().await.expect("it is read");
    let found: Vec<_> = unfit.iter().map(|unfit| (unfit.tenant.clone(), unfit.id.to_string())).collect();
    assert_eq!(found, [(Tenant::default(), "o-1".to_owned()), (north.clone(), "n-1".to_owned())]);
    assert!(unfit.iter().all(|unfit| unfit.reason == "this build has no saga `order`"), "{unfit:?}");
    let other = Saga::<u32>::new("order").signal::<u32>("paid").build().expect("it is sound");
    let unfit = store.sagas().with(other).check().await.expect("it is read");
    assert!(unfit[0].reason.starts_with("its data does not fit this build: invalid type: map"), "{unfit:?}");
    sagas.close().await;

    let sagas = store.sagas().with(signalled("reserve")).with(orders(&world)).start().await.expect("it starts");
    assert_eq!(sagas.wait_for(&id("o-1"), SOON).await.expect("it ends").status, Status::Completed);
    assert_eq!(sagas.data::<Order>(&id("o-1")).await.expect("it fits").takes_ms, 0);
    let other = sagas.data::<u32>(&id("o-1")).await;
    assert!(matches!(&other, Err(SagaError::Invalid(invalid)) if invalid.field == "data"), "{other:?}");
    // A signal is for the instance of its tenant.
    let (north, waits) = (sagas.tenant(north), id("waits"));
    for sagas in [&sagas, &north] {
        sagas.start(&waits, 1_u32).await.expect("it is new");
    }
    north.signal(&waits, "paid", 1).await.expect("it fits");
    assert_eq!(north.wait_for(&waits, SOON).await.expect("it ends").status, Status::Completed);
    assert!(sagas.status(&waits).await.expect("it is there").done.is_empty());
    sagas.close().await;
}
