//! Kills the app while it works, again and again, and looks at what it left: nothing acknowledged is lost, nothing is
//! doubled, and the read models are what the log says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, Row, SqliteConnection};

/// Rows of a query, each as one text.
async fn rows(connection: &mut SqliteConnection, sql: &'static str) -> Vec<String> {
    sqlx::query(sql).fetch_all(connection).await.expect("the file is sound").iter().map(|row| row.get(0)).collect()
}

async fn open(path: &Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    SqliteConnection::connect_with(&options).await.expect("the file opens")
}

/// Plays many orders and is killed after `patience`.
fn play_and_kill(path: &Path, patience: Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_example-orders"))
        .arg("--db")
        .arg(path)
        .args(["--orders", "1000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let until = Instant::now() + patience;
    while Instant::now() < until {
        assert!(child.try_wait().expect("it is our child").is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("it ended");
}

const ORDER_LIST: &str = "
    SELECT json_array(order_id, customer, status, pieces, total, currency, placed_at)
    FROM order_list
    ORDER BY order_id
";

/// What the list must say, straight from the log.
const EXPECTED_LIST: &str = "
    SELECT json_array(p.aggregate_id, p.event_data ->> '$.customer',
               (SELECT substr(l.event_type, 7)
                FROM events AS l
                WHERE l.aggregate_id = p.aggregate_id
                ORDER BY l.version DESC
                LIMIT 1),
               1, p.event_data ->> '$.total.minor', p.event_data ->> '$.total.currency', p.recorded_at)
    FROM events AS p
    WHERE p.event_type = 'order.placed'
    ORDER BY p.aggregate_id
";

const REVENUE: &str = "
    SELECT CAST(coalesce(sum(revenue), 0) AS TEXT)
    FROM daily_sales
    ORDER BY 1
";

const EXPECTED_REVENUE: &str = "
    SELECT CAST(coalesce(sum(event_data ->> '$.amount.minor'), 0) AS TEXT)
    FROM events
    WHERE event_type = 'order.paid'
    ORDER BY 1
";

const STREAMS_WITH_HOLES: &str = "
    SELECT aggregate_id
    FROM events
    GROUP BY tenant, aggregate_type, aggregate_id
    HAVING min(version) <> 1 OR max(version) <> count(*)
    ORDER BY aggregate_id
";

#[tokio::test]
async fn read_models_agree_with_the_log_whenever_the_app_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("orders.db");
    for patience in [250, 400, 130, 333, 600] {
        play_and_kill(&path, Duration::from_millis(patience));
    }
    // The next start finds the file as the kill left it, and catches up.
    let ended = Command::new(env!("CARGO_BIN_EXE_example-orders"))
        .arg("--db")
        .arg(&path)
        .args(["--orders", "1"])
        .stdout(Stdio::null())
        .status()
        .expect("it starts");
    assert!(ended.success());
    let mut connection = open(&path).await;
    assert_eq!(rows(&mut connection, STREAMS_WITH_HOLES).await, Vec::<String>::new());
    let listed = rows(&mut connection, ORDER_LIST).await;
    assert!(listed.len() > 200, "it did too little: {} orders", listed.len());
    assert_eq!(listed, rows(&mut connection, EXPECTED_LIST).await);
    assert_eq!(rows(&mut connection, REVENUE).await, rows(&mut connection, EXPECTED_REVENUE).await);
    assert_eq!(rows(&mut connection, "PRAGMA integrity_check").await, ["ok"]);
}
