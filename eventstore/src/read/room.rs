//! The memory for pages that are read ahead of their consumers: all readers of a handle share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::event::RecordedEvent;

/// The least bytes of a page, however many readers there are.
const LEAST: usize = 128 << 10;

/// The memory for the pages of all readers of a store handle: each holds the current page and the next. 128 MiB by default.
///
/// Where there are many readers their pages are shorter, but not below 128 KiB or one event. Clones count their readers
/// together, so handles that are opened with clones of one value share its memory.
///
/// ```
/// use annals_eventstore::{Limits, MemoryStore, ReadAhead};
///
/// let limits = Limits { read_ahead: ReadAhead::of_bytes(16 << 20), ..Limits::default() };
/// assert_eq!(limits.read_ahead.bytes(), 16_777_216);
/// let store = MemoryStore::builder().limits(limits).build();
/// ```
#[derive(Clone, Debug)]
pub struct ReadAhead {
    bytes: usize,
    /// How many readers there are.
    readers: Arc<AtomicUsize>,
}

impl ReadAhead {
    /// So many bytes, about, of payloads, metadata and what holds them in memory.
    #[must_use]
    pub fn of_bytes(bytes: usize) -> Self {
        Self { bytes, readers: Arc::default() }
    }

    /// How many bytes they are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self::of_bytes(128 << 20)
    }
}

/// Of as many bytes.
impl PartialEq for ReadAhead {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for ReadAhead {}

/// The share of one reader.
#[derive(Debug)]
pub(super) struct Room {
    all: ReadAhead,
    /// The average bytes per event of the last page, in memory; 1 before the first.
    bytes_per_event: usize,
}

impl Room {
    pub(super) fn enter(all: &ReadAhead) -> Self {
        all.readers.fetch_add(1, Ordering::AcqRel);
        Self { all: all.clone(), bytes_per_event: 1 }
    }

    /// How many of `limit` events a page may have, judged by the last page.
    pub(super) fn limit(&self, limit: usize) -> usize {
        let readers = self.all.readers.load(Ordering::Acquire).max(1);
        let page = (self.all.bytes / 2 / readers).max(LEAST);
        limit.min(page / self.bytes_per_event).max(1)
    }

    pub(super) fn has_read(&mut self, events: &[RecordedEvent]) {
        let bytes: usize = events.iter().map(|event| size_of::<RecordedEvent>() + event.bytes()).sum();
        if let Some(mean) = bytes.checked_div(events.len()) {
            self.bytes_per_event = mean.max(1);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.readers.fetch_sub(1, Ordering::AcqRel);
    }
}
