//! When steps are undone, and how often that is tried.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_eventstore::{ManualClock, MemoryStore};
use jiff::Timestamp;

use super::checkout::policy;
use crate::{By, Engine, Intervention, Saga, SagaEvent, SagaId, Status, StepError, StepRetry};

fn id() -> SagaId {
    SagaId::new("c-1").expect("it is an id")
}

fn by() -> By {
    By::new("ada", "as the customer wished").expect("it is sound")
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH))
}

/// Money was given back while a later call, which might succeed, was on its way.
#[tokio::test(start_paused = true)]
async fn a_step_is_not_undone_while_a_later_one_is_called() {
    let called = Arc::new(AtomicBool::new(false));
    let calls = Arc::clone(&called);
    let saga = Saga::<()>::new("cancelled")
        .remote("charge", &policy("payments"), |_, _| async { Ok(()) })
        .undo(|_, _| async { Ok(()) })
        .remote("reserve", &policy("stock"), move |_, _| {
            calls.store(true, Ordering::SeqCst);
            pending::<Result<(), StepError>>()
        })
        .undo(|_, _| async { Ok(()) })
        .build()
        .expect("it is sound");
    let engine = Engine::new(MemoryStore::new(), saga, clock());
    engine.start(&id(), ()).await.expect("it is new");
    let preview = async {
        while !called.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        engine.preview(&id(), Intervention::Cancel, &by()).await.expect("it runs")
    };
    let id = id();
    tokio::select! {
        ended = engine.run(&id) => panic!("it is called: {ended:?}"),
        planned = preview => assert!(matches!(*planned, [SagaEvent::Intervened { .. }]), "{planned:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_due_again_after_its_wait() {
    let saga = Saga::<()>::new("undone")
        .remote("charge", &policy("payments"), |_, _| async { Ok(()) })
        .undo(|_, _| async { Err(StepError::transient("later")) })
        .remote("reserve", &policy("stock"), |_, _| async { Err::<(), _>(StepError::refused("sold out")) })
        .no_undo("it is the last one")
        .build()
        .expect("it is sound");
    let engine = Engine::new(MemoryStore::new(), saga, clock());
    engine.start(&id(), ()).await.expect("it is new");
    let status = engine.run(&id()).await.expect("the store answers");
    assert_eq!((status.status, status.wake_at.map(Timestamp::as_second)), (Status::Compensating, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_person_who_retries_gives_a_step_all_its_attempts_again() {
    let saga = Saga::<()>::new("retried")
        .pivot()
        .remote("ship", &policy("shipping"), |_, _| async { Err::<(), _>(StepError::transient("later")) })
        .retry(StepRetry { attempts: 2, ..StepRetry::default() })
        .build()
        .expect("it is sound");
    let clock = clock();
    let engine = Engine::new(MemoryStore::new(), saga, Arc::clone(&clock));
    engine.start(&id(), ()).await.expect("it is new");
    for _ in 0..2 {
        for expected in [Status::Running, Status::Stuck] {
            assert_eq!(engine.run(&id()).await.expect("the store answers").status, expected);
            clock.advance(Duration::from_secs(2));
        }
        engine.intervene(&id(), Intervention::Retry, &by()).await.expect("it is stuck");
    }
}
