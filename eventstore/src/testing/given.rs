//! Given / when / then for aggregates: past events, a command, the expected result.

use std::fmt::Debug;

use super::stored::{read_back, show, side_by_side};
use crate::aggregate::{Decide, Evolve, IntoEvents};
use crate::event::Event;

/// Begins a test of an aggregate: these events have happened, in this order.
///
/// Every event that such a test meets is also written as JSON and read back, so that what serde would lose or could not
/// read shows here. Events are compared by their stored name, schema version and payload; they need no `PartialEq`.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::testing::{given, given_nothing};
///
/// given::<Order>([OrderEvent::Placed { total: 12_00 }])
///     .when(|order| order.pay(12_00))
///     .then([OrderEvent::Paid { amount: 12_00 }])
///     .then_state(|order| assert!(order.paid));
///
/// given::<Order>([OrderEvent::Placed { total: 12_00 }, OrderEvent::Paid { amount: 12_00 }])
///     .when_command(Pay { amount: 12_00 })
///     .then_nothing();
///
/// given_nothing::<Order>()
///     .when(|order| order.pay(12_00))
///     .then_rejected(OrderError::NotPlaced);
/// ```
///
/// # Panics
/// If one of the events is not the same after being stored.
#[track_caller]
pub fn given<A: Evolve>(events: impl IntoEvents<A::Event>) -> Given<A> {
    let mut state = A::default();
    for event in events.into_events() {
        state.evolve(&read_back("a given event", &event));
    }
    Given { state }
}

/// Begins a test of an aggregate to which nothing has happened; [`given`] has an example.
pub fn given_nothing<A: Evolve>() -> Given<A> {
    Given { state: A::default() }
}

/// An aggregate with past events; created by [`given`].
#[must_use = "nothing is checked before `then`"]
pub struct Given<A> {
    state: A,
}

impl<A: Evolve> Given<A> {
    /// Decides, as [`Repository::execute`](crate::Repository::execute) would.
    ///
    /// # Panics
    /// If `decide` is not pure: a second run on the same state must give the same.
    #[track_caller]
    pub fn when<T, R, F>(self, decide: F) -> Decided<A, R>
    where
        T: IntoEvents<A::Event>,
        F: Fn(&A) -> Result<T, R>,
    {
        let outcome = decide(&self.state).map(IntoEvents::into_events);
        let again = decide(&self.state).map(IntoEvents::into_events);
        let (first, second) = (outcome.as_deref().ok().map(lines), again.as_deref().ok().map(lines));
        if first != second {
            let shown = |lines: Option<Vec<String>>| lines.unwrap_or_else(|| vec!["(a rejection)".to_owned()]);
            panic!(
                "two decisions on the same state differ, but a command may be decided several times; take times and ids \
                 from the command\n{}",
                side_by_side(("first", &shown(first)), ("second", &shown(second)))
            );
        }
        Decided { state: self.state, outcome }
    }

    /// Decides on a command, as [`Repository::send`](crate::Repository::send) would.
    ///
    /// # Panics
    /// As of [`Given::when`].
    #[track_caller]
    pub fn when_command<C>(self, command: C) -> Decided<A, <A as Decide<C>>::Rejection>
    where
        A: Decide<C>,
    {
        self.when(|state: &A| state.decide(&command))
    }

    /// Checks the state after the given events.
    ///
    /// # Panics
    /// If `look` does.
    #[track_caller]
    pub fn then_state(self, look: impl FnOnce(&A)) -> Then<A> {
        look(&self.state);
        Then { state: self.state }
    }
}

/// The decision: events, or a rejection of type `R`.
#[must_use = "nothing is checked before `then`"]
pub struct Decided<A: Evolve, R> {
    state: A,
    outcome: Result<Vec<A::Event>, R>,
}

impl<A: Evolve, R: Debug> Decided<A, R> {
    /// Checks that exactly these events were decided, in this order.
    ///
    /// # Panics
    /// If not, with both sides; or if one of the events is not the same after being stored.
    #[track_caller]
    pub fn then(self, expected: impl IntoEvents<A::Event>) -> Then<A> {
        let expected = expected.into_events();
        for event in &expected {
            read_back("an expected event", event);
        }
        let expected = lines(&expected);
        match &self.outcome {
            Ok(found) if lines(found) == expected => {}
            Ok(found) => {
                panic!(
                    "other events than expected\n{}",
                    side_by_side(("expected", &expected), ("found", &lines(found)))
                );
            }
            Err(rejection) => panic!(
                "a rejection instead of events\n{}",
                side_by_side(("expected", &expected), ("found", &[format!("rejected: {rejection:?}")]))
            ),
        }
        let mut state = self.state;
        for event in self.outcome.into_iter().flatten() {
            state.evolve(&read_back("a decided event", &event));
        }
        Then { state }
    }

    /// Checks that the command was accepted and led to no events.
    ///
    /// # Panics
    /// If not; the message shows the actual decision.
    #[track_caller]
    pub fn then_nothing(self) -> Then<A> {
        self.then(Vec::new())
    }

    /// Checks that the domain rejects the command, for this reason.
    ///
    /// # Panics
    /// If not, with both sides.
    #[track_caller]
    pub fn then_rejected(self, expected: R) -> Then<A>
    where
        R: PartialEq,
    {
        let found = match &self.outcome {
            Err(rejection) if *rejection == expected => return Then { state: self.state },
            Err(rejection) => vec![format!("rejected: {rejection:?}")],
            Ok(events) => lines(events),
        };
        panic!(
            "not the expected rejection\n{}",
            side_by_side(("expected", &[format!("rejected: {expected:?}")]), ("found", &found))
        );
    }

    /// Checks that the domain rejects the command, and returns the reason: for rejections that cannot be compared.
    ///
    /// # Panics
    /// If events were decided, with these.
    #[track_caller]
    pub fn rejection(self) -> R {
        match self.outcome {
            Err(rejection) => rejection,
            Ok(events) => panic!(
                "events instead of a rejection\n{}",
                side_by_side(("expected", &["rejected".to_owned()]), ("found", &lines(&events)))
            ),
        }
    }
}

/// A check that has passed, and the state after it.
pub struct Then<A> {
    state: A,
}

impl<A> Then<A> {
    /// Checks the state after the decided events, which is the state before if there were none.
    ///
    /// # Panics
    /// If `look` does.
    #[track_caller]
    pub fn then_state(self, look: impl FnOnce(&A)) -> Self {
        look(&self.state);
        self
    }
}

#[track_caller]
fn lines<E: Event>(events: &[E]) -> Vec<String> {
    events.iter().map(show).collect()
}
