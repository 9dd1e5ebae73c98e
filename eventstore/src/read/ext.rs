//! What every store can do because it keeps the contract.

use std::sync::Arc;

use crate::filter::{Filter, StreamFilter};
use crate::position::Position;
use crate::read::events::EventStream;
use crate::read::pages::Pages;
use crate::read::stream_pages::StreamPages;
use crate::read::streams::Streams;
use crate::read::subscription::Subscription;
use crate::store::EventStore;
use crate::stream::{StreamId, StreamVersion};

/// Reads of any length, for every store whose handle can be cloned.
///
/// Nothing is read before the value that a method gives is polled, within a tokio runtime. While its consumer works on
/// one page, at most one more is read ahead.
///
/// ```
/// use annals_eventstore::{EventStoreExt, Filter, MemoryStore, Position};
/// use futures::TryStreamExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let events: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await?;
/// assert!(events.is_empty());
/// # Ok::<(), annals_eventstore::ReadError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait EventStoreExt: EventStore + Clone {
    /// The events of one stream, in the order of their versions; none if there is no such stream.
    ///
    /// What comes is a prefix of the stream that reaches at least to where the stream ended when the read began.
    fn load(&self, stream: &StreamId) -> EventStream {
        self.load_after(stream, StreamVersion::NONE)
    }

    /// The events of one stream after a version, in the order of their versions; none if the stream is not longer.
    fn load_after(&self, stream: &StreamId, after: StreamVersion) -> EventStream {
        EventStream::of_stream(StreamPages::new(self.shared(), stream.clone(), after))
    }

    /// The events of the log after a position, in the order of their positions, up to the head as it is when the end is
    /// reached.
    ///
    /// Ends with [`ReadError::AheadOfLog`](crate::ReadError::AheadOfLog) if `after` is beyond the last event.
    fn read_all(&self, after: Position, filter: Filter) -> EventStream {
        EventStream::of_log(self.pages(after, filter))
    }

    /// The events of the log after a position, in the order of their positions, and then each as it comes: none is
    /// missed, none comes twice.
    ///
    /// Ends with [`ReadError::AheadOfLog`](crate::ReadError::AheadOfLog) if `after` is beyond the last event.
    fn subscribe(&self, after: Position, filter: Filter) -> Subscription {
        Subscription::new(self.pages(after, filter))
    }

    /// The log after a position page by page, and then as it grows, with how far it has been looked at.
    fn pages(&self, after: Position, filter: Filter) -> Pages {
        Pages::new(self.shared(), after, filter)
    }

    /// The streams of the store with their versions, ordered by tenant, aggregate type and id bytewise.
    fn streams(&self, filter: StreamFilter) -> Streams {
        Streams::new(self.shared(), filter)
    }

    /// The same store behind a pointer that does not tell its kind.
    fn shared(&self) -> Arc<dyn EventStore> {
        Arc::new(self.clone())
    }
}

impl<S: EventStore + Clone> EventStoreExt for S {}
