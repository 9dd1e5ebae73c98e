//! A caller that drops its future: SQLite stops working for it.

use std::time::Duration;

use super::Fixture;
use crate::sqlite::SqliteOptions;
use crate::store::EventStore;

/// It never ends by itself.
const ENDLESS: &str = "
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT count(*)
    FROM n
    ORDER BY 1
";

/// How long a caller waits before it gives up.
const UNTIL_CANCELLED: Duration = Duration::from_millis(50);
/// What SQLite may work after that: some milliseconds, and the clock of the system counts in tens.
const WORK: Duration = Duration::from_millis(100);

/// The time that the threads of this process's connections have worked.
fn worked() -> Duration {
    let ticks = |task: std::path::PathBuf| -> Option<u64> {
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        let (name, rest) = stat.split_once(") ")?;
        let fields: Vec<_> = rest.split(' ').collect();
        let both = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(if name.contains("(sqlx-sqlite") { both } else { 0 })
    };
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    Duration::from_millis(tasks.filter_map(|task| ticks(task.ok()?.path())).sum::<u64>() * 10)
}

/// Drops the call once it is seen to work; on a busy machine its thread may get no time of the processor for long.
async fn cancel<T>(call: impl Future<Output = T>) {
    let before = worked();
    let mut call = std::pin::pin!(call);
    while worked() == before {
        assert!(tokio::time::timeout(UNTIL_CANCELLED, &mut call).await.is_err(), "it ended");
    }
}

async fn soon<T>(what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), call)
        .await
        .unwrap_or_else(|_| panic!("{what} waits for the cancelled one"))
}

/// Twelve reads that were cancelled worked on, and the next reader waited for them.
#[tokio::test]
async fn a_cancelled_read_does_not_work_on_and_its_connection_serves_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteOptions::new(folder.path().join("log.db")).readers(1).open().await.expect("opened");
    let database = store.database();
    for round in 0..3 {
        let mut own = database.held_reader(None).await.expect("free");
        cancel(async move { sqlx::query(ENDLESS).fetch_all(&mut *own).await }).await;
        let before = worked();
        soon("a read of the handle", store.head()).await.expect("read");
        assert!(worked() - before <= WORK, "round {round}: {:?}", worked() - before);

        let mut borrowed = database.read().await.expect("free");
        cancel(async move {
            sqlx::query("BEGIN").execute(&mut *borrowed).await?;
            sqlx::query(ENDLESS).fetch_all(&mut *borrowed).await
        })
        .await;
        let before = worked();
        let mut next = soon("a reader", database.read()).await.expect("free");
        assert!(worked() - before <= WORK, "round {round}: {:?}", worked() - before);
        // It is as good as new: outside of a transaction, and its statements run to their end.
        sqlx::query("BEGIN").execute(&mut *next).await.expect("begun");
        let many =
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT count(*) FROM n";
        let counted: i64 = sqlx::query_scalar(many).fetch_one(&mut *next).await.expect("counted");
        assert_eq!(counted, 20_000);
    }
    store.close().await;
}

/// Longer still: a statement in a transaction holds the file's write lock.
#[tokio::test]
async fn a_cancelled_statement_of_a_transaction_does_not_work_on_and_is_rolled_back() {
    let fixture = Fixture::new().await;
    for round in 0..2 {
        let mut transaction = fixture.store.database().begin().await.expect("begun");
        cancel(async move {
            sqlx::query("CREATE TABLE left_behind (n INTEGER)").execute(&mut *transaction).await?;
            sqlx::query(ENDLESS).fetch_all(&mut *transaction).await
        })
        .await;
        let before = worked();
        let done = soon("an append", fixture.append("a", super::ANY, round)).await.expect("appended");
        assert_eq!(done.version().get(), round + 1);
        assert!(worked() - before <= WORK, "round {round}: {:?}", worked() - before);
    }
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'left_behind'";
    let left: i64 = sqlx::query_scalar(tables).fetch_one(&mut fixture.foreign().await).await.expect("read");
    assert_eq!(left, 0);
}
