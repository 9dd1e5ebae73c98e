//! Folded states of aggregates, kept so that the usual command need not read before it appends.

use std::sync::Arc;

use moka::ops::compute::Op;

use crate::aggregate::Evolve;
use crate::error::ReadError;
use crate::event::{EventId, RecordedEvent};
use crate::position::Incarnation;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion};

/// The state of an aggregate after an event of its stream. Cloning it does not clone the state.
pub(crate) struct Known<A> {
    pub(crate) state: Arc<A>,
    pub(crate) version: StreamVersion,
    /// The event at that version, which proves that the state is one of this history; `None` before the first.
    pub(crate) last_event: Option<EventId>,
    /// The bytes of the events or the snapshot that it was made of, which stand for the size of the state.
    pub(crate) bytes: usize,
    /// Whether a snapshot of the state is taken once it is known to be stored; not of one that is cached.
    pub(crate) is_due: bool,
}

impl<A: Default> Known<A> {
    /// The state before the first event.
    pub(crate) fn start() -> Self {
        Self { state: Arc::new(A::default()), version: StreamVersion::NONE, last_event: None, bytes: 0, is_due: false }
    }
}

impl<A> Known<A> {
    /// What the stream must be like for an append that was decided on this state.
    pub(crate) fn expected(&self) -> ExpectedVersion {
        ExpectedVersion::end(self.version, self.last_event)
    }
}

impl<A: Evolve> Known<A> {
    /// Takes the next events of `stream` into the state.
    pub(super) fn take_in(&mut self, stream: &StreamId, events: &[RecordedEvent]) -> Result<(), ReadError> {
        for recorded in events {
            if self.version.plus(1) != Some(recorded.version) {
                return Err(ReadError::Damaged {
                    position: recorded.position,
                    what: format!("`{stream}` continues after {} with {}", self.version, recorded.version),
                });
            }
            for event in recorded.decode()? {
                Arc::make_mut(&mut self.state).evolve(&event);
            }
            (self.version, self.last_event) = (recorded.version, Some(recorded.event_id));
            self.bytes += recorded.payload.as_str().len();
        }
        Ok(())
    }
}

impl<A> Clone for Known<A> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), ..*self }
    }
}

/// The most bytes that can be weighed.
const HEAVIEST: u64 = u32::MAX as u64;

/// A bounded number of states of bounded size, those used most kept.
///
/// What it holds was the truth at some moment: streams only grow, so a state in it may be old but never wrong. The
/// exceptions are a failover to a server that had not got everything, and a restore. So each state belongs to one
/// incarnation of the store and names its last event, which is compared by every append that was decided on it
/// ([`Known::expected`]) and before it is extended ([`Reading`](super::reading::Reading)).
pub(super) struct Cache<A>(Option<moka::sync::Cache<StreamId, (Incarnation, Known<A>)>>);

impl<A: Send + Sync + 'static> Cache<A> {
    /// Keeps up to `entries` states of up to `bytes` in all; none if one of them is 0.
    pub(super) fn new(entries: u64, bytes: u64) -> Self {
        // Each state weighs at least its share of the bytes, so that one bound holds both.
        let bytes = bytes.min(HEAVIEST);
        let unit = bytes.div_ceil(entries.max(1));
        let weigh = move |_: &StreamId, (_, known): &(Incarnation, Known<A>)| {
            u32::try_from(unit.max(u64::try_from(known.bytes).unwrap_or(u64::MAX))).unwrap_or(u32::MAX)
        };
        let cache = || {
            moka::sync::Cache::builder().max_capacity(bytes.min(unit.saturating_mul(entries))).weigher(weigh).build()
        };
        Self((entries > 0 && bytes > 0).then(cache))
    }

    pub(super) fn get(&self, incarnation: Incarnation, stream: &StreamId) -> Option<Known<A>> {
        let (of, known) = self.0.as_ref()?.get(stream)?;
        (of == incarnation).then_some(known)
    }

    /// Keeps `known`, unless there is a later state of the stream already.
    pub(super) fn put(&self, incarnation: Incarnation, stream: &StreamId, known: &Known<A>) {
        // A stream without events is not worth a place; reading it costs no folding, and ids that do not exist are many.
        let Some(cache) = self.0.as_ref().filter(|_| known.version != StreamVersion::NONE) else { return };
        // The closure only compares numbers: no code of the user's runs inside the cache's lock.
        cache.entry_by_ref(stream).and_compute_with(|there| match there.map(moka::Entry::into_value) {
            Some((of, there)) if of == incarnation && there.version >= known.version => Op::Nop,
            _ => Op::Put((incarnation, Known { is_due: false, ..known.clone() })),
        });
    }

    /// How many states are kept.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |cache| {
            cache.run_pending_tasks();
            cache.entry_count()
        })
    }

    pub(super) fn evict(&self, stream: &StreamId) {
        if let Some(cache) = &self.0 {
            cache.invalidate(stream);
        }
    }
}

impl<A> Clone for Cache<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
