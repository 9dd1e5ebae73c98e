//! Request keys: looked up before anything is decided, stored with what was.

use std::collections::HashMap;

use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use crate::answer;
use crate::append::{Appended, CheckedAppend};
use crate::error::AppendError;
use crate::request::RequestKey;
use crate::stream::Tenant;

const REQUEST_BY_KEY: &str = "
    SELECT fingerprint, result
    FROM annals_request_keys
    WHERE tenant = ?1 AND request_key = ?2 AND expires_at > ?3
    ORDER BY tenant, request_key
";

/// With the time of the last event, from which lifetimes count if the clock is behind it.
const REQUESTS_BY_KEYS: &str = "
    SELECT asked.key, k.fingerprint, k.result,
           (SELECT recorded_at
            FROM events
            ORDER BY position DESC
            LIMIT 1) AS last_recorded_at
    FROM json_each(?1) AS asked
    LEFT JOIN annals_request_keys AS k
        ON k.tenant = asked.value ->> 0 AND k.request_key = asked.value ->> 1 AND k.expires_at > ?2
    ORDER BY asked.key
";

/// A key that is stored already has expired, or the append would have been answered from it.
const REMEMBER_REQUESTS: &str = "
    INSERT INTO annals_request_keys (tenant, request_key, fingerprint, result, expires_at)
    SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4
    FROM json_each(?1)
    WHERE true
    ON CONFLICT (tenant, request_key) DO UPDATE
    SET fingerprint = excluded.fingerprint, result = excluded.result, expires_at = excluded.expires_at
";

/// Bounded, so that no append waits until a long backlog is deleted.
const SWEEP_EXPIRED: &str = "
    DELETE FROM annals_request_keys
    WHERE (tenant, request_key) IN (
        SELECT tenant, request_key
        FROM annals_request_keys
        WHERE expires_at <= ?1
        ORDER BY expires_at
        LIMIT 100)
";

/// What is remembered of a request.
pub(crate) struct Remembered {
    fingerprint: Uuid,
    result: String,
}

impl Remembered {
    fn of(row: &sqlx::sqlite::SqliteRow, first: usize) -> Self {
        Self {
            fingerprint: Uuid::from_slice(row.get::<&[u8], _>(first)).unwrap_or_default(),
            result: String::from_utf8_lossy(row.get::<&[u8], _>(first + 1)).into_owned(),
        }
    }

    /// The answer for a repeat of the same request; another request is refused.
    pub(crate) fn answer(&self, tenant: &Tenant, request: &RequestKey) -> Result<Appended, AppendError> {
        if self.fingerprint != request.fingerprint().get() {
            return Err(AppendError::RequestKeyReused { tenant: tenant.clone(), key: request.key().to_owned() });
        }
        answer::from_json(tenant, &self.result).map_err(|what| AppendError::Broken {
            what: format!("the stored answer to request `{}` cannot be read: {what}", request.key()),
            remedy: "compare the file with a backup".to_owned(),
        })
    }
}

/// What is remembered of one request.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
    tenant: &Tenant,
    request: &RequestKey,
    now: i64,
) -> Result<Option<Remembered>, sqlx::Error> {
    let rows = sqlx::query(REQUEST_BY_KEY)
        .bind(tenant.as_str().to_owned())
        .bind(request.key().to_owned())
        .bind(now)
        .fetch_all(connection)
        .await?;
    Ok(rows.first().map(|row| Remembered::of(row, 0)))
}

/// What is known of the requests of several appends.
#[derive(Default)]
pub(crate) struct Known {
    /// What is remembered of them, by the index of the append.
    pub(crate) remembered: HashMap<usize, Remembered>,
    /// When the lifetime of new ones begins, in microseconds: at the latest time that is known of, and not before the last
    /// event was recorded, so that a clock that was behind and is corrected makes no key expire early.
    pub(crate) begins: i64,
}

/// The requests that come with appends, each with its tenant and the index of its append.
pub(crate) fn of(appends: &[CheckedAppend]) -> impl Iterator<Item = (usize, &Tenant, &RequestKey)> {
    let numbered = appends.iter().enumerate();
    numbered.filter_map(|(index, append)| Some((index, &append.tenant, append.request.as_ref()?)))
}

pub(crate) async fn find_all<'a>(
    connection: &mut SqliteConnection,
    requests: impl Iterator<Item = (usize, &'a Tenant, &'a RequestKey)>,
    now: i64,
    latest: i64,
) -> Result<Known, sqlx::Error> {
    let (indexes, asked): (Vec<usize>, Vec<serde_json::Value>) =
        requests.map(|(index, tenant, request)| (index, serde_json::json!([tenant.as_str(), request.key()]))).unzip();
    if asked.is_empty() {
        return Ok(Known::default());
    }
    let rows = sqlx::query(REQUESTS_BY_KEYS)
        .bind(serde_json::Value::from(asked).to_string())
        .bind(now)
        .fetch_all(connection)
        .await?;
    let begins = rows.first().and_then(|row| row.get::<Option<i64>, _>(3)).map_or(latest, |last| last.max(latest));
    let remembered = rows.iter().filter_map(|row| {
        row.get::<Option<&[u8]>, _>(1)?;
        let index = indexes.get(usize::try_from(row.get::<i64, _>(0)).ok()?)?;
        Some((*index, Remembered::of(row, 1)))
    });
    Ok(Known { remembered: remembered.collect(), begins })
}

/// Stores the answers to requests, whose lifetimes begin at `begins`, and forgets some that have expired by `now`.
pub(crate) async fn remember<'a>(
    connection: &mut SqliteConnection,
    answered: impl Iterator<Item = (&'a Tenant, &'a RequestKey, &'a Appended)>,
    begins: i64,
    now: i64,
) -> Result<(), sqlx::Error> {
    let rows: Vec<serde_json::Value> = answered
        .map(|(tenant, request, answer)| {
            let lifetime = i64::try_from(request.lifetime().as_micros()).unwrap_or(i64::MAX);
            serde_json::json!([
                tenant.as_str(),
                request.key(),
                request.fingerprint().get().simple().to_string(),
                answer::to_json(answer),
                begins.saturating_add(lifetime),
            ])
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(REMEMBER_REQUESTS).bind(serde_json::Value::from(rows).to_string()).execute(&mut *connection).await?;
    sqlx::query(SWEEP_EXPIRED).bind(now).execute(connection).await?;
    Ok(())
}
