//! Aggregates: how state follows from events, and how events are decided.

use std::fmt::Display;

use crate::event::Event;

/// A kind of thing whose history is one stream. Derive it; see `#[derive(Aggregate)]`.
///
/// `Default` is the state before the first event.
pub trait Aggregate: Default + Clone + Send + Sync + 'static {
    /// The stored name of the kind, `order` say; chosen once.
    const TYPE: &'static str;
    /// The number of the fold: raise it whenever `evolve` gives another state for the same events.
    const FOLD: u32;
    /// When snapshots of the state are taken.
    const SNAPSHOT: SnapshotPolicy;
    /// What names one aggregate of the kind. Its text is the stream's aggregate id.
    type Id: Display + Send + Sync;
    /// What happens to it.
    type Event: Event + Clone;
}

/// When a snapshot of an aggregate's state is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SnapshotPolicy {
    /// Never.
    #[default]
    Never,
    /// After every so many events of the stream.
    Every(u32),
}

/// The fold: the state of a stream and one event give the next state.
///
/// Pure and total: no I/O, no clock, no randomness, no panic. It never refuses, for the event has happened.
pub trait Evolve: Aggregate {
    /// Takes `event` into the state.
    fn evolve(&mut self, event: &<Self as Aggregate>::Event);
}

/// The rule for one command: state and command give new events, or a rejection.
///
/// Pure: it may run several times for one call, each time on a newer state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not know how to decide the command `{C}`",
    label = "no rule for `{C}`",
    note = "write `impl Decide<{C}> for {Self}`, or call `execute` with a closure that decides"
)]
pub trait Decide<C>: Evolve {
    /// Why the domain says no.
    type Rejection;

    /// Decides what happens.
    ///
    /// # Errors
    /// The domain's own rejection; nothing is stored.
    fn decide(&self, command: &C) -> Result<Vec<Self::Event>, Self::Rejection>;
}

/// What a decision may give: one event, some, perhaps one, or none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a decision gives: events of type `{E}`",
    note = "give a `{E}`, an array, a `Vec` or an `Option` of it, or `()` for no events"
)]
pub trait IntoEvents<E> {
    /// The events in the order in which they happened.
    fn into_events(self) -> Vec<E>;
}

impl<E: Event> IntoEvents<E> for E {
    fn into_events(self) -> Vec<E> {
        vec![self]
    }
}

impl<E: Event> IntoEvents<E> for Vec<E> {
    fn into_events(self) -> Vec<E> {
        self
    }
}

impl<E: Event> IntoEvents<E> for Option<E> {
    fn into_events(self) -> Vec<E> {
        self.into_iter().collect()
    }
}

impl<E: Event, const N: usize> IntoEvents<E> for [E; N] {
    fn into_events(self) -> Vec<E> {
        self.into()
    }
}

impl<E: Event> IntoEvents<E> for () {
    fn into_events(self) -> Vec<E> {
        Vec::new()
    }
}
