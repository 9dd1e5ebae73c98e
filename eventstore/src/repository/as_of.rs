//! What was true of an aggregate at a moment of the past.

use std::fmt;
use std::sync::Arc;

use super::cache::Known;
use super::handle::Repository;
use super::reading::Reading;
use crate::aggregate::Evolve;
use crate::as_of::{AsOf, beyond_stream};
use crate::error::{Invalid, ReadError};
use crate::event::RecordedEvent;
use crate::position::Position;
use crate::stream::{StreamId, StreamVersion};

/// An aggregate as it was, returned by [`Repository::as_of`](crate::Repository::as_of).
#[non_exhaustive]
pub struct LoadedAsOf<A> {
    /// The stream that was read.
    pub stream: StreamId,
    /// The state after the last event at that moment; the default state if there was none.
    pub state: Arc<A>,
    /// The version of that event; [`StreamVersion::NONE`] if there was none.
    pub version: StreamVersion,
    /// Up to where the log was read. [`AsOf::position`] of it gives the same answer for ever. For a version it is the position
    /// of its event, and if that is in the middle of an append, [`AsOf::position`] of it ends before the append.
    pub position: Position,
}

impl<A> LoadedAsOf<A> {
    /// Whether anything had happened to the aggregate.
    #[must_use]
    pub fn existed(&self) -> bool {
        self.version != StreamVersion::NONE
    }
}

impl<A> Clone for LoadedAsOf<A> {
    fn clone(&self) -> Self {
        let Self { stream, state, version, position } = self;
        Self { stream: stream.clone(), state: state.clone(), version: *version, position: *position }
    }
}

impl<A: fmt::Debug> fmt::Debug for LoadedAsOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedAsOf")
            .field("stream", &self.stream)
            .field("state", &self.state)
            .field("version", &self.version)
            .field("position", &self.position)
            .finish()
    }
}

/// How many events the first page of a read of the past has at most; each further page has half of what was read before it, if that
/// is more. How far away the last event is, is not known before it was read, except for a version; so little is read in vain.
const FIRST_PAGE: usize = 128;

/// The last event that is read.
#[derive(Clone, Copy)]
pub(super) enum Last {
    Version(StreamVersion),
    Position(Position),
}

impl Last {
    /// Whether the event belongs to the past that is asked for.
    fn includes(self, event: &RecordedEvent) -> bool {
        match self {
            Self::Version(version) => event.version <= version,
            Self::Position(position) => event.position <= position,
        }
    }

    /// How many events at most are read after a version.
    fn events_after(self, after: StreamVersion) -> usize {
        match self {
            Self::Version(version) => usize::try_from(version.get() - after.get()).unwrap_or(1).max(1),
            Self::Position(_) => usize::MAX,
        }
    }

    /// Whether no event after this one belongs to it.
    fn is(self, event: &RecordedEvent) -> bool {
        match self {
            Self::Version(version) => event.version == version,
            Self::Position(position) => event.position == position,
        }
    }
}

impl<A: Evolve> Repository<A> {
    /// The aggregate's state at a moment of the past: after a version, as of a position of the log, or as of a time. The
    /// default state and version 0 if it had no events then, as for an aggregate that does not exist.
    ///
    /// A position and a time mean a prefix of the log in whole appends: see [`AsOf`]. A version is taken exactly, also in the
    /// middle of an append. For a time it waits until no running append can be recorded at it any more, if that could change
    /// the answer. At the deadline of the context it fails as unavailable.
    ///
    /// Where there are snapshots, it begins with the latest one of that time, and reads the events from there on. It has one
    /// taken of what it read, if that were as many events as a load has one taken after.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// use annals_eventstore::{AggregateStore, AsOf, Clock, ManualClock, MemoryStore};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let clock = Arc::new(ManualClock::at("2026-03-02T09:30:00Z".parse()?));
    /// let orders = MemoryStore::builder().clock(Arc::clone(&clock)).build().aggregate::<Order>();
    /// let id = OrderId::new("o-17")?;
    /// orders.execute(&id, |order| order.place(12_00)).await?;
    /// let yesterday = clock.now();
    /// clock.advance(Duration::from_secs(24 * 60 * 60));
    /// orders.execute(&id, |order| order.pay(12_00)).await?;
    ///
    /// let then = orders.as_of(&id, AsOf::time(yesterday)).await?;
    /// assert_eq!((then.version.get(), then.state.paid), (1, false));
    /// assert!(orders.as_of(&id, AsOf::version(2)).await?.state.paid);
    ///
    /// // The position of an answer gives the same answer for ever.
    /// let same = orders.as_of(&id, AsOf::position(then.position)).await?;
    /// assert_eq!(same.version, then.version);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Invalid`] with the field `version` if it is negative or the stream has fewer events, `position` beyond the
    /// end of the log, or `time` if it is not over; others as of [`Repository::load`] and
    /// [`EventStore::log_as_of`](crate::EventStore::log_as_of).
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn as_of(&self, id: &A::Id, as_of: AsOf) -> Result<LoadedAsOf<A>, ReadError> {
        self.read_in_time(self.find_as_of(id, as_of)).await
    }

    async fn find_as_of(&self, id: &A::Id, as_of: AsOf) -> Result<LoadedAsOf<A>, ReadError> {
        let stream = self.stream(id)?;
        let last = match as_of {
            AsOf::Version(version) if version < 0 => {
                let problem = format!("is {version}, but versions count from 1");
                return Err(Invalid::new("version", problem, "use 0 for the state before the first event").into());
            }
            AsOf::Version(version) => Last::Version(StreamVersion::stored(version)),
            as_of => Last::Position(self.store().log_as_of(as_of).await?.position),
        };
        let (known, position) = self.fold_up_to(&stream, last).await?;
        if let Last::Version(version) = last
            && version > known.version
        {
            return Err(beyond_stream(version.get(), &stream, known.version));
        }
        let position = if let Last::Position(position) = last { position } else { position };
        Ok(LoadedAsOf { stream, state: known.state, version: known.version, position })
    }

    /// The state after the last event that `last` includes, and the position of that event.
    async fn fold_up_to(&self, stream: &StreamId, last: Last) -> Result<(Known<A>, Position), ReadError> {
        let mut position = Position::START;
        if matches!(last, Last::Version(StreamVersion::NONE) | Last::Position(Position::START)) {
            return Ok((Known::start(), position));
        }
        let start = self.snapshot_within(stream, last).await?;
        let (begun, mut read) = (start.version, 0);
        let mut reading = Reading::on(start);
        loop {
            let (after, limit) = reading.next_page();
            let limit = limit.min(FIRST_PAGE.max(read / 2)).min(last.events_after(after));
            let mut page = self.store().load_page(stream, after, limit).await?;
            read += page.events.len();
            let included = page.events.partition_point(|event| last.includes(event));
            page.end |= included < page.events.len() || page.events.last().is_some_and(|event| last.is(event));
            page.events.truncate(included);
            position = page.events.last().map_or(position, |event| event.position);
            if reading.take(stream, page)? {
                let begun = if reading.is_anew { StreamVersion::NONE } else { begun };
                if A::SNAPSHOT.is_due_after_load(reading.known.version.get() - begun.get()) {
                    // The same moment, and those after it, are asked for again, perhaps.
                    self.take_snapshot(stream, &reading.known);
                }
                return Ok((reading.known, position));
            }
        }
    }
}
