//! Places in the whole log.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::error::ReadError;
use crate::event_id::EventId;
use crate::invalid::Invalid;

/// An event's place in the whole log of a store.
///
/// A reader sees positions only increase; there may be gaps. The first is above [`Position::START`] (0). Every read takes
/// the position it starts *after*, so the position of the last event read can be passed to the next read.
///
/// ```
/// use annals_eventstore::Position;
///
/// let seen = Position::new(17)?; // as a reader has stored it
/// assert!(seen > Position::START);
/// assert_eq!(Position::new(-1).unwrap_err().field, "position");
/// assert_eq!("17".parse::<Position>()?, seen); // for example from a header; serde writes it as a number
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(i64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// Checks `position` (0 or more) and makes a position of it.
    ///
    /// # Errors
    /// [`Invalid`] with the field `position` if it is negative.
    pub fn new(position: i64) -> Result<Self, Invalid> {
        if position < 0 {
            return Err(Invalid::new(
                "position",
                format!("is {position}, but the log begins at 0"),
                "use 0 to read from the beginning",
            ));
        }
        Ok(Self(position))
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// A number read from a store.
    pub(crate) fn stored(position: i64) -> Self {
        Self(position)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Parses the text of `Display`, such as a position in a header or a query of HTTP.
impl FromStr for Position {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = text.parse().map_err(|_| {
            Invalid::new(
                "position",
                format!("is `{text}`, which is not a position"),
                "give a whole number of 0 or more",
            )
        })?;
        Self::new(number)
    }
}

/// A number.
impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A number of 0 or more.
impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(i64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Identifies one incarnation of a store, which a position belongs to: an id that is generated when the store is created.
///
/// A copy of the store has the same one and may then go another way, which is why a [`Checkpoint`] also names its
/// event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(
    /// The id itself.
    pub Uuid,
);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The last event that a named reader has finished: where to continue, and a check that the log is still the same.
///
/// It always names a committed event of the whole, unfiltered log, or the beginning. A reader stores it in the
/// transaction of its work, and before it continues from it calls
/// [`EventStore::check_checkpoint`](crate::EventStore::check_checkpoint). [`Pages`](crate::Pages) gives checkpoints and
/// has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The incarnation of the store that the position belongs to.
    pub incarnation: Incarnation,
    /// The position of the event; [`Position::START`] before the first.
    pub position: Position,
    /// The event's id; `None` only before the first event.
    pub event_id: Option<EventId>,
}

/// Where a read of the log begins: after this position, which every read takes as `impl Into<After>`.
///
/// A reader that continues also names the event that it has seen there: a [`Checkpoint`] does. Then every read checks that
/// this event is still in the log, and fails with [`ReadError::StoreRewound`] if the store was rewound or replaced. A
/// [`Position`] alone is not checked.
///
/// ```
/// use annals_eventstore::{After, Position};
///
/// let after: After = Position::new(17)?.into();
/// assert_eq!(after.event_id, None); // nothing is checked
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct After {
    /// The read begins after this position.
    pub position: Position,
    /// The event that the reader has seen at the position.
    pub event_id: Option<EventId>,
}

impl After {
    /// Before the first event.
    pub const START: Self = Self { position: Position::START, event_id: None };

    /// The rule of [`EventStore::read_page`](crate::EventStore::read_page), for those who implement a store:
    /// `incarnation` is the store's, `found` the id of its event at exactly this position, if there is one, as the
    /// snapshot of the page has it.
    ///
    /// # Errors
    /// [`ReadError::StoreRewound`] if an event is named and it is not the one that was found.
    pub fn check(&self, incarnation: Incarnation, found: Option<EventId>) -> Result<(), ReadError> {
        if self.event_id.is_some() && self.event_id != found {
            return Err(ReadError::StoreRewound { position: self.position, incarnation });
        }
        Ok(())
    }
}

impl From<Position> for After {
    fn from(position: Position) -> Self {
        Self { position, event_id: None }
    }
}

impl From<Checkpoint> for After {
    fn from(checkpoint: Checkpoint) -> Self {
        Self { position: checkpoint.position, event_id: checkpoint.event_id }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position.fmt(f)
    }
}

impl Checkpoint {
    /// Before the first event of a store.
    #[must_use]
    pub fn start(incarnation: Incarnation) -> Self {
        Self { incarnation, position: Position::START, event_id: None }
    }

    /// The rule of [`EventStore::check_checkpoint`](crate::EventStore::check_checkpoint), for those who implement a
    /// store: `incarnation` is the store's, `found` the id of its event at exactly the checkpoint's position, if there
    /// is one.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] with the field `checkpoint` if it has a position and no event id;
    /// [`ReadError::StoreRewound`] if it is of another incarnation or names another event.
    pub fn check(&self, incarnation: Incarnation, found: Option<EventId>) -> Result<(), ReadError> {
        if self.event_id.is_none() && self.position != Position::START {
            return Err(Invalid::new("checkpoint", "has a position but no event id", "store both").into());
        }
        if self.incarnation != incarnation || self.event_id != found {
            return Err(ReadError::StoreRewound { position: self.position, incarnation: self.incarnation });
        }
        Ok(())
    }
}
