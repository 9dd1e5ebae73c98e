//! Waits share what is asked of the database: none keeps it from the others.

use std::sync::mpsc;
use std::time::Duration;

use annals_eventstore::EventStore;

use super::accounts::AccountEvent;
use super::fixture::Fixture;
use crate::WaitError;

/// The caller's own runtime had the turn of all waits, and did not go on.
#[tokio::test]
async fn a_wait_in_a_runtime_that_is_driven_no_more_keeps_no_other_waiting() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let last = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    let held = shop.models.hold_looks().await;
    let (begun, is_begun) = mpsc::channel();
    let (end, is_end) = mpsc::channel::<()>();
    let elsewhere = std::thread::spawn({
        let (views, most) = (views.clone(), shop.soon());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut wait = Box::pin(views.wait_for(last, most));
                for _ in 0..5 {
                    assert!(futures::poll!(&mut wait).is_pending());
                    tokio::task::yield_now().await;
                }
            });
            begun.send(()).unwrap();
            // The runtime is kept for the next call.
            is_end.recv().ok();
        }
    });
    is_begun.recv().unwrap();
    drop(held);
    views.wait_for(last, shop.soon()).await.expect("it has its turn");
    views.progress().await.expect("so has this");
    end.send(()).unwrap();
    elsewhere.join().unwrap();
    views.close().await;
}

/// Each that gave up while the database did not answer kept a task until it did.
#[tokio::test(start_paused = true)]
async fn waits_that_have_given_up_leave_one_task_in_all() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let last = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let held = shop.models.hold_looks().await;
    for _ in 0..3 {
        let waits = (0..50).map(|_| views.wait_for(last, Duration::from_millis(150)));
        for ended in futures::future::join_all(waits).await {
            assert!(matches!(ended, Err(WaitError::Unavailable(_))), "{ended:?}");
        }
        // They end when they are polled next.
        tokio::task::yield_now().await;
        assert!(tasks() <= before + 1, "{} tasks, {before} before", tasks());
    }
    drop(held);
    let head = shop.store.head().await.unwrap().position;
    views.wait_for(head, shop.soon()).await.expect("it answers again");
    views.close().await;
}
