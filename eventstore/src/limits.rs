//! How much a store accepts.

/// Upper bounds that a store checks before it writes anything.
///
/// The same defaults hold on every store, so that what one engine accepts another does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event's payload; 1 MiB by default.
    pub event_bytes: usize,
    /// Bytes of one event's metadata as JSON; 16 KiB by default.
    pub metadata_bytes: usize,
    /// Bytes of all payloads and metadata of one append; 16 MiB by default.
    pub append_bytes: usize,
    /// Events of one append; 10,000 by default.
    pub append_events: usize,
    /// Bytes of one group-commit batch, unless a single append fills it; 8 MiB by default.
    pub batch_bytes: usize,
    /// Appends of one tenant that may wait in the queue of a store handle; 10,000 by default.
    pub queued_appends: usize,
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
        }
    }
}
