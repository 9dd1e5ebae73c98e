//! Appending: one call of a stored function, and what to do when another append was committed first.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::Instant;
use uuid::Uuid;

use crate::answer;
use crate::append::{Appended, AppendedStream, CheckedAppend};
use crate::duplicate::{StoredEvent, find_duplicate};
use crate::error::{AppendError, Holder};
use crate::event::EventId;
use crate::payload::Payload;
use crate::position::Position;
use crate::postgres::append::replication::confirm;
use crate::postgres::connection::pool::{PooledConnection, Query};
use crate::postgres::fault::{append_error, has_lost_a_race, was_blocked};
use crate::postgres::micros::Micros;
use crate::request::RequestKey;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};
use crate::unit_of_work::no_stream;

const APPEND_ONE: &str = "
    SELECT kind, stream_number, actual, base_versions, positions, recorded_at, fingerprint, result, standbys
    FROM annals.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ORDER BY 1
";

const APPEND_NEXT: &str = "
    VALUES (annals.append_next($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12))
";

const APPEND: &str = "
    SELECT kind, stream_number, actual, base_versions, positions, recorded_at, fingerprint, result, standbys
    FROM annals.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
    ORDER BY 1
";

/// Of a request about streams that got no events: its answer, which gets the time, is stored under its key.
const KEEP_ANSWER: &str = "
    SELECT k.kind, k.stream_number, k.actual, k.base_versions, k.positions, k.recorded_at, k.fingerprint,
           coalesce(k.result, answer.result) AS result, k.standbys
    FROM (SELECT jsonb_set($5::jsonb, '{recorded_at}',
                           to_jsonb((extract(epoch FROM clock_timestamp()) * 1000000)::bigint))::text AS result
          OFFSET 0) AS answer
    CROSS JOIN LATERAL annals.append_keep($1, $2, $3, $4, answer.result) AS k
    ORDER BY 1
";

pub(crate) const EVENTS_BY_IDS: &str = "
    SELECT event_id, tenant, aggregate_type, aggregate_id, version, position, event_type, schema_version,
           event_data::text, append_id, recorded_at
    FROM annals.events
    WHERE event_id = ANY ($1)
    ORDER BY position
";

const REQUEST_BY_KEY: &str = "
    SELECT fingerprint, result::text, current_setting('synchronous_standby_names') <> ''
    FROM annals.request_keys
    WHERE tenant = $1 AND request_key = $2 AND expires_at > clock_timestamp()
    ORDER BY tenant, request_key
";

/// How often an append is tried again because another one was committed first. A retry takes the turn locks of its
/// streams, so it can lose only to first attempts.
const MOST_ATTEMPTS: usize = 32;

/// Lifetimes above this many microseconds (about 280 years) are unlimited.
const LONGEST_LIFETIME: u128 = 1 << 53;

/// Stores one append, with one transaction per attempt. Waits for other transactions that write the same streams.
pub(crate) async fn append(connection: &mut PooledConnection, append: &CheckedAppend) -> Result<Appended, AppendError> {
    let mut standbys = false;
    let appended = try_to_append(connection, append, &mut standbys).await?;
    if standbys {
        // Also for a duplicate: the first append may still not be replicated.
        let unknown = |source| AppendError::OutcomeUnknown { stream: append.first_stream(), source };
        confirm(connection).await.map_err(unknown)?;
    }
    Ok(appended)
}

async fn try_to_append(
    connection: &mut PooledConnection,
    append: &CheckedAppend,
    standbys: &mut bool,
) -> Result<Appended, AppendError> {
    let begun = Instant::now();
    let mut checked = false;
    for _ in 0..MOST_ATTEMPTS {
        let rows = match connection.fetch_all(call(append, checked)).await {
            Ok(rows) => rows,
            Err(error) if has_lost_a_race(&error) => {
                checked = true;
                continue;
            }
            Err(error) if was_blocked(&error) => break,
            Err(error) => return Err(append_error(&Arc::new(error), || append.first_stream())),
        };
        let row = rows.first().ok_or_else(|| broken("the function `annals.append` gave no row".to_owned()))?;
        *standbys = has_standbys(row);
        if let Some(answer) = answer_without_look(append, row)? {
            return Ok(answer);
        }
        let rows = connection.fetch_all(stored_events(append)).await;
        // This is a read: if it fails, the append before it was answered and stored nothing.
        let rows = rows.map_err(|e| AppendError::Unavailable { source: crate::BackendError::new(e) })?;
        if let Some(answer) = find_stored_duplicate(append, &rows)? {
            return Ok(answer);
        }
        checked = true;
    }
    Err(AppendError::Busy { waited: begun.elapsed(), holder: Holder::Transaction })
}

/// The stored answer to a request.
pub(crate) async fn find_request(
    connection: &mut PooledConnection,
    tenant: &Tenant,
    request: &RequestKey,
) -> Result<Option<Appended>, AppendError> {
    let rows = connection
        .fetch_all(request_by_key(tenant, request))
        .await
        .map_err(|e| AppendError::Unavailable { source: crate::BackendError::new(e) })?;
    let answer = first_answer(tenant, request, &rows)?;
    if rows.first().is_some_and(|row| get(row, 2).unwrap_or(true)) {
        let stream = || answer.iter().flat_map(|answer| &answer.streams).next().map(|part| part.stream.clone());
        let unknown = |source| AppendError::OutcomeUnknown { stream: stream().unwrap_or_else(no_stream), source };
        confirm(connection).await.map_err(unknown)?;
    }
    Ok(answer)
}

pub(crate) fn request_by_key<'q>(tenant: &'q Tenant, request: &'q RequestKey) -> Query<'q> {
    sqlx::query(REQUEST_BY_KEY).bind(tenant.as_str()).bind(request.key())
}

pub(crate) fn first_answer(
    tenant: &Tenant,
    request: &RequestKey,
    rows: &[PgRow],
) -> Result<Option<Appended>, AppendError> {
    let Some(row) = rows.first() else { return Ok(None) };
    remembered(tenant, request, get(row, 0)?, get(row, 1)?).map(Some)
}

/// Whether the server waits for standbys at each commit; an outcome without that value counts as true.
pub(crate) fn has_standbys(row: &PgRow) -> bool {
    get(row, 8).unwrap_or(true)
}

/// What the outcome means; `None` if the ids of the events must be looked up.
pub(crate) fn answer_without_look(append: &CheckedAppend, row: &PgRow) -> Result<Option<Appended>, AppendError> {
    match get::<&str>(row, 0)? {
        "appended" => appended(append, row).map(Some),
        "new" => match &append.request {
            Some(request) => {
                let answer = remembered(&append.tenant, request, request.fingerprint().get(), get(row, 7)?)?;
                Ok(Some(Appended { repeated: false, ..answer }))
            }
            None => Err(broken("the answer to a request was stored, and the append has none".to_owned())),
        },
        "remembered" => match &append.request {
            Some(request) => remembered(&append.tenant, request, get(row, 6)?, get(row, 7)?).map(Some),
            None => Err(broken("the answer to another request was returned".to_owned())),
        },
        "ids" => Ok(None),
        kind @ ("conflict" | "full") => {
            let place: i32 = get(row, 1)?;
            let actual = StreamVersion::stored(get(row, 2)?);
            let part = usize::try_from(place - 1).ok().and_then(|place| append.parts.get(place));
            let part = part.ok_or_else(|| broken(format!("a conflict about stream {place} of the append")))?;
            let stream = part.stream.clone();
            Err(match kind {
                "full" => AppendError::StreamFull { stream, actual },
                _ => AppendError::WrongExpectedVersion { stream, expected: part.expected, actual },
            })
        }
        other => Err(broken(format!("the function `annals.append` gave `{other}`"))),
    }
}

pub(crate) fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    column: usize,
) -> Result<T, AppendError> {
    row.try_get(column).map_err(|e| broken(format!("an answer of the database cannot be read: {e}")))
}

pub(crate) fn broken(what: String) -> AppendError {
    AppendError::Broken { what, remedy: "compare the schema `annals` with what the migrations make".to_owned() }
}

/// Whether the append is one event for one stream, without a request key.
pub(crate) fn is_plain(append: &CheckedAppend) -> bool {
    append.parts.len() == 1 && append.event_count == 1 && append.request.is_none()
}

/// The call of a plain append by a checked insert. It has a short timeout if another transaction blocks it.
pub(crate) fn call_for_one(append: &CheckedAppend) -> Query<'_> {
    with_event(sqlx::query(APPEND_ONE), append)
}

/// The call of a plain append by an optimistic insert; `None` if it names no expected version. It has a short
/// timeout if another transaction blocks it.
pub(crate) fn call_for_next(append: &CheckedAppend) -> Option<Query<'_>> {
    append.parts[0].expected.version().filter(|version| version.get() < i64::MAX)?;
    Some(with_event(sqlx::query(APPEND_NEXT), append))
}

/// The answer to [`call_for_next`], and whether the server waits for standbys. If the expected version did not hold, the
/// call has failed; `None` if the stream ends with another event than the expected one.
pub(crate) fn next_appended(append: &CheckedAppend, row: &PgRow) -> Result<Option<(Appended, bool)>, AppendError> {
    let part = &append.parts[0];
    let Some(outcome) = get::<Option<Vec<i64>>>(row, 0)? else { return Ok(None) };
    let [position, recorded_at, standbys] = outcome[..] else {
        return Err(broken(format!("the function `annals.append_next` gave {} numbers", outcome.len())));
    };
    let stream = AppendedStream {
        stream: part.stream.clone(),
        version: part.expected.version().unwrap_or_default().plus(1).unwrap_or_default(),
        positions: vec![Position::stored(position)],
    };
    let recorded_at = Timestamp::from_microsecond(recorded_at).map_err(|e| broken(format!("the time: {e}")))?;
    Ok(Some((Appended::new(vec![stream], recorded_at, false), standbys != 0)))
}

fn with_event<'q>(query: Query<'q>, append: &'q CheckedAppend) -> Query<'q> {
    let part = &append.parts[0];
    let event = &part.events[0];
    query
        .bind(append.tenant.as_str())
        .bind(part.stream.aggregate_type())
        .bind(part.stream.aggregate_id())
        .bind(expected(part.expected))
        .bind(event.event_id.get())
        .bind(&*event.name)
        .bind(i64::from(event.schema_version))
        .bind(event.payload.as_str())
        .bind(&*event.metadata)
        .bind(event.correlation_id.as_ref().map(|id| id.as_str()))
        .bind(event.causation_id.as_ref().map(|id| id.as_str()))
        .bind(part.expected.last_event().map(EventId::get))
}

fn call(append: &CheckedAppend, checked: bool) -> Query<'_> {
    if let Some(request) = append.request.as_ref().filter(|_| !append.about.is_empty()) {
        return sqlx::query(KEEP_ANSWER)
            .bind(append.tenant.as_str())
            .bind(request.key())
            .bind(request.fingerprint().get())
            .bind(lifetime(request))
            .bind(answer::to_json(&Appended::new(append.about.clone(), Timestamp::UNIX_EPOCH, false)));
    }
    with_events(sqlx::query(APPEND).bind(append.tenant.as_str()).bind(checked), append)
}

/// Binds everything from the streams to the lifetime, in the order in which the functions take it.
pub(crate) fn with_events<'q>(query: Query<'q>, append: &'q CheckedAppend) -> Query<'q> {
    let parts = &append.parts;
    let events: Vec<_> = append.events().map(|(_, event)| event).collect();
    let places = parts.iter().zip(1_i32..).flat_map(|(part, place)| part.events.iter().map(move |_| place));
    query
        .bind(parts.iter().map(|part| part.stream.aggregate_type()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.stream.aggregate_id()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| expected(part.expected)).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.expected.last_event().map(EventId::get)).collect::<Vec<_>>())
        .bind(places.collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.event_id.get()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| &*event.name).collect::<Vec<_>>())
        .bind(events.iter().map(|event| i64::from(event.schema_version)).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.payload.as_str()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| &*event.metadata).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.correlation_id.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.causation_id.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
        .bind(append.append_id)
        .bind(append.request.as_ref().map(RequestKey::key))
        .bind(append.request.as_ref().map(|request| request.fingerprint().get()))
        .bind(append.request.as_ref().and_then(lifetime))
}

/// How many microseconds the answer to a request is kept; `None` without limit.
pub(crate) fn lifetime(request: &RequestKey) -> Option<i64> {
    let micros = request.lifetime().as_micros();
    if micros <= LONGEST_LIFETIME { i64::try_from(micros).ok() } else { None }
}

/// The expected version as the functions of the database take it: `NULL` for any, -1 for a stream that must exist.
fn expected(expected: ExpectedVersion) -> Option<i64> {
    match expected {
        ExpectedVersion::StreamExists => Some(-1),
        _ => expected.version().map(StreamVersion::get),
    }
}

/// The answer to an append that has just been stored. Positions increase in the order of the append.
fn appended(append: &CheckedAppend, row: &PgRow) -> Result<Appended, AppendError> {
    let base: Vec<i64> = get(row, 3)?;
    let positions: Vec<i64> = get::<Option<Vec<i64>>>(row, 4)?.unwrap_or_default();
    let recorded_at = Timestamp::from_microsecond(get(row, 5)?).map_err(|e| broken(format!("the time: {e}")))?;
    if base.len() != append.parts.len() || positions.len() != append.event_count {
        return Err(broken(format!("{} positions for {} events", positions.len(), append.event_count)));
    }
    let mut positions = positions.into_iter().map(Position::stored);
    let streams = append.parts.iter().zip(base).map(|(part, base)| AppendedStream {
        stream: part.stream.clone(),
        version: StreamVersion::stored(base).plus(part.events.len()).unwrap_or_default(),
        positions: positions.by_ref().take(part.events.len()).collect(),
    });
    Ok(Appended::new(streams.collect(), recorded_at, false))
}

pub(crate) fn remembered(
    tenant: &Tenant,
    request: &RequestKey,
    fingerprint: Uuid,
    result: &str,
) -> Result<Appended, AppendError> {
    if fingerprint != request.fingerprint().get() {
        return Err(AppendError::RequestKeyReused { tenant: tenant.clone(), key: request.key().to_owned() });
    }
    answer::from_json(tenant, result)
        .map_err(|what| broken(format!("the stored answer to request `{}` cannot be read: {what}", request.key())))
}

/// All stored events whose ids are in the append.
pub(crate) fn stored_events(append: &CheckedAppend) -> Query<'static> {
    let ids: Vec<Uuid> = append.events().map(|(_, event)| event.event_id.get()).collect();
    sqlx::query(EVENTS_BY_IDS).bind(ids)
}

/// Whether the stored events with ids of the append are the same append; `None` if there are none.
pub(crate) fn find_stored_duplicate(append: &CheckedAppend, rows: &[PgRow]) -> Result<Option<Appended>, AppendError> {
    let stored: HashMap<EventId, StoredEvent> = rows.iter().map(stored_event).collect::<Result<_, _>>()?;
    find_duplicate(append, &stored)
}

pub(crate) fn stored_event(row: &PgRow) -> Result<(EventId, StoredEvent), AppendError> {
    let tenant = Tenant::stored(get::<&str>(row, 1)?.into());
    let recorded_at: Micros = get(row, 10)?;
    let stored = StoredEvent {
        stream: StreamId::stored(tenant, get::<&str>(row, 2)?.into(), get::<&str>(row, 3)?.into()),
        version: StreamVersion::stored(get(row, 4)?),
        position: Position::stored(get(row, 5)?),
        name: get::<&str>(row, 6)?.into(),
        schema_version: u32::try_from(get::<i64>(row, 7)?).map_err(|e| broken(format!("a schema version: {e}")))?,
        payload: Payload::trusted(get::<&str>(row, 8)?),
        append_id: get(row, 9)?,
        recorded_at: Timestamp::from_microsecond(recorded_at.0).map_err(|e| broken(format!("a time: {e}")))?,
    };
    Ok((EventId::stored(get(row, 0)?), stored))
}

/// The statements that read events, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "EVENTS_BY_IDS",
            EVENTS_BY_IDS,
            "('{00000000-0000-7000-8000-000000000001,00000000-0000-7000-8000-000000000002}')",
        ),
        ("REQUEST_BY_KEY", REQUEST_BY_KEY, "('default', 'key-1')"),
    ]
}
