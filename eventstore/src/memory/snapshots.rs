//! The snapshots of a memory store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryStore;
use super::log::Log;
use crate::database_error::DatabaseError;
use crate::position::Position;
use crate::snapshot::{Row, Snapshot, SnapshotQueue, SnapshotStore, StoredSnapshot, surplus};
use crate::stream::{StreamId, StreamVersion};

/// Those of one stream, by key and version, with the number of the call that saved each.
type OfStream = BTreeMap<(Arc<str>, StreamVersion), (Snapshot, i64)>;

#[derive(Default)]
pub(super) struct Saved {
    streams: BTreeMap<StreamId, OfStream>,
    calls: i64,
}

impl Log {
    fn has(&self, snapshot: &Snapshot) -> bool {
        self.event_at(&snapshot.stream, snapshot.version) == Some(snapshot.event_id)
    }
}

#[async_trait]
impl SnapshotStore for MemoryStore {
    async fn load_snapshot(
        &self,
        stream: &StreamId,
        key: &str,
        at_or_below: StreamVersion,
    ) -> Result<Option<StoredSnapshot>, DatabaseError> {
        let log = self.log();
        if log.closed {
            return Err(DatabaseError::Closed);
        }
        let mut of_stream = log.saved.streams.get(stream).into_iter().flatten();
        let latest = of_stream.rfind(|((of, version), _)| **of == *key && *version <= at_or_below);
        Ok(latest.map(|(_, (snapshot, _))| StoredSnapshot { snapshot: snapshot.clone(), is_in_log: log.has(snapshot) }))
    }

    async fn load_snapshot_as_of(
        &self,
        stream: &StreamId,
        key: &str,
        position: Position,
    ) -> Result<Option<StoredSnapshot>, DatabaseError> {
        let at_or_below = self.log().version_at(stream, position);
        self.load_snapshot(stream, key, at_or_below).await
    }

    async fn save_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), DatabaseError> {
        let mut guard = self.log();
        let log = &mut *guard;
        log.saved.calls += 1;
        let call = log.saved.calls;
        for snapshot in snapshots.iter().filter(|snapshot| log.has(snapshot)).cloned().collect::<Vec<_>>() {
            let of_stream = log.saved.streams.entry(snapshot.stream.clone()).or_default();
            of_stream.insert((snapshot.key.clone(), snapshot.version), (snapshot, call));
            // A log in memory loses no event, so every snapshot stays one of its history.
            let row = |((key, version), (_, call)): (&(Arc<str>, StreamVersion), &(Snapshot, i64))| Row {
                key: key.to_string(),
                version: version.get(),
                is_in_log: true,
                recorded_at: *call,
            };
            let rows: Vec<Row> = of_stream.iter().map(row).collect();
            for index in surplus(&rows) {
                of_stream.remove(&(rows[index].key.as_str().into(), StreamVersion::stored(rows[index].version)));
            }
        }
        Ok(())
    }

    async fn delete_snapshots(&self, stream: &StreamId) -> Result<(), DatabaseError> {
        self.log().saved.streams.remove(stream);
        Ok(())
    }

    fn queue(&self) -> &SnapshotQueue {
        &self.inner.snapshots
    }
}
