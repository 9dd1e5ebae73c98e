//! How much a store accepts, and how much it returns at once.

use crate::event::RecordedEvent;
use crate::invalid::Invalid;
use crate::read::ReadAhead;

/// Upper bounds that a store checks before it writes anything.
///
/// The same defaults hold on every store, so that what one engine accepts another does not refuse. What is above a
/// bound is refused as invalid, naming the field; a call that would have to queue above one is refused as overloaded,
/// which is transient. Bounds apply to appends only: stored events are always readable. [`Limits::read_ahead`] says how much of
/// them the readers of a handle keep in memory.
///
/// ```
/// use annals_eventstore::{EventStore, Limits, MemoryStore};
///
/// let store = MemoryStore::builder().limits(Limits { event_bytes: 4 << 20, ..Limits::default() }).build();
/// assert_eq!(store.limits().event_bytes, 4_194_304);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event's payload, its numbers written without exponents; 1 MiB by default, [`MAX_EVENT_BYTES`] at most.
    pub event_bytes: usize,
    /// Bytes of one event's metadata as JSON; 16 KiB by default, [`MAX_METADATA_BYTES`] at most.
    pub metadata_bytes: usize,
    /// Bytes of all payloads and metadata of one append, counted like those; 16 MiB by default.
    pub append_bytes: usize,
    /// Events of one append; 10,000 by default.
    pub append_events: usize,
    /// Bytes of one group-commit batch, unless a single append fills it; 8 MiB by default.
    pub batch_bytes: usize,
    /// Appends of one tenant that may be unanswered in a store handle, queued or sent, and commands of one that may wait in a repository
    /// for others on the same aggregates; 10,000 by default.
    pub queued_appends: usize,
    /// Bytes of one tenant's appends that may be unanswered there, unless a single append has more; 64 MiB by default.
    pub queued_bytes: usize,
    /// The memory for the pages that readers of the log hold; 128 MiB for all of a handle by default.
    pub read_ahead: ReadAhead,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 1 << 20,
            metadata_bytes: 16 << 10,
            append_bytes: 16 << 20,
            append_events: 10_000,
            batch_bytes: 8 << 20,
            queued_appends: 10_000,
            queued_bytes: 64 << 20,
            read_ahead: ReadAhead::default(),
        }
    }
}

/// The most that [`Limits::event_bytes`] can allow, whatever its value is: 64 MiB. No store can be made to hold a larger event.
pub const MAX_EVENT_BYTES: usize = 64 << 20;

/// The most that [`Limits::metadata_bytes`] can allow, whatever its value is: 1 MiB.
pub const MAX_METADATA_BYTES: usize = 1 << 20;

/// The most events that one page of a read holds; a greater limit counts as this one. SQLite gives pages of 2,048 at
/// most.
pub const MAX_PAGE_EVENTS: usize = 10_000;

/// The bytes of payloads and metadata at which a page of a read ends, about, unless a single event is larger: 16 MiB.
pub const PAGE_BYTES: usize = 16 << 20;

/// Checks the limit of a read: at least 1, and at most [`MAX_PAGE_EVENTS`], to which it is clamped. For those who
/// implement a store.
///
/// # Errors
/// [`Invalid`] with the field `limit` for 0.
pub fn page_limit(limit: usize) -> Result<usize, Invalid> {
    if limit == 0 {
        return Err(Invalid::new("limit", "is 0, so nothing could be read", "ask for at least 1"));
    }
    Ok(limit.min(MAX_PAGE_EVENTS))
}

/// How many more events fit one page; for those who implement a store.
///
/// ```
/// use annals_eventstore::{Invalid, PageBudget, RecordedEvent, StreamPage};
///
/// /// What [`EventStore::load_page`](annals_eventstore::EventStore::load_page) gives of the rest of a stream.
/// fn page(rest: &[RecordedEvent], limit: usize) -> Result<StreamPage, Invalid> {
///     let mut budget = PageBudget::new(limit)?;
///     let events: Vec<_> = rest.iter().take_while(|event| budget.takes(event)).cloned().collect();
///     let end = events.len() == rest.len();
///     Ok(StreamPage::new(events, end))
/// }
///
/// assert!(page(&[], 10)?.end);
/// assert_eq!(page(&[], 0).unwrap_err().field, "limit");
/// # Ok::<(), Invalid>(())
/// ```
#[derive(Debug)]
pub struct PageBudget {
    events: usize,
    bytes: usize,
    empty: bool,
}

impl PageBudget {
    /// The room of an empty page of a read with this limit: [`page_limit`] of events, and [`PAGE_BYTES`].
    ///
    /// # Errors
    /// [`Invalid`] with the field `limit` for 0.
    pub fn new(limit: usize) -> Result<Self, Invalid> {
        page_limit(limit).map(Self::of)
    }

    /// The room of an empty page for at most `events` events.
    pub(crate) fn of(events: usize) -> Self {
        Self { events, bytes: PAGE_BYTES, empty: true }
    }

    /// Whether the page takes `event`, and if so, takes it into account. The first event always fits.
    pub fn takes(&mut self, event: &RecordedEvent) -> bool {
        let bytes = event.bytes();
        if self.events == 0 || (bytes > self.bytes && !self.empty) {
            return false;
        }
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        true
    }

    /// Whether no further event can fit.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.events == 0
    }
}
