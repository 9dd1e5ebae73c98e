//! What a repository answers.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::append::Appended;
use crate::error::AppendError;
use crate::event::EventId;
use crate::position::Position;
use crate::request::RequestKey;
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// The aggregate's stream.
    pub stream: StreamId,
    /// The stream's version after the command. If the command led to no events, the version on which that was decided;
    /// [`StreamVersion::NONE`] for a duplicate of such a command, as nothing else is stored about it.
    pub version: StreamVersion,
    /// The position of the last new event, which is what a reader of one's own writes waits for;
    /// [`Position::START`] if there is none.
    pub position: Position,
    /// How many events the command led to.
    pub events: usize,
    /// When the store recorded the events, or the request key of a command without events, in whole microseconds;
    /// `None` if there was nothing to record.
    pub recorded_at: Option<Timestamp>,
    /// Whether the command was executed before and this is the first answer again.
    pub repeated: bool,
}

impl Executed {
    /// The result of a command without events and without a request key.
    pub(crate) fn nothing(stream: &StreamId, version: StreamVersion) -> Self {
        Self {
            stream: stream.clone(),
            version,
            position: Position::START,
            events: 0,
            recorded_at: None,
            repeated: false,
        }
    }

    /// What the store's answer means for `stream`. A first answer about other streams alone belongs to another request.
    pub(super) fn of(
        appended: &Appended,
        stream: &StreamId,
        decided_on: StreamVersion,
        request: Option<&RequestKey>,
    ) -> Result<Self, AppendError> {
        let ours = appended.streams.iter().find(|s| s.stream == *stream);
        if let (None, Some(request), false) = (ours, request, appended.streams.is_empty()) {
            return Err(Self::reused(stream, request));
        }
        Ok(Self {
            stream: stream.clone(),
            version: ours.map_or(if appended.repeated { StreamVersion::NONE } else { decided_on }, |s| s.version),
            position: appended.position,
            events: ours.map_or(0, |s| s.positions.len()),
            recorded_at: Some(appended.recorded_at),
            repeated: appended.repeated,
        })
    }

    /// The key was used for a request about other streams.
    pub(super) fn reused(stream: &StreamId, request: &RequestKey) -> AppendError {
        AppendError::RequestKeyReused { tenant: stream.tenant().clone(), key: request.key().to_owned() }
    }
}
