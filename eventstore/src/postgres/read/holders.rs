//! Logs which transactions keep readers waiting at a gap, if the wait is long.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::postgres::connection::pool::Pool;

/// The running writers, the oldest first.
const RUNNING_WRITERS: &str = "
    SELECT l.pid, l.virtualtransaction, a.application_name, a.state,
           extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8 AS age, p.gid
    FROM pg_locks AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    LEFT JOIN pg_locks AS t
      ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid' AND t.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts AS p ON p.transaction = t.transactionid
    WHERE l.locktype = 'relation' AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.relation = 'annals.events'::regclass AND l.mode = 'RowExclusiveLock'
    ORDER BY age DESC NULLS LAST, l.virtualtransaction
    LIMIT 5
";

/// The alarm and the gauge for readers that wait for running writers.
pub(crate) struct WaitAlarm {
    alarm: Duration,
    /// The wait after which the writers are logged.
    next_alarm: Duration,
    waiting: bool,
}

impl WaitAlarm {
    /// Logs a wait of `alarm`, and again each time the wait has doubled.
    pub(crate) fn new(alarm: Duration) -> Self {
        let alarm = alarm.max(Duration::from_millis(1));
        Self { alarm, next_alarm: alarm, waiting: false }
    }

    /// Reports that a reader has been waiting for this long.
    pub(crate) async fn look(&mut self, pool: &Pool, waited: Duration) {
        self.waiting = true;
        metrics::gauge!(GAUGE).set(waited.as_secs_f64());
        if waited < self.alarm {
            self.next_alarm = self.alarm;
        }
        if waited < self.next_alarm {
            return;
        }
        self.next_alarm *= 2;
        let asked = match pool.take().await {
            Ok(mut connection) => connection.fetch_all(sqlx::query(RUNNING_WRITERS)).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.into_read().to_string()),
        };
        let writers = match asked {
            // They have just ended.
            Ok(rows) if rows.is_empty() => return,
            Ok(rows) => rows.iter().map(describe).collect::<Vec<_>>().join("; "),
            Err(error) => format!("they cannot be queried: {error}"),
        };
        tracing::error!(
            ?waited,
            writers,
            "readers of the log wait for transactions that have appended and are still open; end them, or their clients"
        );
    }

    /// Reports that no reader waits.
    pub(crate) fn over(&mut self) {
        if std::mem::take(&mut self.waiting) {
            metrics::gauge!(GAUGE).set(0.0);
        }
        self.next_alarm = self.alarm;
    }
}

impl Drop for WaitAlarm {
    fn drop(&mut self) {
        self.over();
    }
}

/// For how many seconds readers of this process have been waiting for running writers; 0 when none waits.
const GAUGE: &str = "annals_horizon_wait_seconds";

fn describe(row: &PgRow) -> String {
    let text =
        |column: usize| row.try_get::<Option<String>, _>(column).ok().flatten().unwrap_or_else(|| "?".to_owned());
    let age = row.try_get::<Option<f64>, _>(4).ok().flatten().unwrap_or_default();
    match row.try_get::<Option<i32>, _>(0).ok().flatten() {
        Some(pid) => {
            format!("backend {pid} ({}, {}) in transaction {} for {age:.1} s", text(2), text(3), text(1))
        }
        None => format!("prepared transaction `{}` for {age:.1} s", text(5)),
    }
}
