//! Instances that wait for a person, in a runner.

use std::time::Duration;

use annals_eventstore::{EventStore, MemoryStore, SqliteDatabase, Tenant, TransactionalStore};
use annals_projections::ReadModelDatabase;
use annals_resilience::Policy;
use annals_sagas::{
    By, Decision, Definition, Intervention, Saga, SagaError, SagaEvent, SagaInstance, Sagas, SagasExt, Status,
};

use super::stores::{Place, on_every_store};
use super::world::{Order, SOON, World, id, orders, recorded};

on_every_store!(
    an_undo_that_is_refused_waits_for_a_person_and_the_steps_before_it_with_it,
    of_two_people_who_decide_at_once_one_does_and_the_other_learns_who_did,
    a_handle_of_one_tenant_lists_what_asks_and_what_is_stuck_of_that_tenant_alone,
);

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
    // Before the call nothing would be undone.
    let called = async {
        while world.calls("o-2/charge/do").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, called).await.expect("it is called");
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

/// Charges; then a person releases it or does not. The data is who did.
fn transfer() -> Definition<Vec<String>> {
    Saga::<Vec<String>>::new("transfer")
        .remote("charge", &Policy::fast("payment").build().expect("it is sound"), |_, _| async { Ok(()) })
        .undo(|_, _| async { Ok(()) })
        .approval("release")
        .within(Duration::from_secs(3_600))
        .keep(|transfer: &mut Vec<String>, decision: Decision| transfer.push(decision.actor))
        .build()
        .expect("it is sound")
}

async fn a_handle_of_one_tenant_lists_what_asks_and_what_is_stuck_of_that_tenant_alone(place: impl Place) {
    let store = place.open().await;
    // Two ask; where one of them is rejected after the pivot it is stuck, and the other takes no answer.
    let parcel = Saga::<u32>::new("parcel")
        .pivot()
        .parallel(|both| both.branch(|one| one.approval("send")).branch(|two| two.approval("insure")));
    let sagas = store.sagas().with(parcel.build().expect("it is sound")).start().await.expect("it starts");
    let [north, south] = ["north", "south"].map(|name| sagas.tenant(Tenant::new(name).expect("it is a name")));
    let by = By::new("ada", "the customer called").expect("it is sound");
    for (handle, name) in [(&north, "p-1"), (&south, "p-2"), (&north, "p-3"), (&north, "p-4")] {
        handle.start(&id(name), 1_u32).await.expect("it is new");
        let asks = async {
            while handle.status(&id(name)).await.expect("it is there").asks.len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, asks).await.expect("it asks");
    }
    north.reject(&id("p-3"), "insure", &by).await.expect("it asks");
    assert_eq!(north.wait_for(&id("p-3"), SOON).await.expect("it ends").status, Status::Stuck);
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    let names = |rows: Vec<SagaInstance>| rows.into_iter().map(|row| row.saga_id).collect::<Vec<_>>();
    for (handle, approvals, stuck) in [
        (&sagas, &["p-1", "p-2", "p-4"][..], &["p-3"][..]),
        (&north, &["p-1", "p-4"], &["p-3"]),
        (&south, &["p-2"], &[]),
    ] {
        assert_eq!(names(handle.approvals(10).await.expect("it is asked")), approvals);
        assert_eq!(names(handle.approvals(1).await.expect("it is asked")), approvals[..1]);
        assert_eq!(names(handle.stuck(10).await.expect("it is asked")), stuck);
    }
    sagas.close().await;
}

async fn of_two_people_who_decide_at_once_one_does_and_the_other_learns_who_did(place: impl Place) {
    let stores = [place.open().await, place.open().await];
    decide_at_once(&stores, [stores[0].database(), stores[1].database()]).await;
}

#[tokio::test]
async fn of_two_people_who_decide_at_once_about_sagas_in_memory_one_does_and_the_other_learns_who_did() {
    let folder = tempfile::tempdir().expect("there is room");
    let database = SqliteDatabase::open(folder.path().join("views.db")).await.expect("it opens");
    let store = MemoryStore::new();
    decide_at_once(&[store.clone(), store], [&database, &database]).await;
}

async fn decide_at_once<S: EventStore + Clone, D: ReadModelDatabase>(stores: &[S; 2], databases: [&D; 2]) {
    let world = World::default();
    let start = |number: usize| Sagas::of(&stores[number], databases[number]).with(orders(&world)).with(transfer());
    let one = start(0).start().await.expect("it starts");
    let other = start(1).start().await.expect("it starts");
    let click =
        |actor: &str| By::new(actor, "the customer called").expect("it is sound").request(format!("of-{actor}"));
    let decided = |result: Result<(), SagaError>| match result {
        Err(SagaError::WrongStatus { decision: Some(decision), .. }) => decision,
        other => panic!("{other:?}"),
    };
    let events = async |name: &str| recorded(&stores[0], &id(name)).await.expect("it is read").0;
    let decisions = |events: &[SagaEvent]| {
        let is_decision = |event: &&SagaEvent| matches!(event, SagaEvent::Intervened { .. });
        events.iter().filter(is_decision).count()
    };

    // One that is stuck. What follows from a decision takes a while, so that it is not stuck again at once.
    let order = Order { refuses: Some("refund".to_owned()), takes_ms: 400 };
    let stuck = id("o-1");
    one.start(&stuck, order).await.expect("it is new");
    let called = async {
        while world.calls("o-1/charge/do").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, called).await.expect("it is called");
    one.intervene(&stuck, Intervention::Cancel, &click("eve")).await.expect("it runs");
    assert_eq!(other.wait_for(&stuck, SOON).await.expect("it ends").status, Status::Stuck);
    let (ada, bob) = (click("ada"), click("bob"));
    let (retried, undone) = futures::join!(
        one.intervene(&stuck, Intervention::Retry, &ada),
        other.intervene(&stuck, Intervention::Compensate, &bob),
    );
    let ada_won = retried.is_ok();
    let (first, second) = if ada_won { ("ada", undone) } else { ("bob", retried) };
    assert_eq!(decided(second).actor, first);
    let (what, late) = (Intervention::Retry, Intervention::Compensate);
    let (again, old) = (one.intervene(&stuck, what, &ada).await, other.intervene(&stuck, late, &bob).await);
    let (again, old) = if ada_won { (again, old) } else { (old, again) };
    again.expect("it is the same click");
    assert_eq!(decided(old).actor, first);
    assert_eq!(decisions(&events("o-1").await), 2, "with that of eve");

    // One that asks.
    let asks = id("t-1");
    one.start(&asks, Vec::<String>::new()).await.expect("it is new");
    let listed = async {
        loop {
            match &other.approvals(10).await.expect("it is asked")[..] {
                [] => tokio::time::sleep(Duration::from_millis(5)).await,
                [row] => return row.clone(),
                rows => panic!("{rows:?}"),
            }
        }
    };
    let row = tokio::time::timeout(SOON, listed).await.expect("it is listed");
    assert_eq!((&*row.saga_id, row.current_step.as_deref()), ("t-1", Some("release")));
    assert_eq!((&*row.asks[0].step, row.asked_at, row.wake_at), ("release", Some(row.asks[0].at), row.asks[0].until));
    let would = one.preview(&asks, Intervention::Approve { step: "release".to_owned() }, &ada).await;
    assert_eq!(would.expect("it asks").last(), Some(&SagaEvent::Completed));
    let approve = async || one.approve(&asks, "release", &click("cleo")).await;
    let reject = async || other.reject(&asks, "release", &click("dan")).await;
    let (approved, rejected) = futures::join!(approve(), reject());
    let cleo_won = approved.is_ok();
    let (first, second) = if cleo_won { ("cleo", rejected) } else { ("dan", approved) };
    assert_eq!(decided(second).actor, first);
    let end = one.wait_for(&asks, SOON).await.expect("it ends");
    assert_eq!(end.status, if cleo_won { Status::Completed } else { Status::Compensated });
    let (again, old) = if cleo_won { (approve().await, reject().await) } else { (reject().await, approve().await) };
    again.expect("it is the same click");
    assert_eq!(decided(old).actor, first);
    let events = events("t-1").await;
    assert_eq!(decisions(&events), 1);
    let of = |event: &SagaEvent| matches!(event, SagaEvent::Intervened { actor, reason, .. } if actor == first && reason == "the customer called");
    assert!(events.iter().any(of), "{events:?}");
    one.projections().caught_up(SOON).await.expect("it reads the log");
    assert_eq!(one.approvals(10).await.expect("it is asked"), []);
    one.close().await;
    other.close().await;
}
