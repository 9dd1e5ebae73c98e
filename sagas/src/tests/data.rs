//! What can be learnt of an instance: what it has kept, and why it is not done; and what a call learns.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{ManualClock, MemoryStore, Tenant};
use serde::{Deserialize, Serialize};

use super::checkout::policy;
use crate::definition::SagaData;
use crate::{By, Call, Engine, Intervention, Phase, Saga, SagaError, SagaId, Status, StepError};

fn id() -> SagaId {
    SagaId::new("c-1").expect("it is an id")
}

fn engine<C: SagaData, P: Phase, O>(store: &MemoryStore, saga: Saga<C, P, O>) -> Engine<C> {
    let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
    Engine::new(store.clone(), saga.build().expect("it is sound"), clock)
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Trip {
    nights: u32,
    booking: Option<u32>,
}

#[tokio::test(start_paused = true)]
async fn the_data_of_an_instance_is_its_input_with_what_its_steps_have_kept_so_far() {
    let saga = Saga::<Trip>::new("trip")
        .remote("book", &policy("hotel"), |_, _| async { Ok(17) })
        .no_undo("nothing is kept")
        .keep(|trip, booking| trip.booking = Some(booking))
        .signal::<u32>("longer")
        .keep(|trip, nights| trip.nights += nights);
    let engine = engine(&MemoryStore::new(), saga);
    assert!(matches!(engine.data(&id()).await, Err(SagaError::NotStarted { .. })));
    engine.start(&id(), Trip { nights: 2, booking: None }).await.expect("it is new");
    engine.run(&id()).await.expect("the store answers");
    assert_eq!(engine.data(&id()).await.expect("it fits"), Trip { nights: 2, booking: Some(17) });
    engine.signal(&id(), "longer", 3).await.expect("it fits");
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Completed);
    assert_eq!(engine.data(&id()).await.expect("it fits"), Trip { nights: 5, booking: Some(17) });
}

/// A request that is sent again across a deploy is the same request.
#[tokio::test(start_paused = true)]
async fn the_same_start_in_a_build_whose_data_has_another_field_changes_nothing() {
    #[derive(Serialize, Deserialize, Clone)]
    struct New {
        nights: u32,
        booking: Option<u32>,
        #[serde(default)]
        pets: u32,
    }
    let store = MemoryStore::new();
    let old = engine(&store, Saga::<Trip>::new("trip").signal::<u32>("paid"));
    let new = engine(&store, Saga::<New>::new("trip").signal::<u32>("paid"));
    old.start(&id(), Trip { nights: 2, booking: None }).await.expect("it is new");
    new.start(&id(), New { nights: 2, booking: None, pets: 0 }).await.expect("it is the same");
    let other = new.start(&id(), New { nights: 2, booking: None, pets: 1 }).await;
    assert!(matches!(other, Err(SagaError::StartedBefore { .. })), "{other:?}");
}

/// Two branches that are refused one after the other: the first one is why.
#[tokio::test(start_paused = true)]
async fn a_call_that_fails_after_the_instance_has_failed_does_not_change_why() {
    async fn seat(_: Arc<()>, _: Call) -> Result<(), StepError> {
        Err(StepError::refused("no seat"))
    }
    async fn room(_: Arc<()>, _: Call) -> Result<(), StepError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(StepError::refused("no room"))
    }
    let (air, inn) = (policy("air"), policy("inn"));
    let saga = Saga::<()>::new("before").parallel(|both| {
        let both = both.branch(|one| one.remote("seat", &air, seat).no_undo("it is refused"));
        both.branch(|two| two.remote("room", &inn, room).no_undo("it is refused"))
    });
    let compensated = engine(&MemoryStore::new(), saga);
    compensated.start(&id(), ()).await.expect("it is new");
    let status = compensated.run(&id()).await.expect("the store answers");
    assert_eq!(status.status, Status::Compensated);
    assert_eq!(status.reason.as_deref(), Some("`seat` was refused: no seat"));

    let saga = Saga::<()>::new("behind").pivot().parallel(|both| {
        both.branch(|one| one.remote("seat", &air, seat)).branch(|two| two.remote("room", &inn, room))
    });
    let stuck = engine(&MemoryStore::new(), saga.timer("pause", Duration::from_secs(1)));
    stuck.start(&id(), ()).await.expect("it is new");
    let status = stuck.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.reason.as_deref()), (Status::Stuck, Some("`seat` was refused: no seat")));
    // Then the other one is in the way, for its own reason.
    let by = By::new("ada", "she takes a train").expect("it is sound");
    stuck.intervene(&id(), Intervention::Skip, &by).await.expect("it is stuck");
    let status = stuck.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.reason.as_deref()), (Status::Stuck, Some("`room` was refused: no room")));
}

/// The keys of both are equal, so the service must learn whose call it is.
#[tokio::test(start_paused = true)]
async fn a_call_names_its_tenant_and_its_instance() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (done, undone) = (Arc::clone(&calls), Arc::clone(&calls));
    let note = |calls: &Mutex<Vec<String>>, call: &Call| {
        let line = format!("{} {} {}", call.tenant(), call.saga_id(), call.key().as_str());
        calls.lock().expect("nobody panics").push(line);
    };
    let saga = Saga::<()>::new("trip")
        .remote("book", &policy("hotel"), move |_, call| {
            note(&done, &call);
            async { Ok(()) }
        })
        .undo(move |_, call| {
            note(&undone, &call);
            async { Ok(()) }
        })
        .remote("pay", &policy("bank"), |_, _| async { Err::<(), _>(StepError::refused("no money")) })
        .no_undo("what is refused has no effect");
    let engine = engine(&MemoryStore::new(), saga);
    for tenant in ["north", "south"] {
        let engine = engine.clone().tenant(Tenant::new(tenant).expect("it is one"));
        engine.start(&id(), ()).await.expect("it is new");
        assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Compensated);
    }
    let expected =
        ["north c-1 c-1/book/do", "north c-1 c-1/book/undo", "south c-1 c-1/book/do", "south c-1 c-1/book/undo"];
    assert_eq!(*calls.lock().expect("nobody panics"), expected);
}
