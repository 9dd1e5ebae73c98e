//! What a process takes and leaves, without a store.

use std::time::Duration;

use annals_eventstore::Tenant;

use crate::instance::SagaId;
use crate::runner::any_saga::Key;
use crate::runner::in_flight::{Begin, InFlight};

const LEASE: Duration = Duration::from_secs(5);

fn key(id: &str) -> Key {
    Key { tenant: Tenant::default(), id: SagaId::new(id).expect("it is an id") }
}

fn takes(runs: &InFlight, id: &str, row: Option<i64>) -> bool {
    matches!(runs.begin(&key(id), 0, row, LEASE), Begin::Run(_))
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_older_than_what_was_done_here_is_not_taken_and_one_that_is_not_is() {
    let runs = InFlight::new(10);
    assert!(takes(&runs, "a", None));
    assert!(!takes(&runs, "a", Some(1)), "it runs");
    assert!(!runs.ended(&key("a"), Some(7)), "a row is no reason to run it again");
    assert!(!takes(&runs, "a", Some(6)));
    assert!(takes(&runs, "a", Some(7)), "what waited at this version is due now");
    assert!(!takes(&runs, "a", None), "it runs");
    assert!(runs.ended(&key("a"), Some(8)), "a signal that came meanwhile is a reason");
    assert!(!runs.ended(&key("a"), Some(9)));
}

/// A log that was set back has lower versions: what a process remembers of them must end, or it leaves the instance for ever.
#[tokio::test(start_paused = true)]
async fn what_was_done_here_is_remembered_for_a_minute() {
    let runs = InFlight::new(10);
    assert!(takes(&runs, "a", None));
    assert!(!runs.ended(&key("a"), Some(7)));
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(!takes(&runs, "a", Some(6)));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(takes(&runs, "a", Some(6)));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_after_growing_waits() {
    let runs = InFlight::new(10);
    for wait in [100, 200, 400] {
        assert!(takes(&runs, "a", Some(1)));
        assert!(!runs.ended(&key("a"), None));
        tokio::time::advance(Duration::from_millis(wait - 1)).await;
        assert!(!takes(&runs, "a", Some(1)), "after {wait} ms");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!(takes(&runs, "a", Some(1)));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_most_run_and_a_slot_is_left_when_nothing_of_it_runs() {
    let runs = InFlight::new(1);
    let Begin::Run(control) = runs.begin(&key("a"), 3, None, LEASE) else { panic!("there is room") };
    assert!(matches!(runs.begin(&key("b"), 4, None, LEASE), Begin::Full));
    assert_eq!((runs.count(), runs.room()), (1, 0));
    assert!(runs.may_leave(4));
    assert!(!runs.may_leave(3));
    assert!(control.is_stopped(), "it begins no further call");
    assert!(!runs.ended(&key("a"), Some(1)));
    assert!(runs.take_was_full() && !runs.take_was_full());
    assert!(runs.may_leave(3));
    assert!(matches!(runs.begin(&key("a"), 3, Some(1), LEASE), Begin::Not), "the slot is on its way");
    tokio::time::advance(LEASE).await;
    assert!(matches!(runs.begin(&key("a"), 3, Some(1), LEASE), Begin::Run(_)), "nobody has taken it");
}
