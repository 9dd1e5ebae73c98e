//! Which part of the past is asked for: the whole of a stream up to a version, or a prefix of the log.

use std::fmt;

use jiff::Timestamp;

use crate::error::ReadError;
use crate::event::RecordedEvent;
use crate::filter::Filter;
use crate::invalid::Invalid;
use crate::limits::MAX_PAGE_EVENTS;
use crate::position::{After, Checkpoint, Position};
use crate::store::EventStore;
use crate::stream::{StreamId, StreamVersion};

/// A moment of the past, for reads of what was true then: [`Repository::as_of`](crate::Repository::as_of) has an example.
///
/// A position and a time mean a prefix of the log, in whole appends. A position is the last of the prefix. A time means all
/// that was stored before the first event that was recorded after it; the order is that of positions, so a clock that was
/// set back changes nothing. If the prefix would end in the middle of an append, it ends before that append.
///
/// The answer to a position never changes. Neither does that to a time, as a time that is not over is refused, unless the
/// clock of the store is set back past it afterwards.
///
/// ```
/// use annals_eventstore::{AsOf, Position};
///
/// assert_eq!(AsOf::version(7).to_string(), "version 7");
/// assert_eq!(AsOf::position(Position::new(40)?).to_string(), "position 40");
/// assert_eq!(AsOf::time("2026-03-02T09:30:00Z".parse()?).to_string(), "2026-03-02T09:30:00Z");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsOf {
    /// After this many events of one stream, also in the middle of an append.
    Version(i64),
    /// Up to this position of the log.
    Position(Position),
    /// Before the first event of the log that was recorded after this time.
    Time(Timestamp),
}

impl AsOf {
    /// After the first `version` events of a stream; 0 is before the first. Only a stream has versions: a read of the log or
    /// of a whole read model refuses it.
    #[must_use]
    pub fn version(version: i64) -> Self {
        Self::Version(version)
    }

    /// Up to `position`, in whole appends.
    #[must_use]
    pub fn position(position: Position) -> Self {
        Self::Position(position)
    }

    /// Before the first event that was recorded after `time`, in whole appends.
    #[must_use]
    pub fn time(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version}"),
            Self::Position(position) => write!(f, "position {position}"),
            Self::Time(time) => time.fmt(f),
        }
    }
}

impl From<Checkpoint> for AsOf {
    fn from(checkpoint: Checkpoint) -> Self {
        Self::Position(checkpoint.position)
    }
}

/// The log has no versions.
pub(crate) fn not_of_the_log(version: i64) -> ReadError {
    let problem = format!("is version {version}, but only a stream has versions");
    Invalid::new("as_of", problem, "ask for a position or a time").into()
}

/// The log ends before the position.
pub(crate) fn beyond_log(position: Position, head: Position) -> ReadError {
    let problem = format!("is {position}, but the log ends at {head}");
    Invalid::new("position", problem, format!("ask for a position up to {head}")).into()
}

/// The stream ends before the version.
pub(crate) fn beyond_stream(version: i64, stream: &StreamId, actual: StreamVersion) -> ReadError {
    let problem = format!("is {version}, but `{stream}` is at {actual}");
    Invalid::new("version", problem, format!("ask for one up to {}", actual.get())).into()
}

/// Events that are stored later could still be recorded at the time.
pub(crate) fn not_over(time: Timestamp, now: Timestamp) -> ReadError {
    let problem = format!("is {time}, but the clock of the store shows {now}");
    Invalid::new("time", problem, "ask for a time before that, or, to ask for now, for the position of `head`").into()
}

/// The answer of a store that knows nothing about its writers: it reads the log from its beginning.
pub(crate) async fn read_up_to<S: EventStore + ?Sized>(store: &S, as_of: AsOf) -> Result<Checkpoint, ReadError> {
    if let AsOf::Version(version) = as_of {
        return Err(not_of_the_log(version));
    }
    let mut prefix = Prefix::new(Checkpoint::start(store.incarnation()), as_of);
    let mut after = After::START;
    loop {
        let page = store.read_page(after, &Filter::all(), MAX_PAGE_EVENTS).await?;
        for event in &page.events {
            if !prefix.takes(event) {
                return Ok(prefix.whole);
            }
        }
        match page.checkpoint {
            Some(checkpoint) if !page.end => after = checkpoint.into(),
            // The page begins at a gap that a writer may fill.
            None if !page.end => tokio::task::yield_now().await,
            _ => return prefix.at_end(),
        }
    }
}

/// A prefix of the log, as its events are read in order: pure.
struct Prefix {
    as_of: AsOf,
    /// The last event that was taken.
    last: Checkpoint,
    /// The append of that event, if it is one of several events.
    append: Option<uuid::Uuid>,
    /// The end of the appends before that one.
    whole_before: Checkpoint,
    /// The end of the whole appends.
    whole: Checkpoint,
}

impl Prefix {
    fn new(start: Checkpoint, as_of: AsOf) -> Self {
        Self { as_of, last: start, append: None, whole_before: start, whole: start }
    }

    /// Takes the next event; returns whether it belongs to the prefix. If not, the prefix is whole.
    fn takes(&mut self, event: &RecordedEvent) -> bool {
        let is_within = match self.as_of {
            AsOf::Version(_) => false,
            AsOf::Position(position) => event.position <= position,
            AsOf::Time(time) => event.recorded_at <= time,
        };
        let continues = self.append.is_some() && self.append == event.append_id;
        if !continues {
            self.whole_before = self.last;
        }
        if is_within {
            self.last = event.checkpoint(self.last.incarnation);
            self.append = event.append_id;
        }
        self.whole = if !is_within && continues { self.whole_before } else { self.last };
        is_within
    }

    /// The log has no more events.
    fn at_end(self) -> Result<Checkpoint, ReadError> {
        match self.as_of {
            AsOf::Position(position) if position == self.last.position => Ok(self.last),
            AsOf::Position(position) => Err(beyond_log(position, self.last.position)),
            AsOf::Version(version) => Err(not_of_the_log(version)),
            AsOf::Time(time) => {
                let problem =
                    format!("is {time}, and the store cannot tell whether it is over: no later event is stored");
                Err(Invalid::new("time", problem, "ask for a position, or for a time before the last event").into())
            }
        }
    }
}
