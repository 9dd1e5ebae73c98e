//! What a handle of a store knows about the snapshots under one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::codec::SnapshotCodec;
use super::queue::SnapshotQueue;
use crate::aggregate::Aggregate;

/// The snapshots of one aggregate type.
pub(crate) struct Snapshots<A> {
    pub(crate) codec: SnapshotCodec<A>,
    pub(crate) key: Arc<str>,
    pub(crate) health: Arc<Health>,
}

impl<A: Aggregate> Snapshots<A> {
    /// Those that the codec writes, in the store of the queue.
    pub(crate) fn new(codec: SnapshotCodec<A>, queue: &SnapshotQueue) -> Self {
        let key = codec.key();
        Self { codec, health: queue.health_of(A::TYPE, &key), key }
    }
}

impl<A> Clone for Snapshots<A> {
    fn clone(&self) -> Self {
        Self { codec: self.codec, key: self.key.clone(), health: self.health.clone() }
    }
}

/// How snapshots have served the repositories of one aggregate type, since the store's handle was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotStats {
    /// Loads that began with a snapshot.
    pub hits: u64,
    /// Loads that found no snapshot that they could use, and read the stream from its first event.
    pub misses: u64,
    /// Snapshots that the store was given.
    pub saved: u64,
    /// Snapshots that were due and not saved: the queue was full, the store refused, or the state cannot be written.
    pub skipped: u64,
    /// Whether a snapshot gave another state than its events, so that none are used or saved any more. The log says which.
    pub disabled: bool,
}

/// Whether the snapshots under one key can be trusted, and how often they were used. Shared by all repositories of a handle.
pub(crate) struct Health {
    aggregate_type: &'static str,
    trust: AtomicU8,
    hits: AtomicU64,
    misses: AtomicU64,
    saved: AtomicU64,
    skipped: AtomicU64,
}

/// No snapshot was compared with its events yet.
const UNKNOWN: u8 = 0;
/// One was, and they agree.
const TRUSTED: u8 = 1;
/// One was, and they differ.
const DISABLED: u8 = 2;

impl Health {
    pub(crate) fn new(aggregate_type: &'static str) -> Self {
        let [hits, misses, saved, skipped] = Default::default();
        Self { aggregate_type, trust: AtomicU8::new(UNKNOWN), hits, misses, saved, skipped }
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.trust.load(Ordering::Acquire) == TRUSTED
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.trust.load(Ordering::Acquire) == DISABLED
    }

    /// A snapshot has given the state of its events. One that did not stays decisive.
    pub(crate) fn trust(&self) {
        // It fails if the answer is known already.
        let _ = self.trust.compare_exchange(UNKNOWN, TRUSTED, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn disable(&self) {
        self.trust.store(DISABLED, Ordering::Release);
    }

    pub(crate) fn hit(&self) {
        self.count(&self.hits, "hit");
    }

    pub(crate) fn miss(&self) {
        self.count(&self.misses, "miss");
    }

    pub(crate) fn saved(&self) {
        self.count(&self.saved, "saved");
    }

    pub(crate) fn skipped(&self) {
        self.count(&self.skipped, "skipped");
    }

    pub(crate) fn stats(&self) -> SnapshotStats {
        SnapshotStats {
            hits: self.hits.load(Ordering::Acquire),
            misses: self.misses.load(Ordering::Acquire),
            saved: self.saved.load(Ordering::Acquire),
            skipped: self.skipped.load(Ordering::Acquire),
            disabled: self.is_disabled(),
        }
    }

    fn count(&self, counter: &AtomicU64, result: &'static str) {
        counter.fetch_add(1, Ordering::AcqRel);
        metrics::counter!("annals_snapshots_total", "aggregate" => self.aggregate_type, "result" => result)
            .increment(1);
    }
}
