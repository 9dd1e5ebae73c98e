//! Reading pages of events and streams.

use sqlx::{Row, SqliteConnection};

use crate::error::{Invalid, ReadError};
use crate::event::{EventId, RecordedEvent};
use crate::filter::{Filter, StreamFilter};
use crate::payload::Payload;
use crate::position::{After, Checkpoint, Incarnation, Position};
use crate::sqlite::connection::database::SqliteDatabase;
use crate::sqlite::read::rows::{Long, not_given_out, read_metadata, unpack};
use crate::store::{Page, StreamInfo, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

/// The most events of one page, whatever the caller asks for: at 8 KiB each they stay below [`MOST_BYTES`].
pub(crate) const MOST_EVENTS: usize = 2_048;
/// The most bytes of one page, unless its first event alone has more.
const MOST_BYTES: usize = 16 << 20;
/// How many positions one filtered read looks at, so that no statement runs for long when little matches.
const WINDOW: i64 = 50_000;
/// How many events of a correlation.
const WINDOW_OF_CORRELATION: i64 = 10_000;

/// The events that the rest of the statement finds, packed into one row of text, and how many they are. Contents above
/// 8 KiB are left out and fetched on their own, so that a page stays small. More columns may follow.
macro_rules! packed_events {
    (beside $beside:expr; $($found:tt)*) => {
        concat!(
            "
    SELECT count(*), group_concat(event, char(30))",
            $beside,
            "
    FROM (SELECT concat_ws(char(31), position, hex(event_id), tenant, aggregate_type, aggregate_id, version, event_type,
                     schema_version, ifnull(correlation_id, ''), ifnull(causation_id, ''), ifnull(hex(append_id), ''),
                     recorded_at,
                     iif(octet_length(event_data) + octet_length(metadata) > 8192, '', metadata),
                     iif(octet_length(event_data) + octet_length(metadata) > 8192, '', event_data)) AS event
          FROM events
          ",
            $($found)*,
            ")
    ORDER BY 1
"
        )
    };
    ($($found:tt)*) => { packed_events!(beside ""; $($found)*) };
}

/// A page of the log, the id of the event after which it begins, which the reader may have seen, and which incarnation of a
/// store the file holds by now.
macro_rules! packed_log {
    ($($found:tt)*) => {
        packed_events!(
            beside ", (SELECT event_id FROM events WHERE position = ?1), (SELECT incarnation FROM annals_store)";
            $($found)*
        )
    };
}

// `LIMIT ?2 + 0`: SQLite plans a statement whose limit is a parameter alone anew each time that parameters are bound, as the limit could
// change the plan. That is half of the time of a short read.

/// What a filter wants, apart from a correlation; a NULL wants everything.
macro_rules! wanted {
    () => {
        "(?3 IS NULL OR tenant = ?3)
            AND (?4 IS NULL OR aggregate_type IN (SELECT value FROM json_each(?4)))
            AND (?5 IS NULL OR event_type IN (SELECT value FROM json_each(?5)))"
    };
}

const READ_LOG_AFTER: &str = packed_log!(
    "WHERE position > ?1
          ORDER BY position
          LIMIT ?2 + 0"
);

const READ_LOG_WHERE: &str = packed_log!(
    "WHERE position > ?1 AND position <= ?2 AND ",
    wanted!(),
    "
          ORDER BY position
          LIMIT ?6 + 0"
);

const READ_CORRELATION_WHERE: &str = packed_log!(
    "WHERE correlation_id = ?7 AND position > ?1 AND position <= ?2 AND ",
    wanted!(),
    "
          ORDER BY position
          LIMIT ?6 + 0"
);

const LOAD_STREAM_AFTER: &str = packed_events!(
    "WHERE tenant = ?1 AND aggregate_type = ?2 AND aggregate_id = ?3 AND version > ?4
          ORDER BY version
          LIMIT ?5 + 0"
);

const LONG_EVENT_AT: &str = "
    SELECT event_data, metadata
    FROM events
    WHERE position = ?1
    ORDER BY position
";

/// The head, or no event, and which incarnation of a store the file holds by now: a backup may have been restored into it.
const HEAD: &str = "
    SELECT e.position, e.event_id, s.incarnation
    FROM annals_store AS s
    LEFT JOIN events AS e ON e.position = (SELECT max(position) FROM events)
    ORDER BY s.only_row
";

const LAST_AT_OR_BELOW: &str = "
    SELECT position, event_id, (SELECT max(position) FROM events) AS head,
           (SELECT event_id FROM events WHERE position = ?2)
    FROM events
    WHERE position <= ?1
    ORDER BY position DESC
    LIMIT 1
";

/// The event of a correlation that is `?3` events after the first one after `?2`, if there are so many.
const LAST_OF_CORRELATION: &str = "
    SELECT position
    FROM events
    WHERE correlation_id = ?1 AND position > ?2
    ORDER BY position
    LIMIT 1
    OFFSET ?3
";

const EVENT_ID_AT: &str = "
    SELECT ?1, e.event_id, s.incarnation
    FROM annals_store AS s
    LEFT JOIN events AS e ON e.position = ?1
    ORDER BY s.only_row
";

/// The next stream is found by at most three index probes, so that long streams cost no more than short ones. (A
/// comparison of row values would use the first column of the index only.)
const STREAMS_AFTER: &str = "
    WITH RECURSIVE streams (n, tenant, aggregate_type, aggregate_id) AS (
        SELECT 0, ?1, ?2, ?3
        UNION ALL
        SELECT s.n + 1, e.tenant, e.aggregate_type, e.aggregate_id
        FROM streams AS s
        JOIN events AS e ON e.position = coalesce(
            (SELECT position
             FROM events
             WHERE tenant = s.tenant AND aggregate_type = s.aggregate_type AND aggregate_id > s.aggregate_id
             ORDER BY aggregate_id, version
             LIMIT 1),
            (SELECT position
             FROM events
             WHERE tenant = s.tenant AND aggregate_type > s.aggregate_type
             ORDER BY aggregate_type, aggregate_id, version
             LIMIT 1),
            (SELECT position
             FROM events
             WHERE tenant > s.tenant
             ORDER BY tenant, aggregate_type, aggregate_id, version
             LIMIT 1))
        WHERE s.n < ?4
    )
    SELECT tenant, aggregate_type, aggregate_id,
           (SELECT max(version)
            FROM events AS e
            WHERE e.tenant = s.tenant AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id) AS version
    FROM streams AS s
    WHERE s.n > 0
    ORDER BY s.n
";

impl SqliteDatabase {
    async fn fetch<'q>(
        &self,
        connection: &mut SqliteConnection,
        query: sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>, ReadError> {
        query.fetch_all(connection).await.map_err(|e| self.fault(e).into_read())
    }

    async fn reader(&self, tenant: Option<&Tenant>) -> Result<crate::sqlite::SqliteReader, ReadError> {
        self.held_reader(tenant).await.map_err(crate::DatabaseError::into_read)
    }

    pub(crate) async fn read_log(
        &self,
        incarnation: Incarnation,
        after: After,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let limit = checked_limit(limit)?;
        let mut reader = self.reader(filter.tenant.as_ref()).await?;
        let page = if filter.is_all() {
            self.read_unfiltered(&mut reader, incarnation, after, limit).await
        } else {
            self.read_filtered(&mut reader, incarnation, after, filter, limit).await
        };
        reader.release();
        page
    }

    async fn read_unfiltered(
        &self,
        reader: &mut SqliteConnection,
        incarnation: Incarnation,
        after: After,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let query = sqlx::query(READ_LOG_AFTER).bind(after.position.get()).bind(bound(limit));
        let rows = self.fetch(reader, query).await?;
        check_after(incarnation, after, rows.first(), 2)?;
        row_of(incarnation, &rows, 3)?;
        let (events, whole) = self.events_of(reader, &rows).await?;
        let Some(last) = events.last() else {
            // An event that was named was found in the same snapshot. By now the log may be another one.
            if after.event_id.is_none() && after.position > Position::START {
                let head = self.head_of(reader, incarnation).await?;
                if after.position > head.position {
                    return Err(ReadError::AheadOfLog { after: after.position, head: head.position });
                }
            }
            return Ok(Page::new(events, None, true));
        };
        let checkpoint = Checkpoint { incarnation, position: last.position, event_id: Some(last.event_id) };
        let end = whole && events.len() < limit;
        Ok(Page::new(events, Some(checkpoint), end))
    }

    async fn read_filtered(
        &self,
        reader: &mut SqliteConnection,
        incarnation: Incarnation,
        after: After,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        // A filter looks at a window of the log; a correlation, which its index finds, at a window of itself.
        let from = after.position.get();
        let window = match &filter.correlation_id {
            None => from.saturating_add(WINDOW),
            Some(_) if filter.is_correlation_only() => i64::MAX,
            Some(id) => {
                let query = sqlx::query(LAST_OF_CORRELATION).bind(id.as_str().to_owned()).bind(from);
                let rows = self.fetch(reader, query.bind(WINDOW_OF_CORRELATION - 1)).await?;
                rows.first().map_or(i64::MAX, |row| row.get(0))
            }
        };
        let rows = self.fetch(reader, sqlx::query(LAST_AT_OR_BELOW).bind(window).bind(from)).await?;
        check_after(incarnation, after, rows.first(), 3)?;
        let Some(row) = rows.first() else {
            return if after.position > Position::START {
                Err(ReadError::AheadOfLog { after: after.position, head: Position::START })
            } else {
                Ok(Page::new(Vec::new(), None, true))
            };
        };
        let bound_at = checkpoint_of(incarnation, row)?;
        let head = Position::stored(row.get(2));
        if after.position > head {
            return Err(ReadError::AheadOfLog { after: after.position, head });
        }
        if bound_at.position <= after.position {
            // A gap wider than the window, or no new event.
            if head == after.position {
                return Ok(Page::new(Vec::new(), None, true));
            }
            return self.read_everything_until_match(reader, incarnation, after, filter, limit).await;
        }
        let list = |names: &[String]| (!names.is_empty()).then(|| serde_json::Value::from(names.to_vec()).to_string());
        let query = sqlx::query(if filter.correlation_id.is_some() { READ_CORRELATION_WHERE } else { READ_LOG_WHERE })
            .bind(from)
            .bind(bound_at.position.get())
            .bind(filter.tenant.as_ref().map(|t| t.as_str().to_owned()))
            .bind(list(&filter.aggregate_types))
            .bind(list(&filter.names))
            .bind(bound(limit));
        let query = match &filter.correlation_id {
            Some(id) => query.bind(id.as_str().to_owned()),
            None => query,
        };
        let rows = self.fetch(reader, query).await?;
        check_after(incarnation, after, rows.first(), 2)?;
        row_of(incarnation, &rows, 3)?;
        let (events, whole) = self.events_of(reader, &rows).await?;
        let full = !whole || events.len() == limit;
        let checkpoint = match events.last() {
            Some(last) if full => Checkpoint { incarnation, position: last.position, event_id: Some(last.event_id) },
            _ => bound_at,
        };
        let end = !full && bound_at.position == head;
        Ok(Page::new(events, Some(checkpoint), end))
    }

    /// The rare case of a log with a gap wider than a window: looks at the next events one by one.
    async fn read_everything_until_match(
        &self,
        reader: &mut SqliteConnection,
        incarnation: Incarnation,
        after: After,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let mut page = self.read_unfiltered(reader, incarnation, after, limit).await?;
        page.events.retain(|event| filter.matches(event));
        Ok(page)
    }

    pub(crate) async fn load_stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        let mut reader = self.reader(Some(stream.tenant())).await?;
        let page = self.load_stream_on(&mut reader, stream, after, limit).await;
        reader.release();
        page
    }

    /// The same on a connection of the caller's, which may be inside a transaction.
    pub(crate) async fn load_stream_on(
        &self,
        reader: &mut SqliteConnection,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        let limit = checked_limit(limit)?;
        let (tenant, aggregate_type, aggregate_id) = stream.parts();
        let query = sqlx::query(LOAD_STREAM_AFTER)
            .bind(tenant)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(after.get())
            .bind(bound(limit));
        let rows = self.fetch(reader, query).await?;
        let (events, whole) = self.events_of(reader, &rows).await?;
        if let Some(pair) = events.windows(2).find(|pair| pair[0].position >= pair[1].position) {
            return Err(ReadError::Damaged {
                position: pair[1].position,
                what: format!("version {} of `{stream}` lies before the version before it", pair[1].version.get()),
            });
        }
        let end = whole && events.len() < limit;
        Ok(StreamPage::new(events, end))
    }

    pub(crate) async fn streams_after(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        let limit = checked_limit(limit)?;
        let mut reader = self.reader(filter.tenant.as_ref()).await?;
        // Where the streams that are wanted begin, in the order of the index.
        let mut from = match (after, &filter.tenant, &filter.aggregate_type) {
            (Some(after), _, _) => {
                let (tenant, aggregate_type, aggregate_id) = after.parts();
                (tenant, aggregate_type, aggregate_id)
            }
            (None, Some(tenant), aggregate_type) => {
                (tenant.as_str().into(), aggregate_type.as_deref().unwrap_or_default().into(), "".into())
            }
            (None, None, _) => ("".into(), "".into(), "".into()),
        };
        let mut found = Vec::new();
        loop {
            let query = sqlx::query(STREAMS_AFTER).bind(from.0).bind(from.1).bind(from.2).bind(bound(limit));
            let rows = self.fetch(&mut reader, query).await?;
            let seen = rows.len();
            let mut last = None;
            for row in rows {
                let name = |column| text(&row, column, Position::START).map(std::sync::Arc::from);
                let stream = StreamId::stored(Tenant::stored(name(0)?), name(1)?, name(2)?);
                let past_the_tenant = filter.tenant.as_ref().is_some_and(|t| stream.tenant() > t);
                if past_the_tenant {
                    return Ok(found);
                }
                let wanted = filter.tenant.as_ref().is_none_or(|t| t == stream.tenant())
                    && filter.aggregate_type.as_deref().is_none_or(|t| t == stream.aggregate_type());
                if wanted {
                    found.push(StreamInfo { stream: stream.clone(), version: StreamVersion::stored(row.get(3)) });
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
                last = Some(stream);
            }
            match last {
                Some(stream) if seen == limit => from = stream.parts(),
                _ => return Ok(found),
            }
        }
    }

    pub(crate) async fn head(&self, incarnation: Incarnation) -> Result<Checkpoint, ReadError> {
        let mut reader = self.reader(None).await?;
        let head = self.head_of(&mut reader, incarnation).await;
        reader.release();
        head
    }

    pub(crate) async fn head_of(
        &self,
        connection: &mut SqliteConnection,
        incarnation: Incarnation,
    ) -> Result<Checkpoint, ReadError> {
        let rows = self.fetch(connection, sqlx::query(HEAD)).await?;
        let row = row_of(incarnation, &rows, 2)?;
        if row.get::<Option<i64>, _>(0).is_none() {
            return Ok(Checkpoint::start(incarnation));
        }
        checkpoint_of(incarnation, row)
    }

    pub(crate) async fn event_id_at(
        &self,
        incarnation: Incarnation,
        position: Position,
    ) -> Result<Option<EventId>, ReadError> {
        let mut reader = self.reader(None).await?;
        let rows = self.fetch(&mut reader, sqlx::query(EVENT_ID_AT).bind(position.get())).await?;
        reader.release();
        let row = row_of(incarnation, &rows, 2)?;
        let there = row.get::<Option<&[u8]>, _>(1).is_some();
        there.then(|| event_id(position, row, 1)).transpose()
    }

    /// Takes a packed page apart and fetches what was too long to be packed. Says whether the page is whole, or was
    /// cut because it would have become too large, or before a row that cannot be read, which the next page then reports.
    async fn events_of(
        &self,
        reader: &mut SqliteConnection,
        rows: &[sqlx::sqlite::SqliteRow],
    ) -> Result<(Vec<RecordedEvent>, bool), ReadError> {
        let Some(row) = rows.first() else { return Ok((Vec::new(), true)) };
        let count = usize::try_from(row.get::<i64, _>(0)).unwrap_or_default();
        let Some(packed) = row.get::<Option<&[u8]>, _>(1) else { return Ok((Vec::new(), true)) };
        let mut unpacked = unpack(packed, count)?;
        let mut bytes = packed.len();
        for long in unpacked.long {
            if bytes > MOST_BYTES && long.index > 0 {
                unpacked.events.truncate(long.index);
                return Ok((unpacked.events, false));
            }
            match self.complete(reader, &long, &mut unpacked.events[long.index]).await {
                Ok(more) => bytes += more,
                Err(ReadError::Damaged { .. }) if long.index > 0 => {
                    unpacked.events.truncate(long.index);
                    return Ok((unpacked.events, false));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((unpacked.events, !unpacked.is_cut))
    }

    /// Fetches the contents of an event, and gives their bytes.
    async fn complete(
        &self,
        reader: &mut SqliteConnection,
        long: &Long,
        event: &mut RecordedEvent,
    ) -> Result<usize, ReadError> {
        let rows = self.fetch(reader, sqlx::query(LONG_EVENT_AT).bind(long.position.get())).await?;
        let row = rows
            .first()
            .ok_or_else(|| ReadError::Damaged { position: long.position, what: "the row is gone".to_owned() })?;
        let payload: String = text(row, 0, long.position)?;
        let metadata: String = text(row, 1, long.position)?;
        let bytes = payload.len() + metadata.len();
        let ids = std::mem::take(&mut event.metadata);
        event.payload = Payload::trusted(payload);
        event.metadata = read_metadata(long.position, &metadata, None, None)?;
        event.metadata.correlation_id = ids.correlation_id;
        event.metadata.causation_id = ids.causation_id;
        Ok(bytes)
    }
}

/// Text that annals wrote is UTF-8.
fn text(row: &sqlx::sqlite::SqliteRow, column: usize, position: Position) -> Result<String, ReadError> {
    row.try_get(column).map_err(|e| ReadError::Damaged { position, what: e.to_string() })
}

/// Checks that the event after which a read begins is the one that the reader has seen; its id is the given column.
fn check_after(
    incarnation: Incarnation,
    after: After,
    row: Option<&sqlx::sqlite::SqliteRow>,
    column: usize,
) -> Result<(), ReadError> {
    let found = row.and_then(|row| row.try_get::<Option<&[u8]>, _>(column).ok().flatten());
    after.check(incarnation, found.and_then(|id| uuid::Uuid::from_slice(id).ok()).map(EventId::stored))
}

/// The one row of a read that also asks for the incarnation, if that is still the one that was opened.
fn row_of(
    incarnation: Incarnation,
    rows: &[sqlx::sqlite::SqliteRow],
    column: usize,
) -> Result<&sqlx::sqlite::SqliteRow, ReadError> {
    let expected = incarnation.0.as_bytes().as_slice();
    let same = rows.first().filter(|row| row.get::<Option<&[u8]>, _>(column) == Some(expected));
    same.ok_or(ReadError::StoreRewound { position: Position::START, incarnation })
}

fn checkpoint_of(incarnation: Incarnation, row: &sqlx::sqlite::SqliteRow) -> Result<Checkpoint, ReadError> {
    let position = Position::stored(row.get(0));
    if position <= Position::START {
        return Err(not_given_out(position));
    }
    Ok(Checkpoint { incarnation, position, event_id: Some(event_id(position, row, 1)?) })
}

fn event_id(position: Position, row: &sqlx::sqlite::SqliteRow, column: usize) -> Result<EventId, ReadError> {
    uuid::Uuid::from_slice(row.get::<&[u8], _>(column))
        .map(EventId::stored)
        .map_err(|e| ReadError::Damaged { position, what: format!("`event_id` is no UUID: {e}") })
}

fn checked_limit(limit: usize) -> Result<usize, ReadError> {
    if limit == 0 {
        return Err(Invalid::new("limit", "is 0", "ask for at least one").into());
    }
    Ok(limit.min(MOST_EVENTS))
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The reads that must never scan, for the golden file of their plans.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str)> {
    vec![
        ("READ_LOG_AFTER", READ_LOG_AFTER),
        ("READ_LOG_WHERE", READ_LOG_WHERE),
        ("READ_CORRELATION_WHERE", READ_CORRELATION_WHERE),
        ("LOAD_STREAM_AFTER", LOAD_STREAM_AFTER),
        ("LONG_EVENT_AT", LONG_EVENT_AT),
        ("HEAD", HEAD),
        ("LAST_AT_OR_BELOW", LAST_AT_OR_BELOW),
        ("LAST_OF_CORRELATION", LAST_OF_CORRELATION),
        ("EVENT_ID_AT", EVENT_ID_AT),
        ("STREAMS_AFTER", STREAMS_AFTER),
    ]
}
