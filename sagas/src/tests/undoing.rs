//! Steps are undone in the reverse of their order, also where an undo is slow and the process ends between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::MemoryStore;
use tokio::time::{Instant, timeout};

use super::checkout::policy;
use crate::testing::{PausedClock, recorded};
use crate::{Call, Definition, Direction, Engine, Saga, SagaEvent, SagaId, Status, StepError, StepRetry};

/// How long an undo takes.
const TAKES: Duration = Duration::from_millis(500);
/// When a process may end.
const MOMENTS: u64 = 25;

/// When undos began and when they succeeded, by step. What is repeated counts again.
#[derive(Default)]
struct Undos {
    begun: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
    done: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
}

impl Undos {
    fn first_begun(&self, step: &str) -> Duration {
        self.begun.lock().expect("nobody panics")[step][0]
    }

    fn first_done(&self, step: &str) -> Duration {
        self.done.lock().expect("nobody panics")[step][0]
    }
}

/// A step whose undo is slow and fails twice.
fn step(saga: Saga<()>, name: &'static str, undos: &Arc<Undos>, since: Instant) -> Saga<()> {
    let undos = Arc::clone(undos);
    let undo = move |_, call: Call| {
        let undos = Arc::clone(&undos);
        async move {
            undos.begun.lock().expect("nobody panics").entry(name).or_default().push(since.elapsed());
            tokio::time::sleep(TAKES).await;
            if call.attempt() <= 2 {
                return Err(StepError::transient("later"));
            }
            undos.done.lock().expect("nobody panics").entry(name).or_default().push(since.elapsed());
            Ok(())
        }
    };
    let first = Duration::from_millis(100);
    saga.remote(name, &policy(name), |_, _| async { Ok(()) })
        .undo(undo)
        .retry_undo(StepRetry { attempts: 10, first, most: first })
        .keep(|(), ()| {})
}

fn refused(saga: Saga<()>) -> Definition<()> {
    saga.remote("last", &policy("last"), |_, _| async { Err::<(), _>(StepError::refused("sold out")) })
        .no_undo("what is refused has no effect")
        .build()
        .expect("it is sound")
}

/// Runs a saga, in a process that ends after a time and is started again, for each of many times, and looks at it.
async fn at_every_moment(saga: impl Fn(&Arc<Undos>, Instant) -> Definition<()>, check: impl Fn(&Undos, &[SagaEvent])) {
    for moment in 0..MOMENTS {
        let (undos, store, id) = (Arc::default(), MemoryStore::new(), SagaId::new("c-1").expect("it is an id"));
        let clock = PausedClock::new();
        let engine = || Engine::new(store.clone(), saga(&undos, clock.since()), clock.clone());
        engine().start(&id, ()).await.expect("it is new");
        let killed = timeout(Duration::from_millis(moment * 170), engine().run_to_end(&id)).await;
        drop(killed);
        let status = engine().run_to_end(&id).await.expect("the store answers").status;
        assert_eq!(status, Status::Compensated, "after {moment}");
        check(&undos, &recorded(&store, &id).await.expect("it is read"));
    }
}

/// The intents of the undo of `earlier` come behind the success of that of `later`, which is recorded.
fn is_behind(events: &[SagaEvent], earlier: &str, later: &str) {
    let begun = |event: &SagaEvent| matches!(event, SagaEvent::Begun { step, direction: Direction::Undo, .. } if step == earlier);
    let done = |event: &SagaEvent| matches!(event, SagaEvent::Succeeded { step, direction: Direction::Undo, .. } if step == later);
    let (begun, done) = (events.iter().position(begun), events.iter().position(done));
    assert!(begun.expect("it is undone") > done.expect("it is undone"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn an_undo_is_not_sent_before_the_slow_one_of_a_later_step_has_succeeded_wherever_the_process_ends() {
    let saga =
        |undos: &Arc<Undos>, since| refused(step(step(Saga::new("sequence"), "a", undos, since), "b", undos, since));
    at_every_moment(saga, |undos, events| {
        assert!(undos.first_begun("a") >= undos.first_done("b"));
        is_behind(events, "a", "b");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slow_undos_of_two_branches_go_side_by_side_each_in_its_own_reverse_order_wherever_the_process_ends() {
    let saga = |undos: &Arc<Undos>, since| {
        let branch = |saga, first, second| step(step(saga, first, undos, since), second, undos, since);
        refused(
            Saga::new("branches")
                .parallel(|both| both.branch(|one| branch(one, "a1", "a2")).branch(|two| branch(two, "b1", "b2"))),
        )
    };
    at_every_moment(saga, |undos, events| {
        for (first, second) in [("a1", "a2"), ("b1", "b2")] {
            assert!(undos.first_begun(first) >= undos.first_done(second));
            is_behind(events, first, second);
        }
        let apart = undos.first_begun("a2").abs_diff(undos.first_begun("b2"));
        assert!(apart < TAKES, "neither waits for the other: {apart:?}");
    })
    .await;
}
