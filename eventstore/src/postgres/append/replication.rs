//! Synchronous replication: has an append reached the standbys that the server waits for?
//!
//! When the wait for them is cancelled, the server still acknowledges the commit. It sends a warning, which sqlx logs and
//! does not return. So where the server waits for standbys at all, their state is queried.

use std::time::Duration;

use sqlx::Row;
use tokio::time::{Instant, sleep};

use crate::error::BackendError;
use crate::postgres::connection::pool::PooledConnection;

/// The flush position is an upper bound of the commit's, which was acknowledged before.
const IS_REPLICATED: &str = "
    SELECT annals.is_replicated(coalesce($1::pg_lsn, flushed.upto)), flushed.upto::text
    FROM (SELECT pg_current_wal_flush_lsn() AS upto) AS flushed
    ORDER BY 1
";

/// How long standbys may take to receive later commits of others. A commit that was waited for has arrived already.
const MAX_WAIT: Duration = Duration::from_millis(500);

const PAUSE: Duration = Duration::from_millis(2);

/// Makes sure that what was committed on the server before this call is replicated as configured. After an error it is
/// unknown whether it would survive the loss of the server.
pub(crate) async fn confirm(connection: &mut PooledConnection) -> Result<(), BackendError> {
    let begun = Instant::now();
    let mut upto: Option<String> = None;
    loop {
        let rows =
            connection.fetch_all(sqlx::query(IS_REPLICATED).bind(upto.clone())).await.map_err(BackendError::new)?;
        let row = rows.first().ok_or_else(|| BackendError::new(sqlx::Error::RowNotFound))?;
        match row.try_get(0).map_err(BackendError::new)? {
            "yes" => return Ok(()),
            "hidden" => {
                let why = "the account may not see whether synchronous standbys have it; `GRANT pg_read_all_stats` to it, \
                           or to the owner that `migrations/postgres/roles.example.sql` makes";
                return Err(BackendError::new(why));
            }
            _ if begun.elapsed() > MAX_WAIT => {
                let why = "the wait for synchronous standbys was cancelled, and they do not have it";
                return Err(BackendError::new(why));
            }
            _ => upto = Some(row.try_get(1).map_err(BackendError::new)?),
        }
        sleep(PAUSE).await;
    }
}
