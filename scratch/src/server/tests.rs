use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{Server, Stop};

async fn run(url: &str, statement: &str) {
    try_run(url, statement).await.unwrap();
}

async fn try_run(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.map(drop)
}

async fn ask<T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(url: &str, query: &str) -> T {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_survives_a_crash_and_a_promotion() {
    let first = Server::start(&[("cluster_name", "torn")]);
    let url = first.url("postgres");
    assert_eq!(ask::<String>(&url, "SHOW fsync").await, "on");
    assert_eq!(ask::<String>(&url, "SHOW cluster_name").await, "torn");
    run(&url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
    first.restart(Stop::Immediate);
    let checkpointer = "FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let before = ask::<i32>(&url, &format!("SELECT pid {checkpointer}")).await;
    let mut victim = PgConnection::connect(&url).await.unwrap();
    let pid = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut victim).await.unwrap().get(0);
    first.kill_backend(pid);
    while sqlx::query("SELECT 1").fetch_one(&mut victim).await.is_ok() {}
    // The server may accept connections for a moment before it notices the crash and ends them, its own processes too.
    let is_started_anew = format!("SELECT 1 / count(*) {checkpointer} AND pid <> {before}");
    let insert = "INSERT INTO kept SELECT 2 WHERE NOT EXISTS (SELECT FROM kept WHERE n = 2)";
    while try_run(&url, &format!("{is_started_anew}; {insert}")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let second = first.standby();
    let standby = second.url("postgres");
    assert!(ask::<bool>(&standby, "SELECT pg_is_in_recovery()").await);
    run(&url, "ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
    run(&url, "SELECT pg_reload_conf()").await;
    while ask::<String>(&url, "SELECT coalesce(max(sync_state), '') FROM pg_stat_replication").await != "sync" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    run(&url, "INSERT INTO kept VALUES (3)").await;
    first.stop(Stop::Immediate);
    second.promote();
    run(&standby, "INSERT INTO kept VALUES (4)").await;
    assert_eq!(ask::<i64>(&standby, "SELECT sum(n) FROM kept").await, 10);

    let folders = [first.folder().to_owned(), second.folder().to_owned()];
    drop((first, second));
    assert!(folders.iter().all(|folder| !folder.exists()), "{folders:?} are left behind");
}

/// Set for the process that is killed below.
const VICTIM: &str = "ANNALS_SCRATCH_VICTIM";

#[tokio::test]
async fn a_server_is_removed_when_its_process_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        let server = Server::start(&[]);
        println!("\nIN {}", server.folder().display());
        std::io::stdin().read_line(&mut String::new()).unwrap();
        panic!("it was not killed");
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server::tests::a_server_is_removed_when_its_process_is_killed", "--nocapture"])
        .env(VICTIM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let folder = lines.find_map(|line| line.strip_prefix("IN ").map(std::path::PathBuf::from)).unwrap();
    assert!(folder.join(".s.PGSQL.5432").exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    while folder.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
