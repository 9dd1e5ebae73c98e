//! Branches that run side by side: what one of them waits for does not hold up another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_resilience::Policy;
use annals_sagas::{By, Definition, Intervention, Saga, SagasExt, Status, StepError, StepRetry};
use tokio::sync::Notify;

use super::stores::{Place, on_every_store};
use super::world::{SOON, id};

on_every_store!(
    a_timer_a_retry_and_a_signal_are_acted_on_while_another_branch_calls,
    an_instance_is_given_up_while_it_calls,
    of_two_sagas_none_takes_all_the_room,
);

/// The call of the first branch ends when those behind the timer, the retry and the signal were made.
fn entangled(notifies: &Arc<[Notify; 3]>) -> Definition<u32> {
    let policy = |name: &str| Policy::medium(name).build().expect("it is sound");
    let waiting = Arc::clone(notifies);
    let done = |which: usize| {
        let notifies = Arc::clone(notifies);
        move |_, call: annals_sagas::Call| {
            // The one with retries fails first.
            let fails = which == 1 && call.attempt() == 1;
            if !fails {
                notifies[which].notify_one();
            }
            async move { if fails { Err(StepError::transient("not yet")) } else { Ok(()) } }
        }
    };
    Saga::<u32>::new("entangled")
        .parallel(|branches| {
            branches
                .branch(|branch| {
                    let slow = move |_, _| {
                        let waiting = Arc::clone(&waiting);
                        async move {
                            for notify in &*waiting {
                                notify.notified().await;
                            }
                            Ok(())
                        }
                    };
                    branch.remote("slow", &policy("slow"), slow).undo(|_, _| async { Ok(()) })
                })
                .branch(|branch| {
                    branch
                        .timer("pause", Duration::from_millis(300))
                        .remote("timed", &policy("timed"), done(0))
                        .no_undo("nothing is kept")
                })
                .branch(|branch| {
                    let soon = StepRetry { first: Duration::from_millis(250), ..StepRetry::default() };
                    branch.remote("retried", &policy("retried"), done(1)).retry(soon).no_undo("nothing is kept")
                })
                .branch(|branch| {
                    branch
                        .signal::<u32>("paid")
                        .remote("signalled", &policy("signalled"), done(2))
                        .no_undo("nothing is kept")
                })
        })
        .build()
        .expect("it is sound")
}

async fn a_timer_a_retry_and_a_signal_are_acted_on_while_another_branch_calls(place: impl Place) {
    let stores = [place.open().await, place.open().await];
    let mut processes = Vec::new();
    let notifies = Arc::new([Notify::new(), Notify::new(), Notify::new()]);
    for store in &stores {
        let sagas = store.sagas().with(entangled(&notifies)).lease(Duration::from_millis(600));
        processes.push(sagas.start().await.expect("it starts"));
    }
    let shared = async {
        while processes.iter().any(|sagas| sagas.runner().slots.len() != 8) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, shared).await.expect("each has its share");
    // Whichever of both runs it, the signal comes by the other one too.
    for (process, name) in [(0, "e-1"), (1, "e-2"), (1, "e-3"), (0, "e-4")] {
        processes[process].start(&id(name), 1_u32).await.expect("it is new");
        tokio::time::sleep(Duration::from_millis(50)).await;
        processes[1 - process].signal(&id(name), "paid", 1).await.expect("it fits");
        let ended = processes[process].wait_for(&id(name), SOON).await.expect("it ends");
        assert_eq!(ended.status, Status::Completed, "{name}");
    }
    for sagas in processes {
        sagas.close().await;
    }
}

async fn an_instance_is_given_up_while_it_calls(place: impl Place) {
    let store = place.open().await;
    let notifies = Arc::new([Notify::new(), Notify::new(), Notify::new()]);
    let sagas = store.sagas().with(entangled(&notifies)).start().await.expect("it starts");
    let (cancelled, by) = (id("e-1"), By::new("ada", "as the customer wished").expect("it is sound"));
    sagas.start(&cancelled, 1_u32).await.expect("it is new");
    sagas.intervene(&cancelled, Intervention::Cancel, &by).await.expect("it runs");
    for notify in &*notifies {
        notify.notify_one();
    }
    assert_eq!(sagas.wait_for(&cancelled, SOON).await.expect("it ends").status, Status::Compensated);
    sagas.close().await;
}

/// Those of the name that comes first in the alphabet had all the room, as long as there were any.
async fn of_two_sagas_none_takes_all_the_room(place: impl Place) {
    let store = place.open().await;
    let (gate, called) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
    let many = |name: &'static str| {
        let policy = Policy::medium("stock").build().expect("it is sound");
        let (gate, called) = (Arc::clone(&gate), Arc::clone(&called));
        let call = move |_, _| {
            let gate = Arc::clone(&gate);
            let is_first = {
                let mut called = called.lock().expect("nobody panics");
                called.push(name);
                called.len() == 1
            };
            async move {
                if is_first {
                    gate.notified().await;
                }
                Ok(())
            }
        };
        Saga::<u32>::new(name).remote("call", &policy, call).no_undo("nothing is kept").build().expect("it is sound")
    };
    let sagas = store.sagas().with(many("alpha")).with(many("omega")).in_flight(1).start().await.expect("it starts");
    for number in 0..20 {
        sagas.start_named("alpha", &id(format!("a-{number}")), 1_u32).await.expect("it is new");
    }
    sagas.start_named("omega", &id("o-1"), 1_u32).await.expect("it is new");
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    gate.notify_one();
    assert_eq!(sagas.wait_for(&id("o-1"), SOON).await.expect("it ends").status, Status::Completed);
    let turn = called.lock().expect("nobody panics").iter().position(|name| *name == "omega");
    assert!(turn.is_some_and(|turn| turn < 5), "{turn:?}");
    // Neither time is one that a clock can hold.
    let far = sagas.wait_for(&id("o-1"), Duration::MAX).await.expect("it ends");
    assert_eq!(far.status, Status::Completed);
    sagas.close().await;
    let refused = store.sagas().with(many("alpha")).look_every(Duration::MAX).start().await;
    assert!(refused.err().expect("no clock holds it").to_string().starts_with("`look_every` is"));
}
