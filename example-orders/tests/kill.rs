//! Kills the app during its work, again and again, and checks the data: nothing acknowledged is lost, nothing is
//! duplicated, and the read models agree with the log.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{ColumnIndex, Connection, Decode, PgConnection, Row, SqliteConnection, Type};

/// The app, on the store of the test.
struct App {
    file: Option<std::path::PathBuf>,
    url: Option<String>,
}

impl App {
    fn command(&self, orders: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_example-orders"));
        command
            .args(["--totals", "--orders", orders])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_remove("DATABASE_URL");
        if let Some(file) = &self.file {
            command.arg("--db").arg(file);
        }
        if let Some(url) = &self.url {
            command.env("DATABASE_URL", url);
        }
        command
    }

    /// Runs many orders and kills the app, again and again: each time when `placed` has grown by the given number of orders,
    /// and the given milliseconds later. So the work done does not depend on the speed of the machine. The last start
    /// catches up.
    async fn play_and_kill(&self, kills: &[(i64, u64)], mut placed: impl AsyncFnMut() -> i64) {
        for (orders, later) in kills {
            let enough = placed().await + orders;
            let mut child = self.command("1000000").spawn().expect("it starts");
            let until = Instant::now() + Duration::from_secs(60);
            while placed().await < enough {
                assert!(child.try_wait().expect("it is our child").is_none(), "it ended by itself");
                assert!(Instant::now() < until, "it places no orders");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(*later)).await;
            child.kill().expect("killed");
            child.wait().expect("it ended");
        }
        assert!(self.command("1").status().expect("it starts").success());
    }
}

/// Pairs of queries: the content of a read model, and the expected content, computed from the log. They return one text per
/// row.
struct Questions {
    order_list: [&'static str; 2],
    revenue: [&'static str; 2],
    totals: [&'static str; 2],
    streams_with_holes: &'static str,
}

const SQLITE: Questions = Questions {
    order_list: [
        "
        SELECT json_array(order_id, customer, status, pieces, total, currency, placed_at)
        FROM order_list
        ORDER BY order_id
        ",
        "
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
        ",
    ],
    revenue: [
        "
        SELECT CAST(coalesce(sum(revenue), 0) AS TEXT)
        FROM daily_sales
        ORDER BY 1
        ",
        "
        SELECT CAST(coalesce(sum(event_data ->> '$.amount.minor'), 0) AS TEXT)
        FROM events
        WHERE event_type = 'order.paid'
        ORDER BY 1
        ",
    ],
    totals: [
        "
        SELECT json_array(customer, orders, paid)
        FROM customer_totals_v1
        ORDER BY customer
        ",
        "
        SELECT json_array(p.event_data ->> '$.customer', count(*), coalesce(sum(m.event_data ->> '$.amount.minor'), 0))
        FROM events AS p
        LEFT JOIN events AS m ON m.aggregate_id = p.aggregate_id AND m.event_type = 'order.paid'
        WHERE p.event_type = 'order.placed'
        GROUP BY p.event_data ->> '$.customer'
        ORDER BY p.event_data ->> '$.customer'
        ",
    ],
    streams_with_holes: "
        SELECT aggregate_id
        FROM events
        GROUP BY tenant, aggregate_type, aggregate_id
        HAVING min(version) <> 1 OR max(version) <> count(*)
        ORDER BY aggregate_id
    ",
};

const POSTGRES: Questions = Questions {
    order_list: [
        "
        SELECT json_build_array(order_id, customer, status, pieces, total, currency, placed_at)::text
        FROM order_list
        ORDER BY order_id
        ",
        "
        SELECT json_build_array(p.aggregate_id, p.event_data ->> 'customer',
                   (SELECT substr(l.event_type, 7)
                    FROM annals.events AS l
                    WHERE l.tenant = p.tenant AND l.aggregate_type = p.aggregate_type
                      AND l.aggregate_id = p.aggregate_id
                    ORDER BY l.version DESC
                    LIMIT 1),
                   1, (p.event_data #> '{total,minor}')::bigint, p.event_data #>> '{total,currency}',
                   p.recorded_at)::text
        FROM annals.events AS p
        WHERE p.event_type = 'order.placed'
        ORDER BY p.aggregate_id
        ",
    ],
    revenue: [
        "
        SELECT coalesce(sum(revenue), 0)::text
        FROM daily_sales
        ORDER BY 1
        ",
        "
        SELECT coalesce(sum((event_data #> '{amount,minor}')::bigint), 0)::text
        FROM annals.events
        WHERE event_type = 'order.paid'
        ORDER BY 1
        ",
    ],
    totals: [
        "
        SELECT json_build_array(customer, orders, paid)::text
        FROM customer_totals_v1
        ORDER BY customer COLLATE \"C\"
        ",
        "
        SELECT json_build_array(p.event_data ->> 'customer', count(*),
                   coalesce(sum((m.event_data #> '{amount,minor}')::bigint), 0))::text
        FROM annals.events AS p
        LEFT JOIN annals.events AS m
          ON m.tenant = p.tenant AND m.aggregate_type = p.aggregate_type AND m.aggregate_id = p.aggregate_id
         AND m.event_type = 'order.paid'
        WHERE p.event_type = 'order.placed'
        GROUP BY p.event_data ->> 'customer'
        ORDER BY (p.event_data ->> 'customer') COLLATE \"C\"
        ",
    ],
    streams_with_holes: "
        SELECT aggregate_id
        FROM annals.events
        GROUP BY tenant, aggregate_type, aggregate_id
        HAVING min(version) <> 1 OR max(version) <> count(*)
        ORDER BY aggregate_id
    ",
};

/// The first column of every row.
fn texts<R: Row>(rows: Vec<R>) -> Vec<String>
where
    usize: ColumnIndex<R>,
    String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    rows.iter().map(|row| row.get(0)).collect()
}

/// Compares the results; `ask` runs a query.
async fn check(questions: Questions, mut ask: impl AsyncFnMut(&'static str) -> Vec<String>) {
    assert_eq!(ask(questions.streams_with_holes).await, Vec::<String>::new());
    let [listed, expected] = questions.order_list;
    let listed = ask(listed).await;
    assert!(listed.len() > 200, "every kill waits for orders, but there are {}", listed.len());
    assert_eq!(listed, ask(expected).await);
    let [revenue, expected] = questions.revenue;
    assert_eq!(ask(revenue).await, ask(expected).await);
    // Written by SQL of the app's own.
    let [totals, expected] = questions.totals;
    assert_eq!(ask(totals).await, ask(expected).await);
}

#[tokio::test]
async fn read_models_agree_with_the_log_whenever_the_app_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.db");
    // Who writes removes the journal when it is the last to close the file. Of a file that was killed when it was new, that is all.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).read_only(true);
    // None while the table does not exist.
    let placed = async || {
        let Ok(mut connection) = SqliteConnection::connect_with(&options).await else { return 0 };
        let orders = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'order.placed'");
        let orders = orders.fetch_one(&mut connection).await.unwrap_or_default();
        drop(connection.close().await);
        orders
    };
    let app = App { file: Some(path.clone()), url: None };
    app.play_and_kill(&[(0, 30), (60, 0), (60, 40), (0, 130), (60, 13), (60, 160)], placed).await;
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the file opens");
    let ask = async |sql| texts(sqlx::query(sql).fetch_all(&mut connection).await.expect("the file is valid"));
    check(SQLITE, ask).await;
    let integrity = sqlx::query("PRAGMA integrity_check").fetch_all(&mut connection).await.expect("it answers");
    assert_eq!(texts(integrity), ["ok"]);
}

#[tokio::test]
async fn read_models_agree_with_the_log_whenever_the_app_is_killed_on_postgresql() {
    let scratch = annals_scratch::Database::empty().await;
    let placed = async || {
        let Ok(mut connection) = PgConnection::connect(scratch.url()).await else { return 0 };
        let orders = sqlx::query_scalar("SELECT count(*) FROM annals.events WHERE event_type = 'order.placed'");
        let orders = orders.fetch_one(&mut connection).await.unwrap_or_default();
        drop(connection.close().await);
        orders
    };
    let app = App { file: None, url: Some(scratch.url().to_owned()) };
    app.play_and_kill(&[(0, 50), (60, 0), (60, 100), (0, 230), (60, 33), (60, 300)], placed).await;
    let mut connection = PgConnection::connect(scratch.url()).await.expect("the server answers");
    let ask = async |sql| texts(sqlx::query(sql).fetch_all(&mut connection).await.expect("the tables exist"));
    check(POSTGRES, ask).await;
}
