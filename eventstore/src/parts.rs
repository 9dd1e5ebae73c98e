//! What one stored event is read as.

use std::fmt;

/// What one stored event is read as: one event as a rule, none or several where an upcaster drops or splits it.
///
/// They are in order, and share the stored event's version and position. A stored event that is read as none still counts: in
/// versions, in positions, in checkpoints.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{Event, Payload};
///
/// let payload = Payload::from_json(r#"{"total": 1200}"#)?;
/// for event in OrderEvent::read("order.placed", 1, &payload)? {
///     assert!(matches!(event, OrderEvent::Placed { total: 12_00 }));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Parts<E>(Kind<E>);

/// One event, the usual case, allocates nothing.
#[derive(Clone)]
enum Kind<E> {
    One(E),
    Other(Vec<E>),
}

impl<E> Parts<E> {
    /// One event.
    #[must_use]
    pub fn one(event: E) -> Self {
        Self(Kind::One(event))
    }

    /// The events, in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[E] {
        match &self.0 {
            Kind::One(event) => std::slice::from_ref(event),
            Kind::Other(events) => events,
        }
    }

    /// As many, each made of one of these, in order.
    pub fn map<T>(self, mut make: impl FnMut(E) -> T) -> Parts<T> {
        Parts(match self.0 {
            Kind::One(event) => Kind::One(make(event)),
            Kind::Other(events) => Kind::Other(events.into_iter().map(make).collect()),
        })
    }
}

/// None, one or several events.
impl<E> From<Vec<E>> for Parts<E> {
    fn from(events: Vec<E>) -> Self {
        Self(Kind::Other(events))
    }
}

impl<E> IntoIterator for Parts<E> {
    type Item = E;
    type IntoIter = std::iter::Chain<std::option::IntoIter<E>, std::vec::IntoIter<E>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, others) = match self.0 {
            Kind::One(event) => (Some(event), Vec::new()),
            Kind::Other(events) => (None, events),
        };
        one.into_iter().chain(others)
    }
}

impl<'p, E> IntoIterator for &'p Parts<E> {
    type Item = &'p E;
    type IntoIter = std::slice::Iter<'p, E>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

/// Equal if they are the same events in the same order.
impl<E: PartialEq> PartialEq for Parts<E> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<E: fmt::Debug> fmt::Debug for Parts<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}
