//! Parked streams, as a database keeps them.

use annals_eventstore::{Invalid, Position, StreamId, StreamVersion, Tenant};
use jiff::Timestamp;

use crate::error::EventPlace;
use crate::parking::PassedOver;

/// The most bytes of a reason that are stored.
const MOST_REASON_BYTES: usize = 4_000;

/// A stream that is set aside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParkedStream {
    /// The event that could not be applied.
    pub(crate) event: EventPlace,
    pub(crate) reason: String,
    pub(crate) parked_at: Timestamp,
    /// How many later events of the stream were passed over.
    pub(crate) waiting: u64,
}

/// What a commit does to parked streams, in this order.
#[derive(Debug, Default)]
pub(crate) struct ParkingChanges {
    /// This one is parked no longer.
    pub(crate) reopen: Option<StreamId>,
    /// Its events are given up.
    pub(crate) drop: Option<Dropped>,
    /// These are parked, each for an event and a reason.
    pub(crate) park: Vec<(EventPlace, String)>,
    /// Events of these were passed over.
    pub(crate) passed_over: Vec<PassedOver>,
}

/// Who has given up the events of a stream, and why.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub(crate) stream: StreamId,
    pub(crate) from: Position,
    pub(crate) by: String,
    pub(crate) why: String,
}

impl ParkingChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.reopen.is_none() && self.drop.is_none() && self.park.is_empty() && self.passed_over.is_empty()
    }
}

/// A reason as every database can hold it.
pub(crate) fn storable(reason: &str) -> String {
    let mut end = reason.len().min(MOST_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].replace('\0', "\u{fffd}")
}

/// A parked stream from what is stored of it.
pub(crate) struct Row<'r> {
    pub(crate) stream: [&'r str; 3],
    pub(crate) position: i64,
    pub(crate) stream_version: i64,
    pub(crate) event_name: &'r str,
    pub(crate) reason: &'r str,
    pub(crate) parked_at: Timestamp,
    pub(crate) waiting: i64,
}

impl Row<'_> {
    pub(crate) fn read(self) -> Result<ParkedStream, Invalid> {
        let [tenant, aggregate_type, aggregate_id] = self.stream;
        let event = EventPlace {
            position: Position::new(self.position)?,
            stream: StreamId::new(Tenant::new(tenant)?, aggregate_type, aggregate_id)?,
            version: StreamVersion::new(self.stream_version)?,
            name: self.event_name.into(),
        };
        let waiting = u64::try_from(self.waiting).unwrap_or_default();
        Ok(ParkedStream { event, reason: self.reason.to_owned(), parked_at: self.parked_at, waiting })
    }
}

/// The three parts of a stream's name.
pub(crate) fn parts(stream: &StreamId) -> [String; 3] {
    [stream.tenant().as_str(), stream.aggregate_type(), stream.aggregate_id()].map(str::to_owned)
}
