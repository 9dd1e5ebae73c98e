//! The snapshots in a SQLite file.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use crate::database_error::DatabaseError;
use crate::event::EventId;
use crate::payload::Payload;
use crate::position::Position;
use crate::request::Fingerprint;
use crate::snapshot::{Row, Snapshot, SnapshotQueue, SnapshotStore, StoredSnapshot, surplus};
use crate::sqlite::store::SqliteStore;
use crate::stream::{StreamId, StreamVersion};

/// The latest snapshot, and whether the log has its event.
const LATEST_SNAPSHOT: &str = "
    SELECT s.version, s.event_id, s.body, s.digest, e.event_id IS NOT NULL AS is_in_log
    FROM annals_snapshots AS s
    LEFT JOIN events AS e
        ON e.tenant = s.tenant AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
        AND e.version = s.version AND e.event_id = s.event_id
    WHERE s.tenant = ?1 AND s.aggregate_type = ?2 AND s.aggregate_id = ?3 AND s.snapshot_key = ?4 AND s.version <= ?5
    ORDER BY s.version DESC
    LIMIT 1
";

/// The latest snapshot whose event the log has at or before a position. The join is in this order, as a stream has few snapshots.
const SNAPSHOT_AS_OF: &str = "
    SELECT s.version, s.event_id, s.body, s.digest, TRUE AS is_in_log
    FROM annals_snapshots AS s
    CROSS JOIN events AS e
        ON e.tenant = s.tenant AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
        AND e.version = s.version AND e.event_id = s.event_id
    WHERE s.tenant = ?1 AND s.aggregate_type = ?2 AND s.aggregate_id = ?3 AND s.snapshot_key = ?4 AND e.position <= ?5
    ORDER BY s.version DESC
    LIMIT 1
";

/// Stores nothing if the log does not have the event.
const SAVE_SNAPSHOT: &str = "
    INSERT INTO annals_snapshots (tenant, aggregate_type, aggregate_id, snapshot_key, version, event_id, body, digest,
                                  recorded_at)
    SELECT tenant, aggregate_type, aggregate_id, ?4, version, event_id, ?7, ?8, ?9
    FROM events
    WHERE tenant = ?1 AND aggregate_type = ?2 AND aggregate_id = ?3 AND version = ?5 AND event_id = ?6
    ON CONFLICT (tenant, aggregate_type, aggregate_id, snapshot_key, version) DO UPDATE
    SET event_id = excluded.event_id, body = excluded.body, digest = excluded.digest, recorded_at = excluded.recorded_at
";

const SNAPSHOTS_OF_STREAM: &str = "
    SELECT s.rowid, s.snapshot_key, s.version, s.recorded_at, e.event_id IS NOT NULL AS is_in_log
    FROM annals_snapshots AS s
    LEFT JOIN events AS e
        ON e.tenant = s.tenant AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
        AND e.version = s.version AND e.event_id = s.event_id
    WHERE s.tenant = ?1 AND s.aggregate_type = ?2 AND s.aggregate_id = ?3
    ORDER BY s.snapshot_key, s.version
";

const DELETE_SNAPSHOTS: &str = "
    DELETE FROM annals_snapshots
    WHERE rowid IN (SELECT value FROM json_each(?1))
";

const DELETE_SNAPSHOTS_OF_STREAM: &str = "
    DELETE FROM annals_snapshots
    WHERE tenant = ?1 AND aggregate_type = ?2 AND aggregate_id = ?3
";

#[async_trait]
impl SnapshotStore for SqliteStore {
    async fn load_snapshot(
        &self,
        stream: &StreamId,
        key: &str,
        at_or_below: StreamVersion,
    ) -> Result<Option<StoredSnapshot>, DatabaseError> {
        self.find_snapshot(LATEST_SNAPSHOT, stream, key, at_or_below.get()).await
    }

    async fn load_snapshot_as_of(
        &self,
        stream: &StreamId,
        key: &str,
        position: Position,
    ) -> Result<Option<StoredSnapshot>, DatabaseError> {
        self.find_snapshot(SNAPSHOT_AS_OF, stream, key, position.get()).await
    }

    async fn save_snapshots(&self, snapshots: &[Snapshot]) -> Result<(), DatabaseError> {
        let mut writer = self.database().writer().await?;
        writer.set_unclean(true);
        let saved = save(writer.connection()?, snapshots, self.group().now().as_microsecond()).await;
        if saved.is_ok() {
            writer.set_unclean(false);
        } else if let Err(later) = self.database().clean(&mut writer).await {
            tracing::debug!(error = %later, "snapshots that could not be saved are rolled back by the next writer");
        }
        saved.map_err(|e| self.database().fault(e))
    }

    async fn delete_snapshots(&self, stream: &StreamId) -> Result<(), DatabaseError> {
        let (tenant, aggregate_type, aggregate_id) = stream.parts();
        let mut writer = self.database().writer().await?;
        let delete = sqlx::query(DELETE_SNAPSHOTS_OF_STREAM).bind(tenant).bind(aggregate_type).bind(aggregate_id);
        delete.execute(writer.connection()?).await.map(drop).map_err(|e| self.database().fault(e))
    }

    fn queue(&self) -> &SnapshotQueue {
        self.snapshot_queue()
    }
}

impl SqliteStore {
    async fn find_snapshot(
        &self,
        query: &'static str,
        stream: &StreamId,
        key: &str,
        up_to: i64,
    ) -> Result<Option<StoredSnapshot>, DatabaseError> {
        if self.is_closed() {
            return Err(DatabaseError::Closed);
        }
        let mut reader = self.database().held_reader(Some(stream.tenant())).await?;
        let (tenant, aggregate_type, aggregate_id) = stream.parts();
        let rows = sqlx::query(query)
            .bind(tenant)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(key.to_owned())
            .bind(up_to)
            .fetch_all(&mut *reader)
            .await
            .map_err(|e| self.database().fault(e))?;
        reader.release();
        Ok(rows.first().map(|row| stored(stream, key, row)))
    }
}

/// What is in a row, whatever it is: the digest tells whether it was changed.
fn stored(stream: &StreamId, key: &str, row: &SqliteRow) -> StoredSnapshot {
    let bytes = |column| row.try_get_unchecked::<&[u8], _>(column).unwrap_or_default();
    let uuid = |column| Uuid::from_slice(bytes(column)).unwrap_or_default();
    let snapshot = Snapshot {
        stream: stream.clone(),
        key: key.into(),
        version: StreamVersion::stored(row.get(0)),
        event_id: EventId::stored(uuid(1)),
        body: Payload::trusted(String::from_utf8_lossy(bytes(2))),
        digest: Fingerprint::stored(uuid(3)),
    };
    StoredSnapshot { snapshot, is_in_log: row.get(4) }
}

async fn save(connection: &mut SqliteConnection, snapshots: &[Snapshot], now: i64) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let mut streams: Vec<&StreamId> = Vec::new();
    for Snapshot { stream, key, version, event_id, body, digest } in snapshots {
        let (tenant, aggregate_type, aggregate_id) = stream.parts();
        sqlx::query(SAVE_SNAPSHOT)
            .bind(tenant)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(key.clone())
            .bind(version.get())
            .bind(event_id.get().as_bytes().to_vec())
            .bind(body.shared())
            .bind(digest.get().as_bytes().to_vec())
            .bind(now)
            .execute(&mut *connection)
            .await?;
        if !streams.contains(&stream) {
            streams.push(stream);
        }
    }
    for stream in streams {
        thin(connection, stream).await?;
    }
    sqlx::query("COMMIT").execute(connection).await.map(drop)
}

/// Deletes the snapshots of a stream that are too many.
async fn thin(connection: &mut SqliteConnection, stream: &StreamId) -> Result<(), sqlx::Error> {
    let (tenant, aggregate_type, aggregate_id) = stream.parts();
    let query = sqlx::query(SNAPSHOTS_OF_STREAM).bind(tenant).bind(aggregate_type).bind(aggregate_id);
    let found = query.fetch_all(&mut *connection).await?;
    let row =
        |row: &SqliteRow| Row { key: row.get(1), version: row.get(2), recorded_at: row.get(3), is_in_log: row.get(4) };
    let surplus = surplus(&found.iter().map(row).collect::<Vec<_>>());
    if surplus.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = surplus.iter().map(|&index| found[index].get(0)).collect();
    let ids = serde_json::Value::from(ids).to_string();
    sqlx::query(DELETE_SNAPSHOTS).bind(ids).execute(connection).await.map(drop)
}

/// The reads that must never scan, for the golden file of their plans.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str)> {
    vec![
        ("LATEST_SNAPSHOT", LATEST_SNAPSHOT),
        ("SNAPSHOT_AS_OF", SNAPSHOT_AS_OF),
        ("SNAPSHOTS_OF_STREAM", SNAPSHOTS_OF_STREAM),
    ]
}
