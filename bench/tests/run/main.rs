//! Projections run by several processes that are killed, stopped and started at any moment: in the end the rows are those of the
//! log, and every slot has one owner.
//!
//! `ANNALS_SEED` repeats the random moments of a run.

mod appends;
mod processes;
mod projected;
#[path = "../../src/bin/annals-drive/sum.rs"]
mod sum;

use std::time::Duration;

use annals::{EventStore, StreamProjection};
use annals_scratch::Stop;
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use appends::Appends;
use processes::Runner;
use projected::{Projected, SLOTS};
use sum::Sum;

/// Long enough for a process to be scheduled while others are built and tested.
const LEASE: Duration = Duration::from_millis(300);

fn seeded() -> Rng {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    Rng::with_seed(seed)
}

async fn any_moment(random: &mut Rng) {
    sleep(Duration::from_millis(random.u64(20..400))).await;
}

/// A test on each database.
macro_rules! on_both {
    ($($test:ident,)*) => {
        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let folder = tempfile::tempdir().expect("a folder");
                super::$test(super::Projected::sqlite(folder.path()).await).await;
            }
        )*}
        mod postgres {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let database = annals_scratch::Database::empty().await;
                super::$test(super::Projected::postgres(database.url()).await).await;
            }
        )*}
    };
}

on_both! {
    rows_are_exact_after_one_of_three_processes_was_killed_at_any_moment,
    a_process_that_was_stopped_past_its_lease_writes_nothing_when_it_continues,
    slots_are_shared_again_after_processes_came_and_went_quickly,
    a_late_renewal_costs_no_lease,
    slots_without_events_are_at_the_head,
}

async fn rows_are_exact_after_one_of_three_processes_was_killed_at_any_moment(projected: Projected) {
    let mut random = seeded();
    let appends = Appends::begin(&projected, random.fork());
    let mut started = 0;
    let mut start = || {
        started += 1;
        Runner::start(&projected, &format!("runner {started}"), LEASE)
    };
    let mut runners = [start(), start(), start()];
    projected.is_shared_by(runners.each_ref()).await;
    for _ in 0..3 {
        any_moment(&mut random).await;
        let victim = &mut runners[random.usize(..3)];
        victim.kill();
        any_moment(&mut random).await;
        *victim = start();
    }
    appends.end().await;
    projected.is_shared_by(runners.each_ref()).await;
    projected.is_exact().await;
    for runner in runners {
        runner.end();
    }
    projected.is_exact().await;
}

/// Twice: once it continues while there is nothing to do, once under load.
async fn a_process_that_was_stopped_past_its_lease_writes_nothing_when_it_continues(projected: Projected) {
    let mut random = seeded();
    let runners = ["first", "second"].map(|name| Runner::start(&projected, name, LEASE));
    for under_load in [false, true] {
        let appends = Appends::begin(&projected, random.fork());
        projected.is_shared_by(runners.each_ref()).await;
        let [stopped, other] = &runners;
        loop {
            any_moment(&mut random).await;
            stopped.pause();
            if appends.go_on(LEASE).await {
                break;
            }
            // It holds the write lock of the SQLite file, and so stops all others.
            stopped.go_on();
        }
        projected.is_shared_by([other]).await;
        if under_load {
            stopped.go_on();
            projected.is_shared_by(runners.each_ref()).await;
            appends.end().await;
        } else {
            appends.end().await;
            projected.is_exact().await;
            let head = projected.all_is_stored().await;
            stopped.go_on();
            projected.is_shared_by(runners.each_ref()).await;
            assert_eq!(projected.positions().await, head, "it has moved a checkpoint");
        }
        projected.is_exact().await;
    }
    for runner in runners {
        runner.end();
    }
}

async fn slots_are_shared_again_after_processes_came_and_went_quickly(projected: Projected) {
    let mut random = seeded();
    let appends = Appends::begin(&projected, random.fork());
    let start = |name: &str| Runner::start(&projected, name, LEASE);
    let [first, second, mut third, fourth] = ["first", "second", "third", "fourth"].map(start);
    projected.is_shared_by([&first, &second, &third, &fourth]).await;
    first.end();
    third.kill();
    let fifth = start("fifth");
    second.end();
    any_moment(&mut random).await;
    fifth.end();
    projected.is_shared_by([&fourth]).await;
    appends.end().await;
    projected.is_exact().await;
    fourth.end();
}

async fn a_late_renewal_costs_no_lease(projected: Projected) {
    let mut random = seeded();
    let lease = 4 * LEASE;
    let runners = ["first", "second"].map(|name| Runner::start(&projected, name, lease));
    projected.is_shared_by(runners.each_ref()).await;
    let owners = projected.owners().await;
    projected.block_renewals("first", lease / 2).await;
    let appends = Appends::begin(&projected, random.fork());
    // Until it has renewed its leases; in a SQLite file nothing else went on either.
    sleep(lease / 2).await;
    projected.block_renewals("first", lease / 2).await;
    sleep(lease / 2).await;
    assert_eq!(projected.owners().await, owners, "a slot has another owner");
    // Close to the time of the lease, anything may happen but a wrong row.
    runners[0].pause();
    sleep(lease * 5 / 6).await;
    runners[0].go_on();
    projected.is_shared_by(runners.each_ref()).await;
    let owners = projected.owners().await;
    sleep(lease / 2).await;
    appends.end().await;
    projected.is_exact().await;
    assert_eq!(projected.owners().await, owners, "slots are moved without need");
    for runner in runners {
        runner.end();
    }
}

async fn slots_without_events_are_at_the_head(projected: Projected) {
    projected.append("only", "drive.counted", 1_000).await;
    projected.append("others", "drive.ignored", 9_000).await;
    let head = projected.store.head().await.expect("it answers").position;
    let views = projected.views().with(Sum.slots(SLOTS)).start().await.expect("it starts");
    views.wait_for(head, Duration::from_secs(30)).await.expect("it gets there");
    // What is stored is seen by others a moment before its runner says so.
    let end = Instant::now() + Duration::from_secs(30);
    while !views.status()[0].slots.iter().all(|slot| slot.position == head) {
        assert!(Instant::now() < end, "{:?}", views.status());
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(views.status()[0].applied, 1_000);
    views.close().await;
    let stored = projected.positions().await;
    assert_eq!(stored, vec![head.get(); SLOTS as usize], "nothing is read again");

    let again = projected.views().with(Sum.slots(SLOTS)).start().await.expect("it starts");
    again.wait_for(head, Duration::from_secs(10)).await.expect("it is there");
    assert_eq!(again.status()[0].applied, 0);
    again.close().await;
    projected.is_exact().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runners_go_on_after_a_restart_of_postgresql() {
    let server = std::sync::Arc::new(blocking(|| annals_scratch::Server::start(&[])).await);
    let projected = Projected::postgres(&server.url("postgres")).await;
    let mut random = seeded();
    let appends = Appends::begin(&projected, random.fork());
    let runners = ["first", "second"].map(|name| Runner::start(&projected, name, LEASE));
    projected.is_shared_by(runners.each_ref()).await;
    for how in [Stop::Immediate, Stop::Fast] {
        any_moment(&mut random).await;
        let server = std::sync::Arc::clone(&server);
        blocking(move || server.restart(how)).await;
        assert!(appends.go_on(Duration::from_secs(10)).await, "the store does not go on");
    }
    appends.end().await;
    projected.is_shared_by(runners.each_ref()).await;
    projected.is_exact().await;
    for runner in runners {
        runner.end();
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}
