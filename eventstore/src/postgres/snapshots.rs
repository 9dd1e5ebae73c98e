//! The snapshots in a PostgreSQL database.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::database_error::DatabaseError;
use crate::event::EventId;
use crate::payload::Payload;
use crate::position::Position;
use crate::postgres::connection::pool::Query;
use crate::postgres::fault::{NoConnection, database_error};
use crate::postgres::store::PostgresStore;
use crate::request::Fingerprint;
use crate::snapshot::{Row, Snapshot, SnapshotQueue, SnapshotStore, StoredSnapshot, surplus};
use crate::stream::{StreamId, StreamVersion, Tenant};

/// How long a load waits for a snapshot. It can do without: if the table is locked, or the server is slow, it reads the events.
const MAX_WAIT_TO_LOAD: Duration = Duration::from_secs(1);

/// How long snapshots may take to be saved, and so how long `close` waits for them.
const MAX_WAIT_TO_SAVE: Duration = Duration::from_secs(3);

/// Whether the log has the event of the snapshot `s`. A scalar subquery is run for the rows of the result alone, by the whole
/// index; as a join, and without statistics, it would read all events of the stream.
macro_rules! is_in_log {
    () => {
        "coalesce(s.event_id = (
               SELECT e.event_id
               FROM annals.events AS e
               WHERE e.tenant = s.tenant AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
                 AND e.version = s.version
               LIMIT 1), false) AS is_in_log"
    };
}

const LATEST_SNAPSHOT: &str = concat!(
    "
    SELECT s.version, s.event_id, s.body, s.digest,
           ",
    is_in_log!(),
    "
    FROM annals.snapshots AS s
    WHERE s.tenant = $1 AND s.aggregate_type = $2 AND s.aggregate_id = $3 AND s.snapshot_key = $4 AND s.version <= $5
    ORDER BY s.version DESC
    LIMIT 1
"
);

/// The latest snapshot whose event the log has at or before a position.
const SNAPSHOT_AS_OF: &str = "
    SELECT s.version, s.event_id, s.body, s.digest, true AS is_in_log
    FROM annals.snapshots AS s
    WHERE s.tenant = $1 AND s.aggregate_type = $2 AND s.aggregate_id = $3 AND s.snapshot_key = $4
      AND (
        SELECT e.position
        FROM annals.events AS e
        WHERE e.tenant = s.tenant AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
          AND e.version = s.version AND e.event_id = s.event_id
        LIMIT 1) <= $5
    ORDER BY s.version DESC
    LIMIT 1
";

/// Leaves out those whose event the log does not have. Rows are inserted in the order of their key, so that two writers wait
/// for each other in one order. The commit does not wait for the disk: losing a snapshot loses nothing.
const SAVE_SNAPSHOTS: &str = "
    WITH setting AS MATERIALIZED (
        SELECT set_config('synchronous_commit', 'off', true)
    )
    INSERT INTO annals.snapshots (tenant, aggregate_type, aggregate_id, snapshot_key, version, event_id, body, digest,
                                  recorded_at)
    SELECT DISTINCT ON (e.tenant, e.aggregate_type, e.aggregate_id, given.snapshot_key, e.version)
           e.tenant, e.aggregate_type, e.aggregate_id, given.snapshot_key, e.version, e.event_id, given.body, given.digest,
           clock_timestamp()
    FROM setting
    CROSS JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::uuid[], $7::text[], $8::uuid[])
        AS given (tenant, aggregate_type, aggregate_id, snapshot_key, version, event_id, body, digest)
    JOIN annals.events AS e
        ON e.tenant = given.tenant AND e.aggregate_type = given.aggregate_type AND e.aggregate_id = given.aggregate_id
        AND e.version = given.version AND e.event_id = given.event_id
    ORDER BY e.tenant, e.aggregate_type, e.aggregate_id, given.snapshot_key, e.version
    ON CONFLICT (tenant, aggregate_type, aggregate_id, snapshot_key, version) DO UPDATE
    SET event_id = excluded.event_id, body = excluded.body, digest = excluded.digest, recorded_at = excluded.recorded_at
";

/// Those of the streams that are asked for, each with the number of its stream.
const SNAPSHOTS_OF_STREAMS: &str = concat!(
    "
    SELECT asked.number, s.snapshot_key, s.version, (extract(epoch FROM s.recorded_at) * 1000000)::bigint AS recorded_at,
           ",
    is_in_log!(),
    "
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY
        AS asked (tenant, aggregate_type, aggregate_id, number)
    JOIN annals.snapshots AS s
        ON s.tenant = asked.tenant AND s.aggregate_type = asked.aggregate_type AND s.aggregate_id = asked.aggregate_id
    ORDER BY asked.number, s.snapshot_key, s.version
"
);

const DELETE_SNAPSHOTS: &str = "
    DELETE FROM annals.snapshots AS s
    USING unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
        AS given (tenant, aggregate_type, aggregate_id, snapshot_key, version)
    WHERE s.tenant = given.tenant AND s.aggregate_type = given.aggregate_type AND s.aggregate_id = given.aggregate_id
      AND s.snapshot_key = given.snapshot_key AND s.version = given.version
";

const DELETE_SNAPSHOTS_OF_STREAM: &str = "
    DELETE FROM annals.snapshots
    WHERE tenant = $1 AND aggregate_type = $2 AND aggregate_id = $3
";

#[async_trait]
impl SnapshotStore for PostgresStore {
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
        let texts = |text: fn(&Snapshot) -> &str| snapshots.iter().map(text).collect::<Vec<_>>();
        let query = sqlx::query(SAVE_SNAPSHOTS)
            .bind(texts(|s| s.stream.tenant().as_str()))
            .bind(texts(|s| s.stream.aggregate_type()))
            .bind(texts(|s| s.stream.aggregate_id()))
            .bind(texts(|s| &s.key))
            .bind(snapshots.iter().map(|s| s.version.get()).collect::<Vec<_>>())
            .bind(snapshots.iter().map(|s| s.event_id.get()).collect::<Vec<_>>())
            .bind(texts(|s| s.body.as_str()))
            .bind(snapshots.iter().map(|s| s.digest.get()).collect::<Vec<_>>());
        self.fetch(query).await?;
        let mut streams: Vec<&StreamId> = snapshots.iter().map(|snapshot| &snapshot.stream).collect();
        streams.sort();
        streams.dedup();
        self.thin(&streams).await
    }

    async fn delete_snapshots(&self, stream: &StreamId) -> Result<(), DatabaseError> {
        self.fetch(of_stream(DELETE_SNAPSHOTS_OF_STREAM, stream)).await.map(drop)
    }

    fn queue(&self) -> &SnapshotQueue {
        self.snapshot_queue()
    }
}

impl PostgresStore {
    async fn find_snapshot(
        &self,
        query: &'static str,
        stream: &StreamId,
        key: &str,
        up_to: i64,
    ) -> Result<Option<StoredSnapshot>, DatabaseError> {
        let rows = self
            .fetch_within(MAX_WAIT_TO_LOAD, Some(stream.tenant()), of_stream(query, stream).bind(key).bind(up_to))
            .await?;
        rows.first().map(|row| stored(stream, key, row)).transpose().map_err(database_error)
    }

    async fn fetch(&self, query: Query<'_>) -> Result<Vec<PgRow>, DatabaseError> {
        self.fetch_within(MAX_WAIT_TO_SAVE, None, query).await
    }

    async fn fetch_within(
        &self,
        max_wait: Duration,
        tenant: Option<&Tenant>,
        query: Query<'_>,
    ) -> Result<Vec<PgRow>, DatabaseError> {
        let mut connection = self.pool().take_for(tenant).await.map_err(NoConnection::into_database)?;
        let max_wait = max_wait.min(self.pool().answer_timeout());
        connection.fetch_all_within(max_wait, query).await.map_err(database_error)
    }

    /// Deletes the snapshots of each stream that are too many.
    async fn thin(&self, streams: &[&StreamId]) -> Result<(), DatabaseError> {
        let [tenants, types, ids] = names(streams);
        let query = sqlx::query(SNAPSHOTS_OF_STREAMS).bind(tenants).bind(types).bind(ids);
        let mut of_stream: Vec<Vec<Row>> = streams.iter().map(|_| Vec::new()).collect();
        for row in self.fetch(query).await? {
            // They are numbered from 1.
            let number = usize::try_from(row.get::<i64, _>(0) - 1).ok();
            if let Some(rows) = number.and_then(|number| of_stream.get_mut(number)) {
                let (key, version) = (row.get(1), row.get(2));
                rows.push(Row { key, version, recorded_at: row.get(3), is_in_log: row.get(4) });
            }
        }
        let (mut of, mut keys, mut versions) = (Vec::new(), Vec::new(), Vec::new());
        for (stream, rows) in streams.iter().zip(&of_stream) {
            for index in surplus(rows) {
                of.push(*stream);
                keys.push(rows[index].key.as_str());
                versions.push(rows[index].version);
            }
        }
        if of.is_empty() {
            return Ok(());
        }
        let [tenants, types, ids] = names(&of);
        let delete = sqlx::query(DELETE_SNAPSHOTS).bind(tenants).bind(types).bind(ids).bind(keys).bind(versions);
        self.fetch(delete).await.map(drop)
    }
}

fn of_stream<'q>(text: &'static str, stream: &'q StreamId) -> Query<'q> {
    sqlx::query(text).bind(stream.tenant().as_str()).bind(stream.aggregate_type()).bind(stream.aggregate_id())
}

/// Tenants, types and ids, for `unnest`.
fn names<'s>(streams: &[&'s StreamId]) -> [Vec<&'s str>; 3] {
    let all = |name: fn(&'s StreamId) -> &'s str| streams.iter().map(|stream| name(stream)).collect();
    [all(|s| s.tenant().as_str()), all(StreamId::aggregate_type), all(StreamId::aggregate_id)]
}

fn stored(stream: &StreamId, key: &str, row: &PgRow) -> Result<StoredSnapshot, sqlx::Error> {
    let snapshot = Snapshot {
        stream: stream.clone(),
        key: key.into(),
        version: StreamVersion::stored(row.try_get(0)?),
        event_id: EventId::stored(row.try_get(1)?),
        body: Payload::trusted(row.try_get::<String, _>(2)?),
        digest: Fingerprint::stored(row.try_get(3)?),
    };
    Ok(StoredSnapshot { snapshot, is_in_log: row.try_get(4)? })
}

/// The statements that read or change snapshots, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("LATEST_SNAPSHOT", LATEST_SNAPSHOT, "('default', 'type-1', 'id-1', 'key', 100)"),
        ("SNAPSHOT_AS_OF", SNAPSHOT_AS_OF, "('default', 'type-1', 'id-1', 'key', 100)"),
        (
            "SAVE_SNAPSHOTS",
            SAVE_SNAPSHOTS,
            "('{default}', '{type-1}', '{id-1}', '{key}', '{1}', '{00000000-0000-0000-0000-000000000001}', '{1}',
              '{00000000-0000-0000-0000-000000000001}')",
        ),
        ("SNAPSHOTS_OF_STREAMS", SNAPSHOTS_OF_STREAMS, "('{default}', '{type-1}', '{id-1}')"),
        ("DELETE_SNAPSHOTS", DELETE_SNAPSHOTS, "('{default}', '{type-1}', '{id-1}', '{key}', '{1}')"),
    ]
}
