//! What can go wrong, one enum per verb, in five families that callers can distinguish.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event_id::EventId;
pub(crate) use crate::invalid::Invalid;
pub use crate::open_error::OpenError;
use crate::position::{Incarnation, Position};
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// What kind of failure an error is, and so what the caller may do about it.
///
/// ```
/// use annals_eventstore::{AppendError, ErrorFamily};
///
/// fn what_to_do(error: &AppendError) -> &'static str {
///     match error.family() {
///         ErrorFamily::Conflict => "load, decide and append again",
///         ErrorFamily::Transient => "append it again later",
///         ErrorFamily::OutcomeUnknown => "append the same event ids again",
///         _ => "report it",
///     }
/// }
///
/// assert_eq!(what_to_do(&AppendError::Closed), "report it");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorFamily {
    /// Another writer appended first. Load, decide and append again.
    Conflict,
    /// The call can never succeed. Fix the call.
    Invalid,
    /// Nothing happened, and the same call may work later.
    Transient,
    /// It may have happened. Repeat it only with the same event ids or request key.
    OutcomeUnknown,
    /// Data or installation needs a person. Runners stop on it.
    Broken,
}

/// An error of a database, file or connection; the cause inside our own errors. Clones share it.
///
/// It reads as what it wraps, whose own causes follow in its `source`. The answer of a database is shown once, with its code.
#[derive(Clone)]
pub struct BackendError(Arc<dyn std::error::Error + Send + Sync>);

impl BackendError {
    /// Wraps an error of the engine, or a text.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Arc::from(source.into()))
    }
}

impl BackendError {
    /// The answer of a database, if it is one.
    fn answer(&self) -> Option<String> {
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        return crate::database_error::answer(&*self.0);
        #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
        None
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.answer() {
            Some(answer) => f.write_str(&answer),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for BackendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source().filter(|_| self.answer().is_none())
    }
}

/// What stands for the stream of a unit of work without appends: an aggregate type and an id.
pub(crate) const NO_STREAM: (&str, &str) = ("unit of work", "without appends");

/// What a refused call would add, where that is more than one.
fn and_more(more: usize) -> String {
    if more > 1 { format!(", and this one has {more}") } else { String::new() }
}

/// What had no answer, or was not sent.
fn sent(stream: &StreamId) -> String {
    match (stream.aggregate_type(), stream.aggregate_id()) {
        NO_STREAM => "the unit of work".to_owned(),
        _ => format!("append to stream `{stream}`"),
    }
}

/// Why an append, a unit of work or a request key was not stored.
///
/// Unless the family is [`ErrorFamily::OutcomeUnknown`], this call stored nothing. An earlier attempt with the same event
/// ids may have stored it: see [`AppendError::settles_outcome`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another writer appended first, or the stream ends with another event than the expected one because the store was
    /// restored or failed over; nothing was stored. Load, decide and append again.
    #[error("stream `{stream}` is at {actual}, but {expected} was expected")]
    WrongExpectedVersion {
        /// The stream whose version was not the expected one.
        stream: StreamId,
        /// What the caller expected.
        expected: ExpectedVersion,
        /// What the store found inside the append's transaction: the expected version too, if only the event is another.
        actual: StreamVersion,
    },
    /// A field breaks a rule; nothing was sent to the store. Fix the field it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Some of the event ids are stored already, but not as this very append. Use the same events as the first
    /// time, or new ids.
    #[error("event `{event_id}` for stream `{stream}` {how}")]
    EventIdTaken {
        /// The id that is stored already.
        event_id: EventId,
        /// The stream this append meant it for.
        stream: StreamId,
        /// In what way the stored event differs from this append.
        how: Repeat,
    },
    /// The request key was used for another request. Give each request its own key.
    #[error("request key `{key}` of tenant `{tenant}` was used for another request; give each request its own key")]
    RequestKeyReused {
        /// Whose key it is.
        tenant: Tenant,
        /// The key.
        key: String,
    },
    /// The stream cannot hold that many more events, as versions are `i64`; nothing was stored. Continue in a new
    /// stream.
    #[error("stream `{stream}` is full at {actual}; continue in a new stream")]
    StreamFull {
        /// The stream.
        stream: StreamId,
        /// Its position.
        actual: StreamVersion,
    },
    /// Too many appends or commands of this tenant wait already. Append again later, or slower.
    #[error("{queued} {unit} of tenant `{tenant}` wait already{}, the most is {limit}", and_more(*more))]
    Overloaded {
        /// Whose queue is full.
        tenant: Tenant,
        /// How many wait.
        queued: usize,
        /// How many this call would add.
        more: usize,
        /// How many may wait.
        limit: usize,
        /// Of what: `appends`, `bytes`, or `commands` on the same aggregates.
        unit: &'static str,
    },
    /// The deadline passed before the append was sent; nothing was stored. If it is still needed, append again with a
    /// later one.
    #[error("the deadline passed before the {} was sent", sent(.stream).trim_start_matches("the "))]
    DeadlineExceeded {
        /// The first stream of the append.
        stream: StreamId,
    },
    /// Another process, or a unit of work of this one, blocked the store or the stream until the timeout; nothing was
    /// stored. Append again later, and keep units of work short.
    #[error("blocked for {waited:?} by {holder}")]
    Busy {
        /// How long this append waited.
        waited: Duration,
        /// Who held what it waited for.
        holder: Holder,
    },
    /// The disk, or the size that the database may have, is full; nothing was stored. Make room; no restart of the store is
    /// needed.
    #[error("the store's disk is full; make room and append again")]
    StorageFull {
        /// The error of the engine.
        source: BackendError,
    },
    /// The store could not be reached or was interrupted; nothing was stored. The same append may work later.
    #[error("the store could not take the append")]
    Unavailable {
        /// The error of the engine.
        source: BackendError,
    },
    /// The connection or the engine failed while the append was being committed, or its deadline passed after it was sent. Appending the same event ids again is
    /// safe; its success, or an error that [`settles_outcome`](AppendError::settles_outcome), reports what happened.
    #[error("{} has an unknown outcome", sent(.stream))]
    OutcomeUnknown {
        /// The first stream of the append.
        stream: StreamId,
        /// The error of the engine.
        source: BackendError,
    },
    /// The handle was closed. Open the store again.
    #[error("the store handle is closed; open the store again")]
    Closed,
    /// The store can only be read; nothing was stored. Open it for writing, or where it may be written.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why: file permissions, a read-only medium, a standby.
        reason: String,
    },
    /// The store's own data is damaged; nothing was stored. Do what the error says.
    #[error("the store is damaged: {what}; {remedy}")]
    Broken {
        /// The damage.
        what: String,
        /// The command or step that helps.
        remedy: String,
    },
}

/// Who holds what a call has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// A unit of work, or a transaction, of the same handle on a SQLite file.
    SameHandle,
    /// Another process that has the SQLite file open, or another handle or connection of this one.
    OtherHandle,
    /// An open transaction on PostgreSQL that has appended to the same stream or runs for the same request, of this process or
    /// another: `pg_blocking_pids` names it while it blocks.
    Transaction,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameHandle => "a unit of work or a transaction of this handle",
            Self::OtherHandle => "another process or another handle of this one",
            Self::Transaction => "an open transaction that has appended to the stream or runs for the request",
        })
    }
}

impl AppendError {
    /// Every position is used: one more append would need a number beyond 64 bits.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn no_position_left() -> Self {
        Self::Broken {
            what: "the log has used its last position".to_owned(),
            remedy: "continue in a new store; if the position was set by hand, set it back to the end of the log"
                .to_owned(),
        }
    }

    /// The deadline of an append passed after it was sent.
    pub(crate) fn unanswered(stream: StreamId) -> Self {
        Self::OutcomeUnknown { stream, source: BackendError::new("the deadline passed before the store answered") }
    }

    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::WrongExpectedVersion { .. } => ErrorFamily::Conflict,
            Self::Invalid(_)
            | Self::EventIdTaken { .. }
            | Self::RequestKeyReused { .. }
            | Self::StreamFull { .. }
            | Self::Closed => ErrorFamily::Invalid,
            Self::Overloaded { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Busy { .. }
            | Self::StorageFull { .. }
            | Self::Unavailable { .. } => ErrorFamily::Transient,
            Self::OutcomeUnknown { .. } => ErrorFamily::OutcomeUnknown,
            Self::ReadOnly { .. } | Self::Broken { .. } => ErrorFamily::Broken,
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }

    /// Whether the error, as the answer to a duplicate, ends the unknown outcome of the first attempt: the event ids were
    /// looked up, they are not stored as this append, and it cannot be stored any more. Every other error means only that
    /// the duplicate stored nothing.
    #[must_use]
    pub fn settles_outcome(&self) -> bool {
        matches!(self, Self::WrongExpectedVersion { .. } | Self::EventIdTaken { .. } | Self::StreamFull { .. })
    }
}

/// How stored events differ from an append with some of the same event ids. Its `Display` text includes what to do
/// instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeat {
    /// The id is stored with another name, schema version or payload.
    OtherContent,
    /// The id is stored in another stream.
    OtherStream,
    /// Some ids of the append are stored, others are not.
    OnlySome,
    /// The ids are stored, but not together in this order as one append.
    OtherAppend,
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherContent => "is stored already with other content; give the new event a new id",
            Self::OtherStream => "is stored already in another stream; give the new event a new id",
            Self::OnlySome => "is stored already, other events of the append are not; give all new events new ids",
            Self::OtherAppend => "is stored already, but not as part of this very append; repeat the append as it was",
        })
    }
}

/// Why events, streams or checkpoints could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A field breaks a rule; fix the field it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The position is after the last event: the reader has read a log that this store does not have. Read again from an
    /// earlier position, or rebuild the reader.
    #[error(
        "the log ends at {head}, but the read begins after {after}; a restored or another store? read again from an earlier position"
    )]
    AheadOfLog {
        /// Where the read should have begun.
        after: Position,
        /// The last position of the log.
        head: Position,
    },
    /// The event at a checkpoint is not the one that the reader has seen: the store was rewound or replaced. Rebuild the
    /// reader from the beginning.
    #[error(
        "the checkpoint at {position} of incarnation {incarnation} is not an event of this store; rebuild the reader from the beginning"
    )]
    StoreRewound {
        /// The position of the reader.
        position: Position,
        /// The incarnation of the store that the position belongs to.
        incarnation: Incarnation,
    },
    /// An event is stored that this build cannot read. Nothing is skipped: deploy a build that knows it.
    #[error(
        "event at position {position} (`{stream}`, {version}) cannot be read as `{name}` schema version {schema_version}"
    )]
    Undecodable {
        /// The event's stream.
        stream: StreamId,
        /// Its version in the stream.
        version: StreamVersion,
        /// Its position in the log.
        position: Position,
        /// Its stored name.
        name: String,
        /// Its schema version.
        schema_version: u32,
        /// The problem.
        source: DecodeError,
    },
    /// A row of the store breaks the store's own rules; it was not written by annals. Compare it with a backup.
    #[error(
        "the row at position {position} is damaged: {what}; it was not written by annals, compare it with a backup"
    )]
    Damaged {
        /// The position of the row; [`Position::START`] if it is about the database as a whole.
        position: Position,
        /// The damage.
        what: String,
    },
    /// The store has changed since it was opened: its file was replaced, for example. Do what the error says.
    #[error("the store cannot be read: {what}; {remedy}")]
    Broken {
        /// The damage.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The store was busy or out of reach; the same read may work later.
    #[error("the store could not be read")]
    Unavailable {
        /// The error of the engine.
        source: BackendError,
    },
    /// The handle was closed. Open the store again.
    #[error("the store handle is closed; open the store again")]
    Closed,
}

impl ReadError {
    /// The deadline of a read passed.
    pub(crate) fn late() -> Self {
        Self::Unavailable { source: BackendError::new("the deadline passed before the store answered") }
    }

    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Invalid(_) | Self::Closed => ErrorFamily::Invalid,
            Self::Unavailable { .. } => ErrorFamily::Transient,
            Self::AheadOfLog { .. }
            | Self::StoreRewound { .. }
            | Self::Undecodable { .. }
            | Self::Damaged { .. }
            | Self::Broken { .. } => ErrorFamily::Broken,
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}

/// Why a stored payload is not the event it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No event of the type has this stored name. Deploy a build that knows it, or read it as another type.
    #[error("no event is called `{name}`; known are {known}; deploy a build that knows it")]
    UnknownName {
        /// The stored name.
        name: String,
        /// The names that the event type knows, joined by commas.
        known: String,
    },
    /// The event is known, but not in this schema version. Deploy a build that knows it.
    #[error("`{name}` is known in schema version {known}, not {found}; deploy a build that knows version {found}")]
    UnknownSchemaVersion {
        /// The stored name.
        name: String,
        /// The stored schema version.
        found: u32,
        /// The highest version that the event type reads under this name.
        known: u32,
    },
    /// The payload does not have the event's shape. Make the type accept it, for example by `#[serde(default)]` on a new field.
    #[error("the payload does not fit")]
    Payload {
        /// What serde found, and where.
        source: serde_json::Error,
    },
    /// A step from an older version failed or panicked, or gave what does not fit. Correct the step: it must accept every
    /// payload that was ever stored under its version.
    #[error("the step from `{name}` version {version} to {to} failed")]
    Upcast {
        /// The name at which the step begins.
        name: String,
        /// The schema version at which it begins.
        version: u32,
        /// What it leads to.
        to: String,
        /// What the step said.
        source: Box<dyn std::error::Error + Send + Sync + 'static>,
    },
}

impl DecodeError {
    /// Which of the five families the error belongs to: always *broken*, as only another build can read the event.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::UnknownName { .. }
            | Self::UnknownSchemaVersion { .. }
            | Self::Payload { .. }
            | Self::Upcast { .. } => ErrorFamily::Broken,
        }
    }

    /// What serde found in a payload that does not fit, or else the error itself: for an error that says where.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Payload { source } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// Whether the same call may work later without any change: never.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}
