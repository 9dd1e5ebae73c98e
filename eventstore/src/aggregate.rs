//! Aggregates: how state follows from events, and how events are decided.

use std::fmt::Display;

use crate::event::Event;
use crate::snapshot::SnapshotCodec;

/// A kind of thing whose history is one stream. Derive it; `#[derive(Aggregate)]` has the words and an example.
///
/// A value is the state that the events of one stream lead to; `Default` is the state before the first of them. The
/// stream is named by the tenant, [`Aggregate::TYPE`] and the text of an [`Aggregate::Id`].
///
/// # Obligations on the implementer
/// `TYPE` is chosen once, and no other kind of the store has it. An id always has the same text, and different ids have
/// different ones.
pub trait Aggregate: Default + Clone + Send + Sync + 'static {
    /// The stored name of the kind, for example `order`: 1 to 200 bytes without control characters, not beginning with `$` or
    /// `__`.
    const TYPE: &'static str;
    /// The number of the fold, from 1: increment it whenever `evolve` gives another state for the same events. Snapshots of
    /// another number are not used. The first one that is loaded is compared with its events; if the number should have been
    /// raised, that disables snapshots, with an error in the log.
    const FOLD: u32;
    /// When snapshots of the state are taken.
    const SNAPSHOT: SnapshotPolicy;
    /// What names one aggregate of the kind. Its text is the stream's aggregate id, under the same rule as `TYPE`;
    /// [`text_id!`](crate::text_id) makes types that keep it.
    type Id: Display + Send + Sync;
    /// What happens to it.
    type Event: Event + Clone;

    /// How snapshots of the state are written and read; `None` if there are none. The derive gives it if there is a policy,
    /// and the state then needs serde's `Serialize` and `Deserialize`, and `PartialEq`.
    #[must_use]
    fn snapshot_codec() -> Option<SnapshotCodec<Self>> {
        None
    }
}

/// When a snapshot of an aggregate's state is taken, so that a later load need not read the events before it.
///
/// A snapshot is a cache: a load gives the same state with and without. It is taken after an append, beside the commands,
/// and skipped where that would make them wait; see [`Repository`](crate::Repository).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SnapshotPolicy {
    /// Never.
    #[default]
    Never,
    /// After every so many events of the stream, 1 at least. An append of several events is followed by one at most.
    Every(u32),
    /// After events with these stored names.
    After(&'static [&'static str]),
}

/// With any other policy than one that counts events, a load of so many events is followed by a snapshot.
const MANY_EVENTS: u32 = 1_000;

impl SnapshotPolicy {
    /// Whether a snapshot is taken after an append of events with these names to a stream of that version.
    pub(crate) fn is_due_after<'n>(self, version: i64, names: impl ExactSizeIterator<Item = &'n str>) -> bool {
        match self {
            Self::Never => false,
            Self::Every(events) => {
                let every = i64::from(events.max(1));
                let appended = i64::try_from(names.len()).unwrap_or(i64::MAX);
                version.saturating_add(appended) / every > version / every
            }
            Self::After(wanted) => names.into_iter().any(|name| wanted.contains(&name)),
        }
    }

    /// Whether a snapshot is taken after a load of so many events.
    pub(crate) fn is_due_after_load(self, events: i64) -> bool {
        match self {
            Self::Never => false,
            Self::Every(every) => events >= i64::from(every.max(1)),
            Self::After(_) => events >= i64::from(MANY_EVENTS),
        }
    }
}

/// The fold: the state of a stream and one event give the next state.
///
/// # Obligations on the implementer
/// Pure and total: no I/O, no clock, no randomness, no panic. It never refuses, for the event has happened.
///
/// ```
/// use annals_eventstore::Evolve;
/// use annals_macros::{Aggregate, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum LampEvent {
///     #[event(name = "lamp.lit")]
///     Lit,
///     #[event(name = "lamp.put_out")]
///     PutOut,
/// }
///
/// #[derive(Aggregate, Default, Clone)]
/// #[aggregate(name = "lamp", id = u64, event = LampEvent)]
/// struct Lamp {
///     burns: bool,
/// }
///
/// impl Evolve for Lamp {
///     fn evolve(&mut self, event: &LampEvent) {
///         match event {
///             LampEvent::Lit => self.burns = true,
///             LampEvent::PutOut => self.burns = false,
///         }
///     }
/// }
///
/// let mut lamp = Lamp::default();
/// lamp.evolve(&LampEvent::Lit);
/// assert!(lamp.burns);
/// lamp.evolve(&LampEvent::PutOut);
/// assert!(!lamp.burns);
/// ```
pub trait Evolve: Aggregate {
    /// Takes `event` into the state.
    fn evolve(&mut self, event: &<Self as Aggregate>::Event);
}

/// The rule for one command: state and command give new events, or a rejection.
///
/// [`Repository::send`](crate::Repository::send) runs it. A closure given to
/// [`Repository::execute`](crate::Repository::execute) does the same for a command without its own type.
///
/// # Obligations on the implementer
/// Pure: no I/O, no clock, no randomness. It may run several times for one call, each time on a newer state; times and
/// ids come with the command.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, Decide, ExecuteError, MemoryStore};
///
/// /// The command to pay the amount due.
/// struct PayInFull;
///
/// impl Decide<PayInFull> for Order {
///     type Rejection = OrderError;
///
///     fn decide(&self, _: &PayInFull) -> Result<Vec<OrderEvent>, OrderError> {
///         match self.due {
///             None => Err(OrderError::NotPlaced),
///             Some(_) if self.paid => Ok(Vec::new()), // it was paid already, so nothing happens
///             Some(due) => Ok(vec![OrderEvent::Paid { amount: due }]),
///         }
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let orders = MemoryStore::new().aggregate::<Order>();
/// let id = OrderId::new("o-17")?;
/// let refused = orders.send(&id, PayInFull).await;
/// assert!(matches!(refused, Err(ExecuteError::Rejected(OrderError::NotPlaced))));
///
/// orders.execute(&id, |order| order.place(12_00)).await?;
/// assert_eq!(orders.send(&id, PayInFull).await?.events, 1);
/// assert_eq!(orders.send(&id, PayInFull).await?.events, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not know how to decide the command `{C}`",
    label = "no rule for `{C}`",
    note = "write `impl Decide<{C}> for {Self}`, or call `execute` with a closure that decides"
)]
pub trait Decide<C>: Evolve {
    /// Why the domain rejects: a type of yours, usually an enum.
    type Rejection;

    /// Decides what happens: events in the order in which they happen, or none.
    ///
    /// # Errors
    /// The domain's own rejection; nothing is stored.
    fn decide(&self, command: &C) -> Result<Vec<Self::Event>, Self::Rejection>;
}

/// What a decision may return: one event, several in a `Vec` or an array, an `Option` of one, or none as `()`. It is open
/// to implement, for a type of yours that carries more than its events do.
///
/// # Obligations on the implementer
/// Pure, as the decision is: the same value gives the same events, in the order in which they happened.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::IntoEvents;
///
/// let one: Vec<OrderEvent> = OrderEvent::Placed { total: 12_00 }.into_events();
/// let two: Vec<OrderEvent> = [OrderEvent::Paid { amount: 5_00 }, OrderEvent::Paid { amount: 7_00 }].into_events();
/// let none: Vec<OrderEvent> = None.into_events();
/// assert_eq!((one.len(), two.len(), none.len()), (1, 2, 0));
///
/// /// The decision on a payment: it names the two cases, where a vector would show two events or one.
/// enum Payment {
///     InFull { amount: u64 },
///     InTwoParts(u64, u64),
/// }
///
/// impl IntoEvents<OrderEvent> for Payment {
///     fn into_events(self) -> Vec<OrderEvent> {
///         match self {
///             Self::InFull { amount } => OrderEvent::Paid { amount }.into_events(),
///             Self::InTwoParts(a, b) => vec![OrderEvent::Paid { amount: a }, OrderEvent::Paid { amount: b }],
///         }
///     }
/// }
/// assert_eq!(Payment::InTwoParts(5_00, 7_00).into_events().len(), 2);
/// assert_eq!(Payment::InFull { amount: 12_00 }.into_events().len(), 1);
/// ```
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
