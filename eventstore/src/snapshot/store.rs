//! What a store can do for snapshots.

use std::sync::Arc;

use async_trait::async_trait;

use super::queue::SnapshotQueue;
use crate::database_error::DatabaseError;
use crate::event::EventId;
use crate::payload::Payload;
use crate::position::Position;
use crate::request::Fingerprint;
use crate::stream::{StreamId, StreamVersion};

/// The state of an aggregate after an event of its stream, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The stream of the aggregate.
    pub stream: StreamId,
    /// The key of the code that folded and wrote it: snapshots under other keys are those of other builds. At most 200
    /// bytes without control characters.
    pub key: Arc<str>,
    /// The version of the last event that is in the state.
    pub version: StreamVersion,
    /// The event at that version.
    pub event_id: EventId,
    /// The state.
    pub body: Payload,
    /// The digest of all the others, by which a row that was changed by hand is found.
    pub digest: Fingerprint,
}

impl Snapshot {
    /// A snapshot with its digest.
    #[must_use]
    pub fn new(stream: StreamId, key: Arc<str>, version: StreamVersion, event_id: EventId, body: Payload) -> Self {
        let digest = Fingerprint::of_bytes(&[]);
        let snapshot = Self { stream, key, version, event_id, body, digest };
        Self { digest: snapshot.expected_digest(), ..snapshot }
    }

    /// Whether the digest is that of the other fields.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.digest == self.expected_digest()
    }

    fn expected_digest(&self) -> Fingerprint {
        // No name has a control character, so the parts cannot run into each other.
        let stream = &self.stream;
        let parts = [stream.tenant().as_str(), stream.aggregate_type(), stream.aggregate_id(), &self.key].join("\n");
        let (version, event_id) = (self.version.get(), self.event_id.get());
        Fingerprint::of_bytes(format!("{parts}\n{version}\n{event_id}\n{}", self.body.as_str()).as_bytes())
    }
}

/// A snapshot, and whether it is one of the present history.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSnapshot {
    /// The snapshot, as it was saved.
    pub snapshot: Snapshot,
    /// Whether its stream has this event at this version now. After a restore or a failover it may have another, or none.
    pub is_in_log: bool,
}

/// What a store can do for snapshots: [`EventStore::snapshots`](crate::EventStore::snapshots) gives it. A store without it
/// keeps the whole contract; its aggregates are then read from their first event.
///
/// # Obligations on the implementer
/// 1. A snapshot is found as it was saved, or not at all. 2. [`StoredSnapshot::is_in_log`] is read together with the
/// snapshot, in one view of the store. 3. A snapshot of an event that the log does not have is not saved. 4. Tenants, streams
/// and keys never see or change each other's. 5. Saving is bounded: of each stream the newest under each key stays, a few
/// older ones too, and those that are not in the log are removed. 6. Nothing else follows from a snapshot.
///
/// `close` of the store ends with [`SnapshotQueue::close`] of its queue, after which nothing is saved any more.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// The latest snapshot of the stream under a key, at or below a version.
    ///
    /// # Errors
    /// [`DatabaseError`]; the caller then reads the stream without.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn load_snapshot(
        &self,
        stream: &StreamId,
        key: &str,
        at_or_below: StreamVersion,
    ) -> Result<Option<StoredSnapshot>, DatabaseError>;

    /// The latest snapshot of the stream under a key whose event is at or before a position of the log. A row whose event the
    /// log does not have is none of them.
    ///
    /// # Errors
    /// [`DatabaseError`]; the caller then reads the stream without.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    async fn load_snapshot_as_of(
        &self,
        stream: &StreamId,
        key: &str,
        position: Position,
    ) -> Result<Option<StoredSnapshot>, DatabaseError>;

    /// Saves snapshots: each replaces the one of the same stream, key and version. Those whose event is not in the log are
    /// left out.
    ///
    /// # Errors
    /// [`DatabaseError`]; some of them may be saved.
    ///
    /// # Cancel safety
    /// Dropping the future saves some, all or none.
    async fn save_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), DatabaseError>;

    /// Deletes all snapshots of a stream, under all keys. Loads take longer afterwards, and give the same.
    ///
    /// # Errors
    /// [`DatabaseError`]; some of them may be deleted.
    ///
    /// # Cancel safety
    /// Dropping the future deletes some, all or none.
    async fn delete_snapshots(&self, stream: &StreamId) -> Result<(), DatabaseError>;

    /// The queue of the handle, the same for all clones of it.
    fn queue(&self) -> &SnapshotQueue;
}
