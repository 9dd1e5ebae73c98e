//! What a repository answers.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::cache::Known;
use crate::append::Appended;
use crate::event::EventId;
use crate::position::Position;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion};

/// An aggregate with the state that its stream gives, returned by [`Repository::load`](crate::Repository::load).
/// [`Repository`](crate::Repository) has an example.
#[non_exhaustive]
pub struct Loaded<A> {
    /// The stream that was read.
    pub stream: StreamId,
    /// The state after the last event; the default state if there is none. The pointer shares it with the repository's
    /// cache.
    pub state: Arc<A>,
    /// The version of the last event; [`StreamVersion::NONE`] if there is none.
    pub version: StreamVersion,
    /// The id of the last event; `None` if there is none.
    pub last_event: Option<EventId>,
}

impl<A> Loaded<A> {
    /// What an append that is decided on this state expects: that the stream still ends with its last event.
    #[must_use]
    pub fn expected(&self) -> ExpectedVersion {
        ExpectedVersion::end(self.version, self.last_event)
    }

    /// Whether anything has happened to the aggregate.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.version != StreamVersion::NONE
    }
}

impl<A> Clone for Loaded<A> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            state: self.state.clone(),
            version: self.version,
            last_event: self.last_event,
        }
    }
}

impl<A: fmt::Debug> fmt::Debug for Loaded<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("stream", &self.stream)
            .field("state", &self.state)
            .field("version", &self.version)
            .field("last_event", &self.last_event)
            .finish()
    }
}

/// What a command did, or, for a repeat under a request key, what it did the first time.
/// [`Repository`](crate::Repository) has an example.
#[derive(PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed<A> {
    /// The aggregate's stream.
    pub stream: StreamId,
    /// The stream's version after the command. If the command led to no events, the version on which that was decided.
    pub version: StreamVersion,
    /// The state at that version. A repeat reads it again. The pointer shares it with the repository's cache.
    pub state: Arc<A>,
    /// The position of the last new event, which is what a reader of one's own writes waits for; of a command over two
    /// aggregates that of both. [`Position::START`] if there is none.
    pub position: Position,
    /// How many events the command led to.
    pub events: usize,
    /// When the store recorded the events, or the request key of a command without events, in whole microseconds;
    /// `None` if there was nothing to record.
    pub recorded_at: Option<Timestamp>,
    /// Whether the command was executed before and this is the first answer again.
    pub repeated: bool,
}

impl<A> Executed<A> {
    /// The result of a command without events and without a request key.
    pub(super) fn nothing(stream: &StreamId, known: &Known<A>) -> Self {
        Self {
            stream: stream.clone(),
            version: known.version,
            state: known.state.clone(),
            position: Position::START,
            events: 0,
            recorded_at: None,
            repeated: false,
        }
    }

    /// What the store's answer means for `stream`, whose state is `known` at the version of the answer.
    pub(super) fn of(appended: &Appended, stream: &StreamId, known: Known<A>) -> Self {
        let ours = appended.streams.iter().find(|s| s.stream == *stream);
        Self {
            stream: stream.clone(),
            version: ours.map_or(known.version, |s| s.version),
            state: known.state,
            position: appended.position,
            events: ours.map_or(0, |s| s.positions.len()),
            recorded_at: Some(appended.recorded_at),
            repeated: appended.repeated,
        }
    }
}

impl<A> Clone for Executed<A> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), state: self.state.clone(), ..*self }
    }
}

/// Without the state, which need not be printable.
impl<A> fmt::Debug for Executed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("stream", &self.stream)
            .field("version", &self.version)
            .field("position", &self.position)
            .field("events", &self.events)
            .field("recorded_at", &self.recorded_at)
            .field("repeated", &self.repeated)
            .finish_non_exhaustive()
    }
}
