//! What runs beside writers and readers: backends are killed, prepared transactions are ended by another session, and one
//! unrelated transaction stays open for the whole run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use sqlx::{PgConnection, Row};
use tokio::sync::RwLock;
use tokio::time::sleep;

use crate::Fault;
use crate::run_folder::{Reconnecting, RunFolder, run};

/// Kills one backend of the writers and readers, with or without the library.
const KILL_ONE: &str = "
    SELECT pg_terminate_backend(one.pid)
    FROM (SELECT pid
          FROM pg_stat_activity
          WHERE datname = current_database() AND application_name IN ('annals', 'torture') AND pid <> pg_backend_pid()
          ORDER BY random()
          LIMIT 1) AS one
    ORDER BY 1
";

/// Prepared transactions whose session may have lost its connection.
const ABANDONED: &str = "
    SELECT gid
    FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - $1 * interval '1 millisecond'
    ORDER BY gid
";

/// A prepared transaction of this age counts as abandoned.
const ABANDONED_AFTER: Duration = Duration::from_millis(500);

/// Kills backends at random intervals while `no_kills` is not held for writing.
pub(crate) async fn kill_backends(
    folder: RunFolder,
    mut random: Rng,
    no_kills: Arc<RwLock<()>>,
    killed: Arc<AtomicU64>,
) -> Result<(), Fault> {
    let mut connection = Reconnecting::new(&folder);
    loop {
        sleep(Duration::from_millis(random.u64(50..400))).await;
        let _allowed = no_kills.read().await;
        match sqlx::query(KILL_ONE).fetch_all(connection.get().await?).await {
            Ok(rows) => drop(killed.fetch_add(rows.len() as u64, Ordering::Relaxed)),
            Err(_) => connection.reset().await,
        }
    }
}

/// Ends abandoned prepared transactions.
pub(crate) async fn end_abandoned(folder: RunFolder, mut random: Rng) -> Result<(), Fault> {
    let mut connection = Reconnecting::new(&folder);
    loop {
        sleep(Duration::from_millis(100)).await;
        if end_prepared(connection.get().await?, &mut random, ABANDONED_AFTER).await.is_err() {
            connection.reset().await;
        }
    }
}

/// Commits or rolls back every prepared transaction of this age. Returns how many there were.
pub(crate) async fn end_prepared(
    connection: &mut PgConnection,
    random: &mut Rng,
    age: Duration,
) -> Result<usize, sqlx::Error> {
    let age = i32::try_from(age.as_millis()).unwrap_or(i32::MAX);
    let rows = sqlx::query(ABANDONED).bind(age).fetch_all(&mut *connection).await?;
    for row in &rows {
        let end = if random.bool() { "COMMIT" } else { "ROLLBACK" };
        let name: String = row.get(0);
        run(connection, format!("{end} PREPARED '{name}'")).await?;
    }
    Ok(rows.len())
}

/// Keeps one transaction open, with a snapshot and its own rows, and begins it again after a crash.
pub(crate) async fn stay_open(folder: RunFolder) -> Result<(), Fault> {
    loop {
        let mut connection = folder.connect().await?;
        let begin =
            "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO unrelated VALUES (1); SELECT count(*) FROM unrelated";
        let mut alive = run(&mut connection, begin).await;
        while alive.is_ok() {
            sleep(Duration::from_millis(200)).await;
            alive = run(&mut connection, "SELECT 1").await;
        }
    }
}
