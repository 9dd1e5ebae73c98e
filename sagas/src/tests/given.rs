//! Given / when / then: each check passes and fails as it should.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{AggregateStore, MemoryStore};

use super::checkout::{Checkout, Order, OrderId, World, checkout, policy};
use crate::testing::{SagaTest, given};
use crate::{Definition, Intervention, Saga, Status, StepError};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A checkout whose services know of no call.
fn ordered() -> SagaTest<Checkout> {
    given(Checkout::new(), |store| checkout(&Arc::new(World::default()), store)).answers("charge", 4711)
}

/// Waits for a signal, a person and an hour. The data is what was signalled.
fn waits(_: &MemoryStore) -> Definition<u32> {
    Saga::<u32>::new("waits")
        .deadline(HOUR * 24)
        .remote("begin", &policy("service"), |_, _| async { Ok(()) })
        .undo(|_, _| async { Ok(()) })
        .signal::<u32>("number")
        .keep(|data, number| *data = number)
        .approval("release")
        .timer("hour", HOUR)
        .build()
        .expect("it is sound")
}

fn message<T>(test: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).err().expect("the check fails");
    crate::text::of_panic(&*panic).to_owned()
}

#[test]
fn a_path_is_taken_as_answers_say_and_no_service_is_called() {
    let world = Arc::new(World::default());
    given(Checkout::new(), |store| checkout(&world, store))
        .answers("charge", 4711)
        .then_calls(["create do", "charge do", "reserve do", "ship do"])
        .then_status(Status::Completed)
        .then_data(|checkout| assert_eq!(checkout.payment, Some(4711)));
    assert_eq!(world.calls(), [""; 0]);

    // Each failure is that of one call, and what follows waits for its time.
    ordered()
        .fails("reserve", StepError::unknown("no answer"))
        .fails("reserve", StepError::refused("sold out"))
        .undo_fails("reserve", StepError::transient("not now"))
        .then_waits_at("reserve")
        .when_time_passed(HOUR)
        .then_status(Status::Compensated)
        .then_calls([
            "create do",
            "charge do",
            "reserve do",
            "reserve do",
            "reserve undo",
            "reserve undo",
            "charge undo",
            "create undo",
        ]);
}

#[test]
fn people_signals_and_time_act_where_the_test_says_so() {
    let waiting = || given(0, waits).then_waits_at("number").when_signalled("number", 7).then_waits_at("release");
    let released = waiting().when_approved("release", "ada").then_waits_at("hour");
    released
        .when_time_passed(HOUR - Duration::from_millis(1))
        .then_status(Status::Running)
        .when_time_passed(Duration::from_millis(1))
        .then_status(Status::Completed)
        .then_data(|number| assert_eq!(*number, 7));
    let undone = ["begin do", "begin undo"];
    waiting().when_rejected("release", "ada").then_calls(undone).then_status(Status::Compensated);
    waiting().when_intervened(Intervention::Cancel, "ada").then_calls(undone).then_status(Status::Compensated);
    waiting().when_time_passed(HOUR * 24).then_calls(undone).then_status(Status::Compensated);
}

#[tokio::test]
async fn local_steps_have_their_effect_in_the_store_of_the_test_also_in_a_runtime() {
    let test = ordered().fails("ship", StepError::refused("no address")).then_status(Status::Stuck);
    let order = test.store().aggregate::<Order>().load(&OrderId::new("o-17").expect("it is an id")).await;
    assert_eq!(*order.expect("the store answers").state, Order { placed: 1, cancelled: 0 });
    test.when_intervened(Intervention::Complete, "ada").then_status(Status::Completed);
}

#[test]
fn a_check_that_does_not_hold_fails_with_both_sides_and_what_was_recorded() {
    let calls = message(|| ordered().then_calls(["create do", "charge do", "ship do"]));
    let expected = "not the expected calls\n\
                    expected: [\"create do\", \"charge do\", \"ship do\"]\n   \
                    found: [\"create do\", \"charge do\", \"reserve do\", \"ship do\"]\nrecorded:\n  saga.started {";
    assert!(calls.starts_with(expected), "{calls}");
    assert!(
        calls.contains("\n  saga.step_succeeded {\"step\": \"charge\", \"output\": 4711")
            && calls.ends_with("\n  saga.completed {}"),
        "{calls}"
    );
    for (found, expected) in [
        (message(|| ordered().then_calls(["create do"])), "expected: [\"create do\"]\n"),
        (message(|| ordered().then_status(Status::Stuck)), "expected: Stuck\n   found: Completed\n"),
        (message(|| given(0, waits).then_waits_at("release")), "expected: \"release\"\n   found: \"number\"\n"),
        (message(|| ordered().then_waits_at("ship")), "found: \"(no step)\"\n"),
        (message(|| ordered().then_data(|checkout| assert_eq!(checkout.payment, None))), "right: None"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn what_the_saga_cannot_take_fails_with_its_reason() {
    for (found, expected) in [
        (
            message(|| ordered().fails("chrage", StepError::refused("no"))),
            "no service is called for `chrage do`; the steps",
        ),
        (message(|| ordered().answers("create", ())), "no service is called for `create do`"),
        (message(|| ordered().undo_fails("ship", StepError::refused("no"))), "no service is called for `ship undo`"),
        (message(|| given(0, waits).when_signalled("release", 1)), "`release` of saga `waits` waits for no signal"),
        (
            message(|| given(0, waits).when_approved("release", "ada")),
            "its step does not ask for approval yet\nrecorded:",
        ),
        (message(|| given(0, waits).when_approved("release", "")), "`actor` is empty"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    // An answer of the wrong type, or none where one is kept.
    let none = message(|| given(Checkout::new(), |store| checkout(&Arc::new(World::default()), store)).then_calls([]));
    assert!(none.contains("`keep` of the step `charge`: invalid type: null"), "{none}");
}
