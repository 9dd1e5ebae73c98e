use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn bulkhead(slots: u32, queue: u32, wait: Option<Duration>) -> Bulkhead {
    Bulkhead::new("stock", BulkheadSettings { slots, queue, wait }).unwrap()
}

#[tokio::test(start_paused = true)]
async fn waiters_that_gave_up_leave_no_trace() {
    let bulkhead = bulkhead(8, 8, Some(ms(100)));
    for round in 0..1_000 {
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let slot = bulkhead.try_enter().unwrap_or_else(|| panic!("a slot was lost before round {round}"));
            tasks.spawn(async move {
                sleep(ms(1_000)).await;
                drop(slot);
            });
        }
        sleep(ms(100)).await;
        for waiter in 0..8 {
            let bulkhead = bulkhead.clone();
            tasks.spawn(async move {
                if waiter % 2 == 0 {
                    let refused = bulkhead.enter(Deadline::NONE).await.unwrap_err();
                    assert_eq!(refused, NoSlot::WaitedTooLong { limit: ms(100) });
                } else {
                    let dropped = timeout(ms(50), bulkhead.enter(Deadline::NONE)).await;
                    assert!(dropped.is_err());
                }
            });
        }
        sleep(ms(899)).await;
        assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (8, 0));
        sleep(ms(2)).await;
        while tasks.join_next().await.is_some() {}
        let mut at_once: Vec<_> = (0..8).map(|_| bulkhead.try_enter().expect("a slot is free")).collect();
        let mut ninth = Box::pin(bulkhead.enter(Deadline::NONE));
        assert!((&mut ninth).now_or_never().is_none(), "the ninth waits");
        at_once.pop();
        assert!(ninth.await.is_ok());
        drop(at_once);
        assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_waiters_leave_the_queue_and_the_others_run_in_the_order_they_came() {
    let bulkhead = bulkhead(1, 40, None);
    let running = bulkhead.try_enter().unwrap();
    let mut dropped = JoinSet::new();
    for _ in 0..40 {
        let bulkhead = bulkhead.clone();
        dropped.spawn(async move { bulkhead.enter(Deadline::NONE).await.map(drop) });
    }
    sleep(ms(100)).await;
    assert_eq!(bulkhead.waiting(), 40);
    dropped.shutdown().await;
    sleep(ms(50)).await;
    assert_eq!(bulkhead.waiting(), 0);

    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for number in 0..41 {
        let (bulkhead, order) = (bulkhead.clone(), order.clone());
        tasks.spawn(async move {
            let slot = bulkhead.enter(Deadline::NONE).await?;
            order.lock().unwrap().push(number);
            sleep(ms(1)).await;
            drop(slot);
            Ok::<_, NoSlot>(())
        });
        tokio::task::yield_now().await;
    }
    sleep(ms(1)).await;
    assert_eq!(bulkhead.waiting(), 40);
    drop(running);
    let refused: Vec<_> = tasks.join_all().await.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused, [NoSlot::Full { slots: 1, queue: 40 }]);
    assert_eq!(*order.lock().unwrap(), (0..40).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_wait() {
    let bulkhead = bulkhead(1, 1, Some(ms(100)));
    let _slot = bulkhead.try_enter().unwrap();
    let start = Instant::now();
    assert_eq!(bulkhead.enter(Deadline::within(ms(30))).await.unwrap_err(), NoSlot::DeadlineOver);
    assert_eq!(start.elapsed(), ms(30));
    assert_eq!(bulkhead.enter(Deadline::within(ms(300))).await.unwrap_err(), NoSlot::WaitedTooLong { limit: ms(100) });
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refused =
        |slots, queue, wait| Bulkhead::new("stock", BulkheadSettings { slots, queue, wait }).unwrap_err().to_string();
    let messages = [refused(0, 1, None), refused(2_000_000, 1, None), refused(1, 1, Some(Duration::ZERO))];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn many_threads_never_exceed_the_slots_and_lose_none() {
    let bulkhead = bulkhead(3, 5, Some(ms(2)));
    let (inside, waiting_seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..12_u64 {
            let (bulkhead, inside, waiting_seen) = (&bulkhead, &inside, &waiting_seen);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let mut rng = fastrand::Rng::with_seed(thread);
                for _ in 0..300 {
                    runtime.block_on(async {
                        let entered = tokio::select! {
                            slot = bulkhead.enter(Deadline::NONE) => slot,
                            () = sleep(Duration::from_micros(rng.u64(0..3_000))) => return,
                        };
                        waiting_seen.fetch_max(bulkhead.waiting() as usize, Ordering::SeqCst);
                        if let Ok(_slot) = entered {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                            if rng.bool() {
                                tokio::task::yield_now().await;
                            }
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                }
            });
        }
    });
    assert!(waiting_seen.into_inner() <= 5);
    assert_eq!((bulkhead.in_use(), bulkhead.waiting()), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Arrive,
    /// Ends one of the running calls.
    Leave(usize),
    /// Drops one of the waiting callers.
    GiveUp(usize),
}

proptest! {
    #![proptest_config(crate::cases::cases(300))]

    /// A queue of numbers is the model: who runs, who waits, who is refused, after every arrival, end and drop.
    #[test]
    fn random_programs_agree_with_a_queue_of_numbers(
        slots in 1..4_u32,
        queue in 0..4_u32,
        steps in prop::collection::vec(
            prop_oneof![
                3 => Just(Step::Arrive),
                2 => (0..4_usize).prop_map(Step::Leave),
                1 => (0..4_usize).prop_map(Step::GiveUp),
            ],
            1..80,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let bulkhead = bulkhead(slots, queue, None);
        let mut running: Vec<(usize, Slot)> = Vec::new();
        let mut waiting: Vec<(usize, BoxFuture<'_, Result<Slot, NoSlot>>)> = Vec::new();
        let (mut model_running, mut model_waiting) = (Vec::<usize>::new(), VecDeque::<usize>::new());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Arrive => {
                    let mut future = bulkhead.enter(Deadline::NONE).boxed();
                    let answer = (&mut future).now_or_never();
                    if (model_running.len() as u32) < slots {
                        model_running.push(number);
                    } else if (model_waiting.len() as u32) < queue {
                        model_waiting.push_back(number);
                    } else {
                        prop_assert_eq!(answer.map(Result::unwrap_err), Some(NoSlot::Full { slots, queue }));
                        continue;
                    }
                    match answer {
                        Some(slot) => running.push((number, slot.unwrap())),
                        None => waiting.push((number, future)),
                    }
                }
                Step::Leave(which) if which < running.len() => {
                    let (number, slot) = running.remove(which);
                    drop(slot);
                    model_running.retain(|running| *running != number);
                    model_running.extend(model_waiting.pop_front());
                    // Polled in the reverse order: it is the order of arrival that counts.
                    for index in (0..waiting.len()).rev() {
                        if let Some(slot) = (&mut waiting[index].1).now_or_never() {
                            let (number, _) = waiting.remove(index);
                            running.push((number, slot.unwrap()));
                        }
                    }
                }
                Step::GiveUp(which) if which < waiting.len() => {
                    let (number, future) = waiting.remove(which);
                    drop(future);
                    model_waiting.retain(|waiting| *waiting != number);
                }
                Step::Leave(_) | Step::GiveUp(_) => {}
            }
            let mut now: Vec<_> = running.iter().map(|(number, _)| *number).collect();
            now.sort_unstable();
            model_running.sort_unstable();
            prop_assert_eq!(&now, &model_running);
            let now: Vec<_> = waiting.iter().map(|(number, _)| *number).collect();
            prop_assert_eq!(now, model_waiting.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(bulkhead.in_use() as usize, model_running.len());
            prop_assert_eq!(bulkhead.waiting() as usize, model_waiting.len());
        }
    }
}

#[tokio::test]
async fn blocking_work_has_threads_of_its_own_and_keeps_its_slot_until_it_is_done() {
    let pool = BlockingPool::new("images", BulkheadSettings { slots: 1, queue: 1, wait: None }).unwrap();
    let name = pool.run(Deadline::NONE, || std::thread::current().name().map(str::to_owned)).await;
    assert_eq!(name, Ok(Some("images".to_owned())));
    let panics = pool.run(Deadline::NONE, || panic!("of the work")).await;
    assert_eq!(panics, Err(BlockingError::Panicked));

    let (go, wait) = std::sync::mpsc::channel::<()>();
    let dropped = pool.run(Deadline::NONE, move || wait.recv());
    assert!(timeout(ms(50), dropped).await.is_err());
    assert_eq!(pool.bulkhead().in_use(), 1, "its caller left, but the work still blocks the thread");
    let refused = pool.run(Deadline::within(ms(50)), || ()).await;
    assert_eq!(refused, Err(BlockingError::NoSlot(NoSlot::DeadlineOver)));
    go.send(()).unwrap();
    assert_eq!(pool.run(Deadline::NONE, || 7).await, Ok(7));
}

#[tokio::test]
async fn the_slot_of_blocking_work_is_free_when_its_caller_goes_on() {
    let pool = BlockingPool::new("images", BulkheadSettings { slots: 1, queue: 0, wait: None }).unwrap();
    for number in 0..1_000 {
        assert_eq!(pool.run(Deadline::NONE, move || number).await, Ok(number));
    }
}

/// The result of work whose caller has left is dropped on the thread.
#[tokio::test]
async fn a_result_that_panics_when_it_is_dropped_costs_no_thread() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let pool = BlockingPool::new("images", BulkheadSettings { slots: 1, queue: 4, wait: None }).unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let left = pool.run(Deadline::NONE, move || {
        wait.recv().ok();
        Panics
    });
    assert!(timeout(ms(20), left).await.is_err());
    drop(go);
    assert_eq!(timeout(ms(5_000), pool.run(Deadline::NONE, || 7)).await, Ok(Ok(7)));
}

#[test]
fn a_settings_file_gives_a_number_of_slots_or_a_table() {
    let read = |text: &str| serde_json::from_str::<BulkheadSettings>(text);
    assert_eq!(read("8").unwrap(), BulkheadSettings::from(8));
    assert_eq!(read(r#"{"slots": 8}"#).unwrap(), BulkheadSettings::from(8));
    let full = BulkheadSettings { slots: 8, queue: 0, wait: None };
    assert_eq!(read(r#"{"slots": 8, "queue": 0, "wait": null}"#).unwrap(), full);
    assert_eq!(read(&serde_json::to_string(&full).unwrap()).unwrap(), full);
    for wrong in ["-1", "4294967296", r#""8""#] {
        let refused = read(wrong).unwrap_err().to_string();
        assert!(refused.contains("expected a number of slots, or a table"), "{refused}");
    }
    assert!(read(r#"{"slots": 8, "places": 1}"#).unwrap_err().to_string().contains("unknown field `places`"));
    assert!(read(r#"{"queue": 8}"#).unwrap_err().to_string().contains("missing field `slots`"));
}
