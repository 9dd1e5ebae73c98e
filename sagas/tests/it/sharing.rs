//! Several processes run the instances of one store.

use std::time::Duration;

use annals_eventstore::{AsOf, EventStore, MemoryStore, SqliteDatabase, SystemClock, Tenant};
use annals_projections::ProjectionState;
use annals_sagas::{Engine, SagaEvent, SagaInstances, Sagas, SagasExt, Status};
use futures::future::join_all;

use super::stores::{Place, on_every_store};
use super::world::{Order, SOON, World, id, orders, recorded};

const LEASE: Duration = Duration::from_millis(600);

on_every_store!(
    rows_are_the_folds_of_the_streams_and_the_same_after_a_rebuild,
    what_two_processes_start_at_once_is_run_by_one,
    a_process_that_comes_takes_its_share_when_the_calls_under_way_have_ended,
    a_process_that_is_closed_ends_its_calls_and_the_next_one_goes_on_behind_them,
    a_full_process_leaves_instances_in_the_store_until_there_is_room,
);

async fn rows_are_the_folds_of_the_streams_and_the_same_after_a_rebuild(place: impl Place) {
    let (store, world) = (place.open().await, World::default());
    let sagas = store.sagas().with(orders(&world)).start().await.expect("it starts");
    let north = sagas.tenant(Tenant::new("north").expect("it is a name"));
    for number in 0..20 {
        let refuses = ["none", "reserve", "ship", "charge"][number % 4];
        sagas.start(&id(format!("o-{number}")), Order::refusing(refuses)).await.expect("it is new");
        north.start(&id(format!("o-{number}")), Order::refusing("none")).await.expect("it is new");
    }
    for number in 0..20 {
        let of = id(format!("o-{number}"));
        let expected = [Status::Completed, Status::Compensated, Status::Stuck, Status::Compensated][number % 4];
        assert_eq!(sagas.wait_for(&of, SOON).await.expect("it ends").status, expected, "{number}");
        assert_eq!(north.wait_for(&of, SOON).await.expect("it ends").status, Status::Completed);
    }
    let views = sagas.projections();
    views.caught_up(SOON).await.expect("it reads the log");
    for number in 0..20 {
        let of = id(format!("o-{number}"));
        let (status, row) =
            (sagas.status(&of).await.expect("it is there"), sagas.find(&of).await.expect("it is asked"));
        let row = row.expect("it is there");
        assert_eq!((row.status, row.version, row.last_error), (status.status, status.version.get(), status.reason));
        assert_eq!(row.correlation_id, Some(of.to_string()));
    }
    let stuck = sagas.stuck(100).await.expect("it is asked");
    assert!(stuck.len() == 5 && stuck.iter().all(|row| row.current_step.as_deref() == Some("ship")), "{stuck:?}");
    // A handle for one tenant lists the instances of no other.
    assert_eq!(north.stuck(100).await.expect("it is asked"), []);
    assert_eq!(sagas.tenant(Tenant::default()).stuck(4).await.expect("it is asked"), stuck[..4]);
    let missing = north.status(&id("o-99")).await.expect_err("there is none").to_string();
    assert_eq!(missing, "tenant `north` has no saga `o-99`");
    let rows = views.select::<SagaInstances>("", &[]).await.expect("it is asked");
    let head = store.head().await.expect("it is asked").position;
    let anew = views.as_of::<SagaInstances>(AsOf::position(head)).await.expect("it is folded anew");
    assert_eq!((rows.len(), &anew.rows), (40, &rows));
    sagas.close().await;
    store.close().await;
}

async fn what_two_processes_start_at_once_is_run_by_one(place: impl Place) {
    let world = World::default();
    let stores = [place.open().await, place.open().await];
    let first = stores[0].sagas().with(orders(&world)).lease(LEASE).start().await.expect("it starts");
    let ids: Vec<_> = (0..150).map(|number| id(format!("o-{number}"))).collect();
    let start = |sagas: Sagas| {
        let ids = &ids;
        async move {
            for _ in 0..3 {
                let starts = ids.iter().map(|id| sagas.start(id, Order::refusing("charge")));
                join_all(starts).await.into_iter().collect::<Result<Vec<_>, _>>().expect("it is the same");
            }
        }
    };
    let second = async {
        let second = stores[1].sagas().with(orders(&world)).lease(LEASE).start().await.expect("it starts");
        start(second.clone()).await;
        second
    };
    let ((), second) = futures::join!(start(first.clone()), second);
    for id in &ids {
        assert_eq!(second.wait_for(id, SOON).await.expect("it ends").status, Status::Compensated);
        let (events, appends) = recorded(&stores[0], id).await.expect("it is read");
        let begun = events.iter().filter(|event| matches!(event, SagaEvent::Begun { .. })).count();
        assert_eq!((begun, appends), (1, 3), "{events:?}");
    }
    assert_eq!(world.calls("/charge/do"), [1; 150]);
    second.projections().caught_up(SOON).await.expect("it reads the log");
    let due = second.projections().select::<SagaInstances>("wake_at IS NOT NULL", &[]).await.expect("it is asked");
    assert_eq!(due, [], "nobody looks at what has ended");
    for sagas in [first, second] {
        sagas.close().await;
    }
}

async fn a_process_that_comes_takes_its_share_when_the_calls_under_way_have_ended(place: impl Place) {
    let world = World::default();
    let stores = [place.open().await, place.open().await];
    let first = stores[0].sagas().with(orders(&world)).lease(LEASE).start().await.expect("it starts");
    let slowly = Order { refuses: None, takes_ms: 300 };
    let ids: Vec<_> = (0..60).map(|number| id(format!("o-{number}"))).collect();
    for id in &ids {
        first.start(id, slowly.clone()).await.expect("it is new");
    }
    let second = stores[1].sagas().with(orders(&world)).lease(LEASE).start().await.expect("it starts");
    let shared = async {
        while second.runner().slots.len() != 8 || first.runner().slots.len() != 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, shared).await.expect("each has its share");
    for id in &ids {
        assert_eq!(first.wait_for(id, SOON).await.expect("it ends").status, Status::Completed);
    }
    for step in ["charge", "reserve", "ship"] {
        assert_eq!(world.calls(&format!("/{step}/do")), [1; 60], "nobody took over what another process was at");
    }
    // What is started in one and belongs to the other is run by that.
    for number in 60..90 {
        first.start(&id(format!("o-{number}")), Order::default()).await.expect("it is new");
    }
    for number in 60..90 {
        let status = first.wait_for(&id(format!("o-{number}")), SOON).await.expect("it ends").status;
        assert_eq!(status, Status::Completed);
    }
    for sagas in [first, second] {
        sagas.close().await;
    }
}

async fn a_process_that_is_closed_ends_its_calls_and_the_next_one_goes_on_behind_them(place: impl Place) {
    let (store, world) = (place.open().await, World::default());
    let sagas = store.sagas().with(orders(&world)).start().await.expect("it starts");
    let ids: Vec<_> = (0..10).map(|number| id(format!("o-{number}"))).collect();
    // At once and slowly, so that none is at its last step when the last one begins.
    let starts = ids.iter().map(|id| sagas.start(id, Order { refuses: None, takes_ms: 300 }));
    join_all(starts).await.into_iter().collect::<Result<Vec<_>, _>>().expect("they are new");
    let all_called = async {
        while world.calls("/charge/do").len() < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, all_called).await.expect("each is begun");
    sagas.close().await;
    assert!(world.calls("/ship/do").is_empty(), "no further step was begun");
    for id in &ids {
        let (events, _) = recorded(&store, id).await.expect("it is read");
        assert!(matches!(events.last(), Some(SagaEvent::Succeeded { .. })), "{events:?}");
    }
    let sagas = store.sagas().with(orders(&world)).start().await.expect("it starts again");
    for id in &ids {
        assert_eq!(sagas.wait_for(id, SOON).await.expect("it ends").status, Status::Completed);
    }
    for step in ["charge", "reserve", "ship"] {
        assert_eq!(world.calls(&format!("/{step}/do")), [1; 10]);
    }
    sagas.close().await;
}

async fn a_full_process_leaves_instances_in_the_store_until_there_is_room(place: impl Place) {
    let (store, world) = (place.open().await, World::default());
    let sagas = store.sagas().with(orders(&world)).in_flight(2).start().await.expect("it starts");
    let ids: Vec<_> = (0..7).map(|number| id(format!("o-{number}"))).collect();
    // At once, so that none has ended when the last one comes.
    let starts = ids.iter().map(|id| async {
        sagas.start(id, Order { refuses: None, takes_ms: 40 }).await.expect("it is new");
        assert!(sagas.runner().in_flight <= 2);
    });
    join_all(starts).await;
    assert!(sagas.runner().is_full());
    for id in &ids {
        assert_eq!(sagas.wait_for(id, SOON).await.expect("it ends").status, Status::Completed);
    }
    sagas.close().await;
    assert!(!sagas.runner().is_full());
}

#[tokio::test]
async fn instances_in_memory_have_their_table_in_another_database() {
    let folder = tempfile::tempdir().expect("there is room");
    let database = SqliteDatabase::open(folder.path().join("views.db")).await.expect("it opens");
    let sagas = Sagas::of(&MemoryStore::new(), &database).with(orders(&World::default())).start();
    let sagas = sagas.await.expect("it starts");
    sagas.start(&id("o-1"), Order::default()).await.expect("it is new");
    assert_eq!(sagas.wait_for(&id("o-1"), SOON).await.expect("it ends").status, Status::Completed);
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    assert_eq!(sagas.find(&id("o-1")).await.expect("it is asked").map(|row| row.status), Some(Status::Completed));
    sagas.close().await;
}

#[tokio::test]
async fn events_of_sagas_that_nothing_has_led_to_yet_are_no_reason_to_check_how_they_are_spelt() {
    let (folder, store) = (tempfile::tempdir().expect("there is room"), MemoryStore::new());
    let database = SqliteDatabase::open(folder.path().join("views.db")).await.expect("it opens");
    let engine = Engine::new(store.clone(), orders(&World::default()), SystemClock);
    engine.start(&id("o-1"), Order::default()).await.expect("it is new");
    engine.run(&id("o-1")).await.expect("the store answers");

    let sagas = Sagas::of(&store, &database).with(orders(&World::default())).start().await.expect("it starts");
    let read = async {
        loop {
            let table = sagas.projections().status().remove(0);
            if table.slots.iter().all(|slot| matches!(slot.state, ProjectionState::Live)) {
                return table;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let table = tokio::time::timeout(SOON, read).await.expect("it reads the log");
    assert_eq!((table.applied > 0, table.unseen), (true, Vec::new()));
    sagas.close().await;
}
