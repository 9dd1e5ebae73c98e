//! Timers and signals in a runner.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{Clock, ManualClock, SystemClock};
use annals_sagas::{Definition, Saga, SagaError, SagaEvent, SagaInstances, SagasExt, Status};
use jiff::{SignedDuration, Timestamp};

use super::stores::{Place, on_every_store};
use super::world::{SOON, id, recorded};

on_every_store!(
    a_timer_fires_at_its_time_and_once_whatever_signals_come_and_whoever_runs_it,
    a_clock_that_is_set_forward_fires_at_once_and_one_that_is_set_back_late_and_never_twice,
    signals_that_come_at_once_are_each_taken_by_their_step_once,
);

fn paused(wait: Duration) -> Definition<()> {
    Saga::<()>::new("paused")
        .timer("pause", wait)
        .signal::<u32>("paid")
        .signal::<u32>("confirmed")
        .build()
        .expect("it is sound")
}

/// The events that say that the timer has fired, and for when it was set.
async fn fired(store: &(impl annals_eventstore::EventStore + Clone), name: &str) -> (usize, Option<Timestamp>) {
    let (events, _) = recorded(store, &id(name)).await.expect("it is read");
    let fired = events.iter().filter(|event| matches!(event, SagaEvent::Succeeded { step, .. } if step == "pause"));
    let due = events.iter().filter_map(|event| match event {
        SagaEvent::TimerSet { due, .. } => Some(*due),
        _ => None,
    });
    let (fired, due) = (fired.count(), due.collect::<Vec<_>>());
    assert_eq!(due.len(), 1, "it is set once");
    (fired, due.first().copied())
}

async fn a_timer_fires_at_its_time_and_once_whatever_signals_come_and_whoever_runs_it(place: impl Place) {
    let store = place.open().await;
    let wait = Duration::from_millis(400);
    let sagas = store.sagas().with(paused(wait)).start().await.expect("it starts");
    let before = SystemClock.now();
    sagas.start(&id("a"), ()).await.expect("it is new");
    sagas.start(&id("b"), ()).await.expect("it is new");
    for _ in 0..2 {
        tokio::time::sleep(wait / 4).await;
        sagas.signal(&id("a"), "confirmed", 1).await.expect("it fits");
    }
    let done = async |sagas: &annals_sagas::Sagas, name: &str| {
        while sagas.status(&id(name)).await.expect("it is there").done.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        SystemClock.now()
    };
    let at = tokio::time::timeout(SOON, done(&sagas, "a")).await.expect("it fires");
    let due = fired(&store, "a").await;
    assert_eq!(due.0, 1);
    assert!(due.1 >= Some(before + SignedDuration::from_millis(400)) && Some(at) >= due.1);
    sagas.close().await;
    // The other one waits in the store, and fires when somebody is there again.
    let sagas = store.sagas().with(paused(wait)).start().await.expect("it starts again");
    sagas.signal(&id("b"), "paid", 1).await.expect("it fits");
    sagas.signal(&id("b"), "confirmed", 1).await.expect("it fits");
    assert_eq!(sagas.wait_for(&id("b"), SOON).await.expect("it ends").status, Status::Completed);
    assert_eq!(fired(&store, "b").await.0, 1);
    sagas.close().await;
}

async fn a_clock_that_is_set_forward_fires_at_once_and_one_that_is_set_back_late_and_never_twice(place: impl Place) {
    let store = place.open().await;
    let day = Duration::from_secs(24 * 3_600);
    let start = Timestamp::from_second(1_000_000).expect("it is in the calendar");
    let clock = Arc::new(ManualClock::at(start));
    let sagas = store.sagas().with(paused(day)).clock(clock.clone()).look_every(Duration::from_millis(50));
    let sagas = sagas.start().await.expect("it starts");
    sagas.start(&id("a"), ()).await.expect("it is new");
    let row = async || {
        sagas.projections().caught_up(SOON).await.expect("it reads the log");
        sagas.find(&id("a")).await.expect("it is asked").expect("it is there")
    };
    let due = start + SignedDuration::from_secs(24 * 3_600);
    let waits = async { while row().await.wake_at != Some(due) {} };
    tokio::time::timeout(SOON, waits).await.expect("it waits");
    assert_eq!(row().await.current_step.as_deref(), Some("pause"));
    clock.set(start - SignedDuration::from_secs(3_600));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(fired(&store, "a").await, (0, Some(due)), "it is too early");
    clock.set(due);
    let fires = async { while row().await.current_step.as_deref() != Some("paid") {} };
    tokio::time::timeout(SOON, fires).await.expect("it fires");
    clock.set(start);
    tokio::time::sleep(Duration::from_millis(150)).await;
    clock.set(due + SignedDuration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(fired(&store, "a").await, (1, Some(due)));
    assert_eq!(row().await.wake_at, None, "only a signal ends this wait");
    sagas.close().await;
}

async fn signals_that_come_at_once_are_each_taken_by_their_step_once(place: impl Place) {
    let store = place.open().await;
    let two = Saga::<()>::new("two").signal::<u32>("paid").signal::<u32>("confirmed").build().expect("it is sound");
    let sagas = store.sagas().with(two).start().await.expect("it starts");
    let id = id("a");
    assert!(matches!(sagas.signal(&id, "paid", 1).await, Err(SagaError::NotStarted { .. })));
    sagas.start(&id, ()).await.expect("it is new");
    let (one, two, three) =
        futures::join!(sagas.signal(&id, "paid", 1), sagas.signal(&id, "paid", 2), sagas.signal(&id, "confirmed", 3));
    three.expect("it fits");
    let (first, second) = if one.is_ok() { (1, two) } else { (2, one) };
    assert!(matches!(second, Err(SagaError::SignalledBefore { .. })), "{second:?}");
    assert_eq!(sagas.wait_for(&id, SOON).await.expect("it ends").done, ["paid", "confirmed"]);
    let unfit = sagas.signal(&id, "paid", "a text").await;
    assert!(matches!(&unfit, Err(SagaError::Invalid(invalid)) if invalid.field == "payload"), "{unfit:?}");
    sagas.signal(&id, "paid", first).await.expect("it is the same, though the saga has ended");
    let late = sagas.signal(&id, "paid", 3).await;
    assert!(matches!(late, Err(SagaError::SignalledBefore { .. })), "{late:?}");
    let (events, _) = recorded(&store, &id).await.expect("it is read");
    let taken = events.iter().filter(|event| matches!(event, SagaEvent::Succeeded { .. })).count();
    assert_eq!(taken, 2);
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    let ended = sagas.projections().select::<SagaInstances>("wake_at IS NULL", &[]).await.expect("it is asked");
    assert_eq!(ended.len(), 1);
    sagas.close().await;
}
