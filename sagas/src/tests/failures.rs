//! Steps that fail in a way which they do not report: each instance ends or is stuck all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use annals_eventstore::{AggregateStore, Decide, ManualClock, MemoryStore, SystemClock};
use annals_resilience::Policy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::checkout::{Cancel, Order, OrderEvent, OrderId, Place, policy};
use crate::{
    By, Call, Definition, Engine, Intervention, Saga, SagaData, SagaId, Status, StepError, StepRetry, command,
};

fn id() -> SagaId {
    SagaId::new("c-1").expect("it is an id")
}

const FEW: StepRetry = StepRetry { attempts: 3, first: Duration::from_millis(1), most: Duration::from_millis(1) };

/// One step whose calls answer as `answer` does; the counters are of its calls and its undos.
fn one(answer: impl Fn() -> Result<Value, StepError> + Send + Sync + 'static) -> (Definition<()>, Arc<[AtomicU32; 2]>) {
    let counted = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let (calls, undos) = (Arc::clone(&counted), Arc::clone(&counted));
    let called = move |_, _: Call| {
        calls[0].fetch_add(1, Ordering::SeqCst);
        let answer = answer();
        async { answer }
    };
    let saga = Saga::<()>::new("one")
        .remote("charge", &policy("payments"), called)
        .retry(FEW)
        .undo(move |_, _| {
            undos[1].fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        })
        .build()
        .expect("it is sound");
    (saga, counted)
}

/// Runs it to its end. What the calls and undos were, and why it was not completed.
async fn run(answer: impl Fn() -> Result<Value, StepError> + Send + Sync + 'static) -> (Status, [u32; 2], String) {
    let (saga, counted) = one(answer);
    let engine = Engine::new(MemoryStore::new(), saga, SystemClock);
    engine.start(&id(), ()).await.expect("it is new");
    let ended = tokio::time::timeout(Duration::from_secs(600), engine.run_to_end(&id())).await;
    let ended = ended.expect("it ends").expect("it can be recorded");
    (ended.status, [0, 1].map(|which: usize| counted[which].load(Ordering::SeqCst)), ended.reason.unwrap_or_default())
}

/// The money was taken and the answer cannot be stored: the call was made again for ever, and the money was not given back.
#[tokio::test]
async fn an_output_that_cannot_be_recorded_is_of_unknown_outcome_and_is_undone() {
    let nested = (0..70).fold(json!(1), |inner, _| json!([inner]));
    for output in [json!("x".repeat(1_100_000)), nested, json!("a\0b")] {
        let (status, counts, reason) = run(move || Ok(output.clone())).await;
        assert_eq!((status, counts), (Status::Compensated, [3, 1]), "{reason}");
        assert!(reason.contains("its output cannot be recorded"), "{reason}");
    }
}

#[tokio::test]
async fn what_a_service_says_is_recorded_however_it_says_it() {
    for text in ["a\0b".to_owned(), "x".repeat(1_100_000)] {
        let refused = text.clone();
        let (status, counts, reason) = run(move || Err(StepError::refused(&refused))).await;
        assert_eq!((status, counts), (Status::Compensated, [1, 0]));
        assert!(reason.len() < 2_100 && !reason.contains('\0'), "{reason}");
        let (status, counts, _) = run(move || Err(StepError::unknown(&text))).await;
        assert_eq!((status, counts), (Status::Compensated, [3, 1]));
    }
}

#[tokio::test]
async fn a_call_that_panics_is_of_unknown_outcome_and_is_made_as_often_as_is_said() {
    let (status, counts, reason) = run(|| panic!("on purpose")).await;
    assert_eq!((status, counts), (Status::Compensated, [3, 1]));
    assert!(reason.contains("it panicked: on purpose"), "{reason}");
}

/// A step that ends its process would end each process that takes the instance over.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_interrupted_each_time_is_made_five_times_and_undone() {
    let counted = Arc::new(AtomicU32::new(0));
    let calls = Arc::clone(&counted);
    let saga = Saga::<()>::new("one")
        .remote("charge", &policy("payments"), move |_, _| {
            calls.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<(), StepError>>()
        })
        .retry(StepRetry { attempts: 1, ..FEW })
        .undo(|_, _| async { Ok(()) })
        .build()
        .expect("it is sound");
    let engine = Engine::new(MemoryStore::new(), saga, Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH)));
    engine.start(&id(), ()).await.expect("it is new");
    for _ in 0..5 {
        let cut = tokio::time::timeout(Duration::from_millis(10), engine.run(&id())).await;
        assert!(cut.is_err(), "{cut:?}");
    }
    let ended = engine.run(&id()).await.expect("the store answers");
    assert_eq!((ended.status, counted.load(Ordering::SeqCst)), (Status::Compensated, 5));
}

struct Panics;

impl Decide<Panics> for Order {
    type Rejection = &'static str;

    fn decide(&self, _: &Panics) -> Result<Vec<OrderEvent>, &'static str> {
        panic!("on purpose")
    }
}

struct Many;

impl Decide<Many> for Order {
    type Rejection = &'static str;

    fn decide(&self, _: &Many) -> Result<Vec<OrderEvent>, &'static str> {
        Ok((0..100_000).map(|_| OrderEvent::Placed).collect())
    }
}

fn order() -> OrderId {
    OrderId::new("o-17").expect("it is an id")
}

#[tokio::test]
async fn a_local_step_that_panics_is_stuck_until_a_person_retries_it_in_a_build_that_does_not() {
    let store = MemoryStore::new();
    let orders = store.aggregate::<Order>();
    let repaired = Arc::new(AtomicBool::new(false));
    let is_repaired = Arc::clone(&repaired);
    let placed = orders.clone();
    let saga = Saga::<()>::new("local")
        .local("create", move |()| match is_repaired.load(Ordering::SeqCst) {
            true => command(&placed, order(), Place),
            false => command(&placed, order(), Panics),
        })
        .undo(move |()| command(&orders, order(), Cancel))
        .build()
        .expect("it is sound");
    let engine = Engine::new(store, saga, SystemClock);
    engine.start(&id(), ()).await.expect("it is new");
    let stuck = engine.run(&id()).await.expect("the store answers");
    assert_eq!((stuck.status, stuck.stuck_at.as_deref()), (Status::Stuck, Some("create")));
    assert_eq!(stuck.reason.as_deref(), Some("the do of `create`: it panicked: on purpose"));
    repaired.store(true, Ordering::SeqCst);
    let by = By::new("ada", "repaired").expect("it is sound");
    engine.intervene(&id(), Intervention::Retry, &by).await.expect("it is stuck");
    assert_eq!(engine.run(&id()).await.expect("the store answers").status, Status::Completed);
}

#[tokio::test]
async fn a_local_step_whose_events_cannot_be_recorded_is_refused() {
    let store = MemoryStore::new();
    let orders = store.aggregate::<Order>();
    let undone = orders.clone();
    let saga = Saga::<()>::new("local")
        .local("create", move |()| command(&orders, order(), Many))
        .undo(move |()| command(&undone, order(), Cancel))
        .build()
        .expect("it is sound");
    let engine = Engine::new(store, saga, SystemClock);
    engine.start(&id(), ()).await.expect("it is new");
    let ended = engine.run(&id()).await.expect("the store answers");
    assert_eq!(ended.status, Status::Compensated);
    assert!(ended.reason.expect("it says why").contains("its events cannot be recorded"));
}

/// Whatever a build cannot read was tried again for ever, calls included, and nobody learnt of it.
#[tokio::test]
async fn an_instance_whose_data_does_not_fit_a_build_is_stuck_before_anything_is_called() {
    #[derive(Serialize, Deserialize, Clone)]
    struct Old {
        cents: u32,
    }
    #[derive(Serialize, Deserialize, Clone)]
    struct New {
        cents: u32,
        currency: String,
    }
    fn steps<C: SagaData>(calls: &Arc<AtomicU32>) -> Definition<C> {
        let calls = Arc::clone(calls);
        Saga::<C>::new("changed")
            .signal::<u32>("confirmed")
            .remote("charge", &policy("payments"), move |_, _| {
                calls.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            })
            .no_undo("it is a test")
            .build()
            .expect("it is sound")
    }
    let (store, calls) = (MemoryStore::new(), Arc::new(AtomicU32::new(0)));
    let old = Engine::new(store.clone(), steps::<Old>(&calls), SystemClock);
    let new = Engine::new(store, steps::<New>(&calls), SystemClock);
    old.start(&id(), Old { cents: 5 }).await.expect("it is new");
    old.run(&id()).await.expect("the store answers");
    new.signal(&id(), "confirmed", 1).await.expect("it fits");
    let stuck = new.run(&id()).await.expect("the store answers");
    let reason = "its data does not fit this build: missing field `currency`";
    assert_eq!((stuck.status, stuck.reason.as_deref()), (Status::Stuck, Some(reason)));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let by = By::new("ada", "rolled back").expect("it is sound");
    old.intervene(&id(), Intervention::Retry, &by).await.expect("it is stuck");
    assert_eq!(old.run(&id()).await.expect("the store answers").status, Status::Completed);
}

/// What a step gives is kept also if it is nothing; only what a person skipped gives nothing to keep.
#[tokio::test]
async fn an_output_that_is_nothing_is_kept_too_and_a_panic_in_keep_is_stuck() {
    let saga = Saga::<Value>::new("kept")
        .remote("a", &policy("a"), |_, _| async { Ok(()) })
        .keep(|data, ()| *data = json!({ "a": "done" }))
        .no_undo("it is a test")
        .remote("b", &policy("b"), |_, _| async { Ok(None::<u32>) })
        .keep(|data, b: Option<u32>| data["b"] = json!(format!("{b:?}")))
        .no_undo("it is a test")
        .remote("c", &policy("c"), |data, _| async move {
            if *data == json!({ "a": "done", "b": "None" }) { Ok(()) } else { Err(StepError::refused(data)) }
        })
        .keep(|_, ()| panic!("on purpose"))
        .no_undo("it is a test")
        .remote("d", &policy("d"), |_, _| async { Ok(()) })
        .no_undo("it is a test")
        .build()
        .expect("it is sound");
    let store = MemoryStore::new();
    let engine = Engine::new(store, saga, SystemClock);
    engine.start(&id(), json!(null)).await.expect("it is new");
    drop(engine.run(&id()).await);
    let stuck = engine.run(&id()).await.expect("the store answers");
    assert_eq!(stuck.status, Status::Stuck, "{stuck:?}");
    assert!(stuck.reason.expect("it says why").contains("`keep` of the step `c`: it panicked: on purpose"));
}

/// The second reason was empty, as a decision about the first one had cleared it.
#[tokio::test]
async fn of_two_steps_that_fail_each_has_its_own_reason() {
    let refuses = |reason: &'static str| move |_, _: Call| async move { Err::<(), _>(StepError::refused(reason)) };
    let once = StepRetry { attempts: 1, ..FEW };
    let saga = Saga::<()>::new("both")
        .pivot()
        .parallel(|both| {
            both.branch(|one| one.remote("a", &policy("a"), refuses("no a")).retry(once))
                .branch(|two| two.remote("b", &policy("b"), refuses("no b")).retry(once))
        })
        .build()
        .expect("it is sound");
    let engine = Engine::new(MemoryStore::new(), saga, SystemClock);
    engine.start(&id(), ()).await.expect("it is new");
    let by = By::new("ada", "done by hand").expect("it is sound");
    let mut reasons = Vec::new();
    while let stuck = engine.run(&id()).await.expect("the store answers")
        && stuck.status == Status::Stuck
    {
        reasons.push((stuck.stuck_at.expect("it is a step"), stuck.reason.expect("it says why")));
        engine.intervene(&id(), Intervention::Skip, &by).await.expect("it is stuck");
    }
    let (a, b) = ("`a` was refused: no a", "`b` was refused: no b");
    assert_eq!(reasons[1], ("b".to_owned(), b.to_owned()));
    assert!(reasons.len() == 2 && reasons[0].0 == "a" && [a, b].contains(&reasons[0].1.as_str()), "{reasons:?}");
}

/// Orders were cancelled because too many came at once.
#[tokio::test]
async fn a_call_that_a_guard_of_its_policy_refuses_is_no_attempt() {
    let full = Policy::medium("payments").bulkhead(1).build().expect("it is sound");
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let saga = Saga::<()>::new("many")
        .remote("charge", &full, move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            }
        })
        .retry(StepRetry { attempts: 1, first: Duration::from_millis(5), most: Duration::from_millis(50) })
        .undo(|_, _| async { Ok(()) })
        .build()
        .expect("it is sound");
    let engine = Engine::new(MemoryStore::new(), saga, SystemClock);
    let ended = (0..30).map(|number| {
        let engine = engine.clone();
        async move {
            let id = SagaId::new(format!("m-{number}")).expect("it is an id");
            engine.start(&id, ()).await.expect("it is new");
            engine.run_to_end(&id).await.expect("the store answers").status
        }
    });
    assert_eq!(futures::future::join_all(ended).await, [Status::Completed; 30]);
    assert_eq!(calls.load(Ordering::SeqCst), 30);
}
