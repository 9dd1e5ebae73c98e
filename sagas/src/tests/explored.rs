//! The explorer finds nothing wrong with a sound saga, and finds what is wrong with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_eventstore::MemoryStore;

use super::checkout::{Checkout, World, checkout, policy};
use crate::testing::{End, explore};
use crate::{Definition, Saga};

fn balances(world: &World, end: End) -> bool {
    let effects = ["payment", "stock", "shipping"].map(|service| world.effects(service));
    effects == if end.completed() { [1; 3] } else { [0; 3] }
}

#[test]
fn a_checkout_ends_completed_compensated_or_stuck_under_every_schedule() {
    let explored = explore(Checkout::new(), World::default, checkout).invariant("effects balance", balances).run();
    assert!(explored.completed > 100 && explored.compensated > 100 && explored.stuck > 10, "{explored:?}");
}

#[test]
fn parallel_branches_are_undone_each_in_its_own_order() {
    let saga = |world: &Arc<World>, _: &MemoryStore| {
        let step = |saga: Saga<()>, name: &'static str| {
            let (done, undone) = (world.clone(), world.clone());
            saga.remote(name, &policy(name), move |_, call| {
                let world = done.clone();
                async move { world.done(name, &call) }
            })
            .undo(move |_, call| {
                let world = undone.clone();
                async move { world.undone(name, &call) }
            })
        };
        Saga::<()>::new("branches")
            .parallel(|both| both.branch(|one| step(into(step(one, "a1")), "a2")).branch(|two| step(two, "b1")))
            .build()
            .expect("it is sound")
    };
    let explored = explore((), World::default, saga)
        .invariant("effects balance", |world, end| {
            ["a1", "a2", "b1"].map(|service| world.effects(service) == usize::from(end.completed())) == [true; 3]
        })
        .run();
    assert!(explored.completed > 50 && explored.compensated > 50, "{explored:?}");
}

/// The saga as one whose last step gave nothing.
fn into<O: serde::de::DeserializeOwned + 'static>(saga: Saga<(), crate::BeforePivot, O>) -> Saga<()> {
    saga.keep(|(), _| {})
}

/// A service that counts every call.
fn counts(world: &Arc<AtomicU32>, _: &MemoryStore) -> Definition<()> {
    let (charge, refund) = (world.clone(), world.clone());
    Saga::<()>::new("careless")
        .remote("charge", &policy("payment"), move |_, _| {
            charge.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        })
        .undo(move |_, _| {
            refund.fetch_sub(1, Ordering::Relaxed);
            async { Ok(()) }
        })
        .build()
        .expect("it is sound")
}

#[test]
fn a_service_that_has_its_effect_twice_is_found_with_the_shortest_schedule() {
    let failure = explore((), AtomicU32::default, counts)
        .invariant("who is charged is charged once", |charged, end| {
            charged.load(Ordering::Relaxed) == u32::from(end.completed())
        })
        .search()
        .expect_err("it is charged twice");
    insta::assert_snapshot!(failure);
}

#[test]
#[should_panic(expected = "does not hold")]
fn a_failing_schedule_can_be_run_again() {
    explore((), AtomicU32::default, counts)
        .invariant("who is charged is charged once", |charged, end| {
            charged.load(Ordering::Relaxed) == u32::from(end.completed())
        })
        .replay("2:3");
}

#[test]
fn a_step_that_says_there_is_nothing_to_undo_although_there_is_is_found() {
    let saga = |world: &Arc<World>, _: &MemoryStore| {
        let (charge, reserve) = (world.clone(), world.clone());
        Saga::<()>::new("forgetful")
            .remote("charge", &policy("payment"), move |_, call| {
                let world = charge.clone();
                async move { world.done("payment", &call) }
            })
            .no_undo("it seems to be free")
            .remote("reserve", &policy("stock"), move |_, call| {
                let world = reserve.clone();
                async move { world.done("stock", &call) }
            })
            .no_undo("it is the last one")
            .build()
            .expect("it is sound")
    };
    let failure = explore((), World::default, saga)
        .invariant("who gets nothing pays nothing", |world, end| end.completed() || world.effects("payment") == 0)
        .search()
        .expect_err("the payment is not given back");
    assert!(failure.contains("call 1 of `reserve` do: is refused"), "{failure}");
}
