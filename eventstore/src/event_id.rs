//! The id of an event.

use std::fmt;

use uuid::Uuid;

use crate::invalid::Invalid;

/// The id of one event, unique over the whole store: the key that makes a repeated append harmless. Any UUID but the
/// nil one; those of version 7, which grow with time, keep appends fast.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    /// Makes an event id of a UUID.
    ///
    /// # Errors
    /// [`Invalid`] with the field `event_id` for the nil UUID.
    pub fn new(id: Uuid) -> Result<Self, Invalid> {
        if id.is_nil() {
            return Err(Invalid::new("event_id", "is the nil UUID", "make a new UUID of version 7"));
        }
        Ok(Self(id))
    }

    /// The UUID.
    #[must_use]
    pub fn get(self) -> Uuid {
        self.0
    }

    /// An id read from a store.
    pub(crate) fn stored(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({})", self.0)
    }
}
