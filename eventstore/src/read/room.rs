//! The memory for pages that are read ahead of their consumers: all readers of a process share it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::event::RecordedEvent;

/// The bytes of the pages of all readers, about.
const ALL: usize = 128 << 20;

/// The least bytes of a page, however many readers there are.
const LEAST: usize = 128 << 10;

/// How many readers there are.
static READERS: AtomicUsize = AtomicUsize::new(0);

/// The share of one reader, which holds two pages: the present one and the next.
#[derive(Debug)]
pub(super) struct Room {
    /// The average bytes per event of the last page, in memory; 1 before the first.
    bytes_per_event: usize,
}

impl Room {
    pub(super) fn enter() -> Self {
        READERS.fetch_add(1, Ordering::AcqRel);
        Self { bytes_per_event: 1 }
    }

    /// How many of `limit` events a page may have, judged by the last page.
    pub(super) fn limit(&self, limit: usize) -> usize {
        let page = (ALL / 2 / READERS.load(Ordering::Acquire).max(1)).max(LEAST);
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
        READERS.fetch_sub(1, Ordering::AcqRel);
    }
}
