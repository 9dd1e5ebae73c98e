//! Where the progress of a reactor is kept.

use std::sync::Arc;

use annals_eventstore::{Checkpoint, Clock, StreamId, Tenant};
use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::Fault;
use crate::error::{EventPlace, StartError};

/// The most bytes of an error's text that are stored.
const MOST_ERROR_BYTES: usize = 2_000;

/// When the event of a parked stream is tried again if somebody has asked for that. Else it is when it was tried last or later.
pub(crate) const ASKED: Timestamp = Timestamp::UNIX_EPOCH;

/// The name of a reactor's row among the checkpoints. No projection can have it.
pub(crate) fn checkpoint_name(reactor: &str) -> String {
    format!("reactor:{reactor}")
}

/// What a run of a reactor needs of the place where its progress is kept.
///
/// # Obligations on the implementer
/// Every call is fenced: it changes something only while the reactor is this run's, in the same transaction that checks
/// that, and else answers [`Kept::Lost`]. A call that is repeated because its answer was lost is answered as the first.
#[async_trait]
pub(crate) trait ReactorKeeper: Send + Sync {
    /// Moves the stored checkpoint, and forgets failures at or before it, except those of parked streams. The reactor has made
    /// progress: see [`Opened::unclean`].
    async fn save(&self, from: &Checkpoint, to: &Checkpoint) -> Result<Kept, Fault>;

    /// Stores what is known about the event that its stream cannot get past, in place of what was stored for the stream.
    async fn keep(&self, failing: &Failing) -> Result<Kept, Fault>;

    /// Forgets what is stored for the stream.
    async fn forget(&self, stream: &StreamId) -> Result<Kept, Fault>;

    /// The run ends as it should: see [`Opened::unclean`].
    async fn release(&self) -> Result<Kept, Fault>;
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Done,
    /// Nothing is changed: another run has the reactor now, or somebody has moved or removed its checkpoint.
    Lost,
}

/// A reactor that is to be run from here on by the run `owner`.
pub(crate) struct Opening {
    pub(crate) reactor: &'static str,
    /// The stored names of the events that it wants, a line each.
    pub(crate) events: String,
    pub(crate) tenant: Option<Tenant>,
    /// Where it begins if nothing is stored.
    pub(crate) start: Checkpoint,
    pub(crate) owner: Uuid,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A reactor that is this run's.
pub(crate) struct Opened {
    pub(crate) keeper: Arc<dyn ReactorKeeper>,
    pub(crate) checkpoint: Checkpoint,
    /// How many runs ended before this one that did not say so, since a checkpoint was last moved.
    pub(crate) unclean: u32,
    pub(crate) failing: Vec<Failing>,
}

/// The event that a stream cannot get past.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failing {
    pub(crate) place: EventPlace,
    /// How many tries have failed.
    pub(crate) tries: u32,
    /// How many were begun and have no outcome, as the process ended.
    pub(crate) unfinished: u32,
    /// Whether the stream is set aside from this event on.
    pub(crate) parked: bool,
    /// The last error; empty before the first.
    pub(crate) error: String,
    /// Not tried again before.
    pub(crate) next_try_at: Timestamp,
}

impl Failing {
    /// An event that has not failed yet.
    pub(crate) fn new(place: EventPlace, now: Timestamp) -> Self {
        Self { place, tries: 0, unfinished: 0, parked: false, error: String::new(), next_try_at: now }
    }

    /// Notes the last error, as far as every database can hold it.
    pub(crate) fn set_error(&mut self, error: &str) {
        let mut end = error.len().min(MOST_ERROR_BYTES);
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        self.error = error[..end].replace('\0', "\u{fffd}");
    }
}

/// A reactor's position counts for the tenant for which it was first started.
pub(crate) fn check_tenant(
    reactor: &'static str,
    stored: Option<String>,
    declared: Option<String>,
) -> Result<(), StartError> {
    if stored == declared {
        return Ok(());
    }
    Err(StartError::ReactorTenantChanged { reactor, stored, declared })
}
