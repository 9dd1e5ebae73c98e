//! Listing streams.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::{BackendError, ReadError};
use crate::filter::StreamFilter;
use crate::limits::page_limit;
use crate::postgres::connection::pool::Pool;
use crate::postgres::fault::{NoConnection, read_error};
use crate::store::StreamInfo;
use crate::stream::{StreamId, StreamVersion, Tenant};

/// The next stream is found by one probe of the index, so that long streams cost no more than short ones.
const STREAMS_AFTER: &str = r#"
    WITH RECURSIVE streams (n, tenant, aggregate_type, aggregate_id) AS (
        SELECT 0, $1::text COLLATE "C", $2::text COLLATE "C", $3::text COLLATE "C"
        UNION ALL
        SELECT s.n + 1, e.tenant, e.aggregate_type, e.aggregate_id
        FROM streams AS s
        CROSS JOIN LATERAL (
            SELECT tenant, aggregate_type, aggregate_id
            FROM annals.events
            WHERE (tenant, aggregate_type, aggregate_id) > (s.tenant, s.aggregate_type, s.aggregate_id)
            ORDER BY tenant, aggregate_type, aggregate_id, version
            LIMIT 1) AS e
        WHERE s.n < $4
    )
    SELECT s.tenant, s.aggregate_type, s.aggregate_id, h.version
    FROM streams AS s
    CROSS JOIN LATERAL (
        SELECT version
        FROM annals.events AS e
        WHERE e.tenant = s.tenant AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
        ORDER BY version DESC
        LIMIT 1) AS h
    WHERE s.n > 0
    ORDER BY s.n
"#;

pub(crate) async fn streams_after(
    pool: &Pool,
    filter: &StreamFilter,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<StreamInfo>, ReadError> {
    let limit = page_limit(limit)?;
    let mut connection = pool.take_for(filter.tenant.as_ref()).await.map_err(NoConnection::into_read)?;
    // The start of the requested streams, in the order of the index.
    let mut from: (String, String, String) = match (after, &filter.tenant, &filter.aggregate_type) {
        (Some(after), _, _) => names(after),
        (None, Some(tenant), aggregate_type) => {
            (tenant.as_str().to_owned(), aggregate_type.clone().unwrap_or_default(), String::new())
        }
        (None, None, _) => <_>::default(),
    };
    let mut found = Vec::new();
    loop {
        let query = sqlx::query(STREAMS_AFTER)
            .bind(from.0)
            .bind(from.1)
            .bind(from.2)
            .bind(i32::try_from(limit).unwrap_or(i32::MAX));
        let rows = connection.fetch_all(query).await.map_err(read_error)?;
        let mut last = None;
        for row in &rows {
            let info = info(row).map_err(|e| ReadError::Unavailable { source: BackendError::new(e) })?;
            if filter.tenant.as_ref().is_some_and(|tenant| info.stream.tenant() > tenant) {
                return Ok(found);
            }
            last = Some(info.stream.clone());
            if filter.matches(&info.stream) {
                found.push(info);
                if found.len() == limit {
                    return Ok(found);
                }
            }
        }
        match last {
            Some(stream) if rows.len() == limit => from = names(&stream),
            _ => return Ok(found),
        }
    }
}

fn names(stream: &StreamId) -> (String, String, String) {
    (stream.tenant().as_str().to_owned(), stream.aggregate_type().to_owned(), stream.aggregate_id().to_owned())
}

fn info(row: &PgRow) -> Result<StreamInfo, sqlx::Error> {
    let tenant = Tenant::stored(row.try_get::<&str, _>(0)?.into());
    let stream = StreamId::stored(tenant, row.try_get::<&str, _>(1)?.into(), row.try_get::<&str, _>(2)?.into());
    Ok(StreamInfo { stream, version: StreamVersion::stored(row.try_get(3)?) })
}

/// The statements that read events, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![("STREAMS_AFTER", STREAMS_AFTER, "('default', 'type-1', '', 100)")]
}
