//! What goes on beside writers and readers: backends are killed, prepared transactions are ended by somebody else, and one
//! transaction that has nothing to do with events stays open for the whole run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use sqlx::{PgConnection, Row};
use tokio::sync::RwLock;
use tokio::time::sleep;

use crate::torture::Fault;
use crate::torture::place::{Link, Place, run};

/// One of the backends of writers and readers, through the library or not.
const KILL_ONE: &str = "
    SELECT pg_terminate_backend(one.pid)
    FROM (SELECT pid
          FROM pg_stat_activity
          WHERE datname = current_database() AND application_name IN ('annals', 'torture') AND pid <> pg_backend_pid()
          ORDER BY random()
          LIMIT 1) AS one
    ORDER BY 1
";

/// Prepared transactions that nobody seems to end: whoever has prepared them may have lost its connection.
const LEFT_BEHIND: &str = "
    SELECT gid
    FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - $1 * interval '1 millisecond'
    ORDER BY gid
";

/// How long a prepared transaction is left to those who have prepared it.
const LEFT_FOR: Duration = Duration::from_millis(500);

/// Kills a backend every now and then while `peace` is not held for writing.
pub(crate) async fn kill(
    place: Place,
    mut random: Rng,
    peace: Arc<RwLock<()>>,
    killed: Arc<AtomicU64>,
) -> Result<(), Fault> {
    let mut link = Link::new(&place);
    loop {
        sleep(Duration::from_millis(random.u64(50..400))).await;
        let _at_war = peace.read().await;
        match sqlx::query(KILL_ONE).fetch_all(link.get().await?).await {
            Ok(rows) => killed.fetch_add(rows.len() as u64, Ordering::Relaxed),
            Err(_) => {
                link.mend().await;
                continue;
            }
        };
    }
}

/// Ends what is left behind, one way or the other.
pub(crate) async fn sweep(place: Place, mut random: Rng) -> Result<(), Fault> {
    let mut link = Link::new(&place);
    loop {
        sleep(Duration::from_millis(100)).await;
        if end_prepared(link.get().await?, &mut random, LEFT_FOR).await.is_err() {
            link.mend().await;
        }
    }
}

/// Ends every prepared transaction of that age, and says how many there were.
pub(crate) async fn end_prepared(
    connection: &mut PgConnection,
    random: &mut Rng,
    age: Duration,
) -> Result<usize, sqlx::Error> {
    let age = i32::try_from(age.as_millis()).unwrap_or(i32::MAX);
    let rows = sqlx::query(LEFT_BEHIND).bind(age).fetch_all(&mut *connection).await?;
    for row in &rows {
        let end = if random.bool() { "COMMIT" } else { "ROLLBACK" };
        let name: String = row.get(0);
        run(connection, format!("{end} PREPARED '{name}'")).await?;
    }
    Ok(rows.len())
}

/// Keeps one transaction open, with a snapshot and rows of its own, and begins it again after a crash.
pub(crate) async fn stay_open(place: Place) -> Result<(), Fault> {
    loop {
        let mut connection = place.connect("unrelated").await?;
        let begin =
            "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO unrelated VALUES (1); SELECT count(*) FROM unrelated";
        let mut alive = run(&mut connection, begin).await;
        while alive.is_ok() {
            sleep(Duration::from_millis(200)).await;
            alive = run(&mut connection, "SELECT 1").await;
        }
    }
}
