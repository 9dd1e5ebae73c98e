//! The answer to an append.

use jiff::Timestamp;

use crate::clock::whole_micros;
use crate::position::Position;
use crate::stream::{StreamId, StreamVersion};

/// The answer to an append: what it did, or, for a repeat, what it did the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// One entry per stream, in the order of the append. For an append of a request key alone it is empty, or has the streams of
    /// the command that led to no events, without positions.
    pub streams: Vec<AppendedStream>,
    /// The position of the last event, which is what a reader of one's own writes waits for; [`Position::START`] for an
    /// append of a request key alone.
    pub position: Position,
    /// When the store recorded the events, in whole microseconds.
    pub recorded_at: Timestamp,
    /// Whether this append was stored before and this is the first answer again.
    pub repeated: bool,
}

impl Appended {
    /// An answer, whose position is the greatest of `streams`; for those who implement a store. The time is truncated
    /// to microseconds.
    #[must_use]
    pub fn new(streams: Vec<AppendedStream>, recorded_at: Timestamp, repeated: bool) -> Self {
        let position = streams.iter().flat_map(|s| s.positions.iter().copied()).max().unwrap_or_default();
        Self { streams, position, recorded_at: whole_micros(recorded_at), repeated }
    }

    /// The same answer, for a duplicate; for those who implement a store and keep the answers to requests.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { repeated: true, ..self.clone() }
    }

    /// The version of the first stream after the append, which is all there is to know after an append to one stream;
    /// [`StreamVersion::NONE`] for an append without streams.
    #[must_use]
    pub fn version(&self) -> StreamVersion {
        self.streams.first().map_or(StreamVersion::NONE, |s| s.version)
    }
}

/// What an append did to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedStream {
    /// The stream.
    pub stream: StreamId,
    /// Its version after the append, which is that of the last appended event.
    pub version: StreamVersion,
    /// The position of each appended event, in the order of their versions.
    pub positions: Vec<Position>,
}
