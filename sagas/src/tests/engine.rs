//! The engine, step by step.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    Actor, AggregateStore, Clock, EventStoreExt, Filter, ManualClock, MemoryStore, Position, TraceParent,
};
use futures::TryStreamExt;

use annals_resilience::Policy;
use annals_resilience::retry::Retry;
use tokio::sync::Semaphore;

use super::checkout::{Cancel, Checkout, Order, OrderId, Place, World, checkout, policy};
use crate::control::Control;
use crate::{By, Engine, Intervention, Saga, SagaError, SagaId, SagaStatus, Status, StepError, StepRetry, command};

fn id() -> SagaId {
    SagaId::new("c-1").expect("it is an id")
}

fn by(actor: &str) -> By {
    By::new(actor, "as the customer wished").expect("it is sound")
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH))
}

#[tokio::test(start_paused = true)]
async fn a_checkout_is_done_step_by_step_and_keeps_what_steps_give() {
    let (world, store) = (Arc::new(World::default()), MemoryStore::new());
    let engine = Engine::new(store.clone(), checkout(&world, &store), clock());
    engine.start(&id(), Checkout::new()).await.expect("it is new");
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!(status.status, Status::Completed);
    assert_eq!(status.done, ["create", "charge", "reserve", "ship"]);
    assert_eq!(world.calls(), ["c-1/charge/do", "c-1/reserve/do", "c-1/ship/do"]);
    let order = store.aggregate::<Order>().load(&OrderId::new("o-17").expect("it is an id")).await;
    assert_eq!(*order.expect("the store answers").state, Order { placed: 1, cancelled: 0 });
    // Nothing is done again.
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Completed);
    assert_eq!(world.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_local_command_that_is_rejected_refuses_its_step() {
    let (world, store) = (Arc::new(World::default()), MemoryStore::new());
    let engine = Engine::new(store.clone(), checkout(&world, &store), clock());
    let second = SagaId::new("c-2").expect("it is an id");
    for id in [&id(), &second] {
        engine.start(id, Checkout::new()).await.expect("it is new");
        engine.run(id).await.expect("the store answers");
    }
    let status = engine.status(&second).await.expect("it is there");
    assert_eq!(status.status, Status::Compensated);
    assert_eq!(status.reason.as_deref(), Some("`create` was refused: it is placed already"));
    assert_eq!(world.calls().len(), 3, "the second one called nobody");
}

#[tokio::test(start_paused = true)]
async fn the_same_start_changes_nothing_and_another_is_refused() {
    let (world, store) = (Arc::new(World::default()), MemoryStore::new());
    let engine = Engine::new(store.clone(), checkout(&world, &store), clock());
    engine.start(&id(), Checkout::new()).await.expect("it is new");
    engine.start(&id(), Checkout::new()).await.expect("it is the same");
    let other = Checkout { order: "o-18".to_owned(), payment: None };
    assert!(matches!(engine.start(&id(), other).await, Err(SagaError::StartedBefore { .. })));
    let unknown = SagaId::new("c-9").expect("it is an id");
    assert!(matches!(engine.run(&unknown).await, Err(SagaError::NotStarted { .. })));
    let unfit = SagaId::new("ein Käufer").expect("it is an id");
    let refused = engine.start(&unfit, Checkout::new()).await;
    assert!(matches!(refused, Err(SagaError::Invalid(invalid)) if invalid.field == "saga_id"));
}

/// Waits for a signal, then for a time, with a deadline of 100 seconds.
fn waiting() -> Engine<()> {
    let saga = Saga::<()>::new("waiting")
        .deadline(Duration::from_secs(100))
        .signal::<u32>("paid")
        .timer("pause", Duration::from_secs(30))
        .signal::<u32>("confirmed");
    Engine::new(MemoryStore::new(), saga.build().expect("it is sound"), clock())
}

fn advance(engine: &Engine<()>, clock: &ManualClock, seconds: u64) {
    clock.advance(Duration::from_secs(seconds));
    assert_eq!(engine.clock.now(), clock.now());
}

fn timed(clock: &Arc<ManualClock>) -> Engine<()> {
    Engine { clock: clock.clone(), ..waiting() }
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_taken_once_and_may_come_before_its_step() {
    let clock = clock();
    let engine = timed(&clock);
    engine.start(&id(), ()).await.expect("it is new");
    engine.signal(&id(), "confirmed", 3).await.expect("it fits");
    // What comes second is the same, or is refused, whether the step has taken the first one or not.
    let signalled = async || {
        engine.signal(&id(), "paid", 1).await.expect("it fits");
        let before = engine.load(&id()).await.expect("the store answers");
        engine.signal(&id(), "paid", 1).await.expect("it is the same");
        let other = engine.signal(&id(), "paid", 2).await.expect_err("it is another one");
        assert_eq!(other.to_string(), "step `paid` of saga `c-1` has its signal, and this is another one");
        assert_eq!(other.family(), annals_eventstore::ErrorFamily::Conflict);
        assert_eq!(engine.load(&id()).await.expect("the store answers"), before);
    };
    signalled().await;
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, &status.done[..]), (Status::Running, &["paid".to_owned()][..]));
    assert_eq!(status.waits_at.as_deref(), Some("pause"));
    signalled().await;
    let instance = engine.load(&id()).await.expect("the store answers");
    assert_eq!(instance.step("paid").output, 1);
    advance(&engine, &clock, 30);
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.waits_at), (Status::Completed, None));
    signalled().await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_cannot_be_used_is_refused_and_leaves_no_trace() {
    let engine = waiting();
    let field = |result: Result<(), SagaError>| match result {
        Err(SagaError::Invalid(invalid)) => invalid.field,
        other => panic!("{other:?}"),
    };
    assert!(matches!(engine.signal(&id(), "paid", 1).await, Err(SagaError::NotStarted { .. })));
    engine.start(&id(), ()).await.expect("it is new");
    let before = engine.load(&id()).await.expect("the store answers");
    assert_eq!(field(engine.signal(&id(), "paid", "a text").await), "payload");
    assert_eq!(field(engine.signal(&id(), "pause", 1).await), "step");
    assert_eq!(field(engine.signal(&id(), "unknown", 1).await), "step");
    assert_eq!(engine.load(&id()).await.expect("the store answers"), before);
}

#[tokio::test(start_paused = true)]
async fn a_timer_ends_when_it_was_set_to_end_and_once_whatever_the_clock_does() {
    let clock = clock();
    let engine = timed(&clock);
    engine.start(&id(), ()).await.expect("it is new");
    advance(&engine, &clock, 10);
    engine.signal(&id(), "paid", 1).await.expect("it fits");
    let due = engine.run(&id()).await.expect("the store answers").wake_at;
    assert_eq!(due.map(jiff::Timestamp::as_second), Some(40));
    advance(&engine, &clock, 29);
    assert_eq!(engine.run(&id()).await.expect("the store answers").done, ["paid"]);
    clock.set(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(engine.run(&id()).await.expect("the store answers").wake_at, due);
    advance(&engine, &clock, 40);
    assert_eq!(engine.run(&id()).await.expect("the store answers").done, ["paid", "pause"]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_compensates() {
    let clock = clock();
    let engine = timed(&clock);
    engine.start(&id(), ()).await.expect("it is new");
    advance(&engine, &clock, 99);
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Running);
    advance(&engine, &clock, 1);
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.reason.as_deref()), (Status::Compensated, Some("its deadline has passed")));
    assert!(matches!(engine.signal(&id(), "paid", 1).await, Err(SagaError::WrongStatus { .. })));
}

/// One step before the pivot and one after it, which `fails` in the given way as long as it is set.
fn failing(world: &Arc<World>, fails: &Arc<std::sync::Mutex<Option<StepError>>>) -> Engine<()> {
    let [charge, refund, ship] = [(); 3].map(|()| world.clone());
    let fails = fails.clone();
    let saga = Saga::<()>::new("failing")
        .remote("charge", &policy("payment"), move |_, call| {
            let world = charge.clone();
            async move { world.done("payment", &call) }
        })
        .undo(move |_, call| {
            let world = refund.clone();
            async move { world.undone("payment", &call) }
        })
        .pivot()
        .remote("ship", &policy("shipping"), move |_, call| {
            let (world, fails) = (ship.clone(), fails.lock().expect("nobody panics").clone());
            async move { fails.map_or_else(|| world.done("shipping", &call), Err) }
        })
        .retry(StepRetry { attempts: 1, ..StepRetry::default() });
    Engine::new(MemoryStore::new(), saga.build().expect("it is sound"), clock())
}

#[tokio::test(start_paused = true)]
async fn what_fails_after_the_pivot_waits_for_a_person_who_may_retry_skip_or_complete_but_not_compensate() {
    for what in [Intervention::Retry, Intervention::Skip, Intervention::Complete] {
        let world = Arc::new(World::default());
        let fails = Arc::new(std::sync::Mutex::new(Some(StepError::refused("no carrier"))));
        let engine = failing(&world, &fails);
        engine.start(&id(), ()).await.expect("it is new");
        let status = engine.run(&id()).await.expect("the store answers");
        assert_eq!((status.status, status.stuck_at.as_deref()), (Status::Stuck, Some("ship")));
        assert_eq!(status.reason.as_deref(), Some("`ship` was refused: no carrier"));

        let refused = engine.intervene(&id(), Intervention::Compensate, &by("ada")).await;
        assert!(
            matches!(refused, Err(SagaError::WrongStatus { status: Status::Stuck, allowed: [Status::Stuck], .. })),
            "{refused:?}"
        );
        fails.lock().expect("nobody panics").take();
        assert!(!engine.preview(&id(), what.clone(), &by("ada")).await.expect("it is allowed").is_empty());
        assert_eq!(engine.status(&id()).await.expect("it is there").status, Status::Stuck, "a preview records nothing");
        engine.intervene(&id(), what.clone(), &by("ada")).await.expect("it is allowed");
        let late = engine.intervene(&id(), what.clone(), &by("bob")).await;
        assert!(matches!(late, Err(SagaError::WrongStatus { allowed: [Status::Stuck], .. })), "{late:?}");
        assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Completed);
        assert_eq!(world.effects("shipping"), usize::from(what == Intervention::Retry));
        assert_eq!(world.effects("payment"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_may_cancel_what_runs_also_while_it_waits_for_its_next_attempt() {
    let world = Arc::new(World::default());
    let [charge, refund] = [(); 2].map(|()| world.clone());
    let saga = Saga::<()>::new("cancelled")
        .remote("charge", &policy("payment"), move |_, call| {
            let world = charge.clone();
            async move {
                world.done("payment", &call)?;
                Err::<(), _>(StepError::unknown("no answer"))
            }
        })
        .retry(StepRetry { first: Duration::from_secs(60), ..StepRetry::default() })
        .undo(move |_, call| {
            let world = refund.clone();
            async move { world.undone("payment", &call) }
        });
    let engine = Engine::new(MemoryStore::new(), saga.build().expect("it is sound"), clock());
    engine.start(&id(), ()).await.expect("it is new");
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.wake_at.map(jiff::Timestamp::as_second)), (Status::Running, Some(60)));
    assert_eq!(world.effects("payment"), 1);
    engine.intervene(&id(), Intervention::Cancel, &by("ada")).await.expect("it is allowed");
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Compensated);
    assert_eq!(world.effects("payment"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_is_refused_is_stuck_and_earlier_steps_wait_until_a_person_skips_it() {
    let world = Arc::new(World::default());
    let [first, undo_first, second, third] = [(); 4].map(|()| world.clone());
    let saga = Saga::<()>::new("refused-undo")
        .remote("first", &policy("first"), move |_, call| {
            let world = first.clone();
            async move { world.done("first", &call) }
        })
        .undo(move |_, call| {
            let world = undo_first.clone();
            async move { world.undone("first", &call) }
        })
        .remote("second", &policy("second"), move |_, call| {
            let world = second.clone();
            async move { world.done("second", &call) }
        })
        .undo(|_, _| async { Err(StepError::refused("too late")) })
        .remote("third", &policy("third"), move |_, call| {
            let world = third.clone();
            async move {
                let _ = world.done("third", &call);
                Err::<(), _>(StepError::refused("sold out"))
            }
        })
        .no_undo("what is refused has no effect");
    let engine = Engine::new(MemoryStore::new(), saga.build().expect("it is sound"), clock());
    engine.start(&id(), ()).await.expect("it is new");
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.stuck_at.as_deref()), (Status::Stuck, Some("second")));
    assert_eq!(world.effects("first"), 1, "what came before is not undone yet");
    engine.intervene(&id(), Intervention::Retry, &by("ada")).await.expect("it is allowed");
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Stuck);
    engine.intervene(&id(), Intervention::Skip, &by("ada")).await.expect("it is allowed");
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Compensated);
    assert_eq!(world.effects("first"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_build_without_a_step_that_was_begun_is_stuck_with_the_reason_and_goes_on_in_the_build_that_has_it() {
    let store = MemoryStore::new();
    let saga = |step: &'static str| {
        Saga::<()>::new("renamed")
            .remote(step, &policy("stock"), |_, _| async { Ok(()) })
            .no_undo("nothing is kept")
            .signal::<u32>("confirmed")
            .build()
            .expect("it is sound")
    };
    let (old, new) = (Engine::new(store.clone(), saga("reserve"), clock()), Engine::new(store, saga("hold"), clock()));
    old.start(&id(), ()).await.expect("it is new");
    assert_eq!(old.run(&id()).await.expect("the store answers").done, ["reserve"]);
    let status = new.run(&id()).await.expect("the store answers");
    assert_eq!(status.status, Status::Stuck);
    assert_eq!(status.reason.as_deref(), Some("its step `reserve` is not in this build of the saga"));
    old.intervene(&id(), Intervention::Retry, &by("ada")).await.expect("it is allowed");
    old.signal(&id(), "confirmed", 1).await.expect("it fits");
    assert_eq!(old.run(&id()).await.expect("the store answers").status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn of_two_engines_that_run_an_instance_one_records_the_outcome_of_an_attempt() {
    let (world, store) = (Arc::new(World::default()), MemoryStore::new());
    let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (charge, enter, wait) = (world.clone(), entered.clone(), leave.clone());
    let saga = Saga::<()>::new("twice")
        .remote("charge", &policy("payment"), move |_, call| {
            let (world, enter, wait) = (charge.clone(), enter.clone(), wait.clone());
            async move {
                world.done("payment", &call)?;
                enter.add_permits(1);
                wait.acquire().await.expect("it is never closed").forget();
                Ok(call.attempt())
            }
        })
        .no_undo("it is enough to see what is recorded");
    let engine = Engine::new(store, saga.build().expect("it is sound"), clock());
    engine.start(&id(), ()).await.expect("it is new");
    let runs = [engine.clone(), engine.clone()].map(|engine| tokio::spawn(async move { engine.run(&id()).await }));
    entered.acquire_many(2).await.expect("it is never closed").forget();
    leave.add_permits(2);
    for run in runs {
        run.await.expect("nobody panics").expect("the store answers");
    }
    let instance = engine.load(&id()).await.expect("the store answers");
    assert_eq!((instance.status, &instance.done[..]), (Status::Completed, &["charge".to_owned()][..]));
    assert_eq!(
        instance.step("charge").output,
        2,
        "the first attempt counts as of unknown outcome since it was taken over"
    );
    assert_eq!(world.effects("payment"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_attempt_of_unknown_outcome_inside_of_one_call_is_undone() {
    let world = Arc::new(World::default());
    let (charge, refund) = (world.clone(), world.clone());
    let payment = Policy::fast("payment").retry(Retry::default()).build().expect("it is sound");
    let saga = Saga::<()>::new("unsure")
        .remote("charge", &payment, move |_, call| {
            let world = charge.clone();
            async move {
                if world.effects("payment") > 0 {
                    return Err::<(), _>(StepError::refused("the card has expired"));
                }
                world.done("payment", &call)?;
                Err(StepError::unknown("no answer"))
            }
        })
        .undo(move |_, call| {
            let world = refund.clone();
            async move { world.undone("payment", &call) }
        });
    let engine = Engine::new(MemoryStore::new(), saga.build().expect("it is sound"), clock());
    engine.start(&id(), ()).await.expect("it is new");
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!(status.reason.as_deref(), Some("`charge` was refused: the card has expired"));
    assert_eq!((status.status, world.effects("payment")), (Status::Compensated, 0));
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_takes_too_long_is_stuck_and_may_go_on_when_a_person_says_so() {
    let clock = clock();
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let well = healthy.clone();
    let saga = Saga::<()>::new("slow")
        .compensation_within(Duration::from_secs(100))
        .remote("charge", &policy("payment"), |_, _| async { Ok(()) })
        .undo(move |_, _| {
            let well = well.load(std::sync::atomic::Ordering::Relaxed);
            async move { if well { Ok(()) } else { Err(StepError::transient("not now")) } }
        })
        .retry_undo(StepRetry { attempts: 1_000, first: Duration::from_secs(40), most: Duration::from_secs(40) })
        .remote("reserve", &policy("stock"), |_, _| async { Err::<(), _>(StepError::refused("sold out")) })
        .no_undo("what is refused has no effect");
    let engine = Engine::new(MemoryStore::new(), saga.build().expect("it is sound"), clock.clone());
    engine.start(&id(), ()).await.expect("it is new");
    for seconds in [0, 40, 80] {
        clock.set(jiff::Timestamp::from_second(seconds).expect("it is in the calendar"));
        assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Compensating, "{seconds}");
    }
    let status = engine.status(&id()).await.expect("it is there");
    assert_eq!([status.wake_at, status.next_try].map(|at| at.map(jiff::Timestamp::as_second)), [Some(100), Some(120)]);
    clock.advance(Duration::from_secs(20));
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.stuck_at.as_deref()), (Status::Stuck, Some("charge")));
    healthy.store(true, std::sync::atomic::Ordering::Relaxed);
    engine.intervene(&id(), Intervention::Retry, &by("ada")).await.expect("it is allowed");
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Compensated);
}

#[tokio::test(start_paused = true)]
async fn a_build_in_which_a_begun_step_is_of_another_kind_or_behind_another_step_is_stuck_with_the_reason() {
    let remote = |saga: Saga<()>, step: &'static str| {
        let step = saga.remote(step, &policy("service"), |_, _| async { Ok(()) });
        step.no_undo("nothing is kept").keep(|(), ()| {})
    };
    let a = || remote(Saga::<()>::new("changed"), "a");
    let begun = || remote(a(), "b").signal::<u32>("c").build().expect("it is sound");
    let reason = |new: crate::Definition<()>| async move {
        let store = MemoryStore::new();
        let old = Engine::new(store.clone(), begun(), clock());
        old.start(&id(), ()).await.expect("it is new");
        assert_eq!(old.run(&id()).await.expect("the store answers").done, ["a", "b"]);
        let status = Engine::new(store, new, clock()).run(&id()).await.expect("the store answers");
        status.reason.filter(|_| status.status == Status::Stuck)
    };
    let build = |saga: Saga<(), crate::BeforePivot, u32>| saga.build().expect("it is sound");
    assert_eq!(reason(begun()).await, None);
    let later = remote(remote(a(), "b"), "d").signal::<u32>("c");
    assert_eq!(reason(build(later)).await, None, "a step behind those that were begun");
    let timer = a().timer("b", Duration::from_secs(1)).signal::<u32>("c").build().expect("it is sound");
    assert_eq!(reason(timer).await.as_deref(), Some("its step `b` was begun as remote, and is timer in this build"));
    let between = remote(remote(a(), "d"), "b").signal::<u32>("c");
    let first = "its step `b` was begun before `d`, which comes first in this build";
    assert_eq!(reason(build(between)).await.as_deref(), Some(first));
    let swapped = remote(remote(Saga::<()>::new("changed"), "b"), "a").signal::<u32>("c");
    let first = "its step `a` was begun before `b`, which comes first in this build";
    assert_eq!(reason(build(swapped)).await.as_deref(), Some(first));
}

#[tokio::test(start_paused = true)]
async fn of_two_people_one_decides_the_other_learns_who_did_and_a_second_click_gets_the_first_answer() {
    let (world, fails) = (Arc::new(World::default()), Arc::default());
    *std::sync::Mutex::lock(&fails).expect("nobody panics") = Some(StepError::refused("no carrier"));
    let engine = failing(&world, &fails);
    engine.start(&id(), ()).await.expect("it is new");
    let cancelled = engine.intervene(&id(), Intervention::Retry, &by("ada")).await;
    let refused = cancelled.expect_err("it runs").to_string();
    assert_eq!(refused, "saga `c-1` is running, and this is for one that is stuck");
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Stuck);

    let click = by("ada").request("click-1");
    let (second, id) = (by("bob").request("click-2"), id());
    let (ada, bob) = tokio::join!(
        engine.intervene(&id, Intervention::Complete, &click),
        engine.intervene(&id, Intervention::Skip, &second),
    );
    ada.expect("it is the first");
    let refused = bob.expect_err("it is the second").to_string();
    let decided = "complete by `ada` at 1970-01-01T00:00:00Z, because: as the customer wished";
    assert_eq!(
        refused,
        format!("saga `c-1` is completed, and this is for one that is stuck; the last decision was {decided}")
    );
    let before = engine.status(&id).await.expect("it is there");
    engine.intervene(&id, Intervention::Complete, &click).await.expect("it is the same click");
    assert_eq!(engine.preview(&id, Intervention::Complete, &click).await.expect("it is the same click"), []);
    // The same key for another decision did nothing, and said that it had worked.
    for (what, by) in [(Intervention::Skip, &click), (Intervention::Complete, &by("bob").request("click-1"))] {
        let refused = engine.intervene(&id, what, by).await.expect_err("it is another decision").to_string();
        assert!(refused.starts_with(&format!("`request` is the key of another decision, {decided}")), "{refused}");
    }
    assert_eq!(engine.status(&id).await.expect("it is there"), before);
    let late = engine.intervene(&id, Intervention::Cancel, &by("bob")).await;
    assert!(matches!(late, Err(SagaError::WrongStatus { status: Status::Completed, .. })), "{late:?}");
}

/// One that is to go on elsewhere records what a call gave, and what follows from that without a call; no intent is left behind.
#[tokio::test(start_paused = true)]
async fn an_instance_that_is_to_go_on_elsewhere_ends_here_if_its_last_call_ends_it() {
    for (refused, expected) in [(true, Status::Compensated), (false, Status::Running)] {
        let control = Arc::<Control>::default();
        let during = Arc::clone(&control);
        let saga = Saga::<Checkout>::new("stopped")
            .remote("charge", &policy("payments"), move |_, _| {
                during.stop();
                async move { if refused { Err(StepError::refused("not today")) } else { Ok(()) } }
            })
            .no_undo("it is a test")
            .remote("reserve", &policy("stock"), |_, _| async { Ok(()) })
            .no_undo("it is a test")
            .build()
            .expect("it is sound");
        let engine = Engine::new(MemoryStore::new(), saga, clock());
        engine.start(&id(), Checkout::new()).await.expect("it is new");
        assert_eq!(engine.run_until(&id(), &control).await.expect("it runs").status, expected);
        let instance = engine.load(&id()).await.expect("it is there");
        assert!(!instance.step("reserve").done.open && instance.waits.is_none(), "{instance:?}");
        if !refused {
            assert_eq!(engine.run(&id()).await.expect("it runs").status, Status::Completed);
        }
    }
}

/// A process that continues what another one began knows no request, and yet all that follows from it is to be found by its trace.
#[tokio::test(start_paused = true)]
async fn all_that_an_instance_records_is_in_the_trace_in_which_it_was_started_whoever_runs_it() {
    let (world, store) = (Arc::new(World::default()), MemoryStore::new());
    let engine = || Engine::new(store.clone(), checkout(&world, &store), clock());
    let trace = TraceParent::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").expect("it is one");
    engine().in_trace(trace.clone()).start(&id(), Checkout::new()).await.expect("it is new");
    // A person looks at it under another trace.
    let other = TraceParent::new("00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").expect("it is one");
    assert_eq!(engine().in_trace(other).run(&id()).await.expect("the store answers").status, Status::Completed);
    let events: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await.expect("the store answers");
    assert!(events.iter().any(|event| event.stream.aggregate_type() != "saga"), "{events:?}");
    assert!(
        events.len() > 8 && events.iter().all(|event| event.metadata.trace_parent.as_ref() == Some(&trace)),
        "{events:?}"
    );
}

/// Somebody has to be found who wanted it; and who wanted it is not who undoes it.
#[tokio::test(start_paused = true)]
async fn commands_of_steps_are_in_the_name_of_who_started_the_instance_and_their_undo_is_in_nobodys() {
    for (refused, names) in [(false, &["order.placed"][..]), (true, &["order.placed", "order.cancelled"])] {
        let store = MemoryStore::new();
        let (placed, cancelled) = (store.aggregate::<Order>(), store.aggregate::<Order>());
        let order = || OrderId::new("o-17").expect("it is an id");
        let saga = Saga::<()>::new("named")
            .local("create", move |()| command(&placed, order(), Place))
            .undo(move |()| command(&cancelled, order(), Cancel))
            .remote("charge", &policy("payments"), move |_, _| async move {
                if refused { Err(StepError::refused("not today")) } else { Ok(()) }
            })
            .no_undo("it is a test")
            .build()
            .expect("it is sound");
        let engine = Engine::new(store.clone(), saga, clock());
        let actor = |name: &str| Actor::new(name).expect("it is one");
        engine.clone().with_actor(actor("alice")).start(&id(), ()).await.expect("it is new");
        // Who runs it is somebody else.
        engine.with_actor(actor("kim")).run(&id()).await.expect("the store answers");
        let events: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await.expect("they are read");
        let start = &events[0];
        assert_eq!(start.metadata.actor, Some(actor("alice")));
        let of_orders = events.iter().filter(|event| event.stream.aggregate_type() == "order");
        for (event, name) in of_orders.clone().zip(names) {
            assert_eq!(&*event.name, *name);
            assert_eq!(event.metadata.actor, (*name == "order.placed").then(|| actor("alice")), "{name}");
            assert_eq!(event.metadata.causation_id, Some(start.event_id.into()), "{name}");
        }
        assert_eq!(of_orders.count(), names.len());
        assert!(events.iter().all(|event| event.metadata.actor != Some(actor("kim"))), "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_try_is_that_of_a_call_that_has_failed_and_no_deadline() {
    let saga = Saga::<()>::new("late")
        .deadline(Duration::from_secs(300))
        .remote("charge", &policy("payments"), |_, _| async { Err::<(), _>(StepError::transient("not now")) })
        .retry(StepRetry { first: Duration::from_secs(60), ..StepRetry::default() })
        .no_undo("it is a test")
        .build()
        .expect("it is sound");
    let engine = Engine::new(MemoryStore::new(), saga, clock());
    let seconds = |status: SagaStatus| [status.wake_at, status.next_try].map(|at| at.map(jiff::Timestamp::as_second));
    engine.start(&id(), ()).await.expect("it is new");
    assert_eq!(seconds(engine.status(&id()).await.expect("it is there")), [Some(300), None]);
    assert_eq!(seconds(engine.run(&id()).await.expect("the store answers")), [Some(60), Some(60)]);
}
