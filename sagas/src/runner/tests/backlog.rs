//! Many instances that wait.

use std::time::Duration;

use annals_eventstore::{PostgresOptions, TransactionalStore};
use annals_projections::ReadModelDatabase;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use crate::runner::handle::APPROVALS;
use crate::runner::look::DUE;
use crate::runner::{Sagas, SagasExt};
use crate::{Saga, SagaId, Status};

const SOON: Duration = Duration::from_secs(20);

/// 100,000 rows beside that of an instance, which differ from it in their ids.
const MANY: &str = "
    INSERT INTO saga_instances_v1
        (tenant, saga_id, slot, saga_type, definition, current_step, attempt, status, payload, created_at, updated_at, version,
         wake_at, deadline, last_error, correlation_id, asks, asked_at)
    SELECT tenant, saga_id || n, n % 16, saga_type, definition, current_step, attempt, status, payload, created_at, updated_at,
           version, wake_at, deadline, last_error, correlation_id, asks, asked_at
    FROM saga_instances_v1,
         (WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000) SELECT n FROM numbers) AS m
    WHERE saga_type = 'long'
";

fn id(name: &str) -> SagaId {
    SagaId::new(name).expect("it is an id")
}

async fn start(store: &impl TransactionalStore<Database: ReadModelDatabase>) -> Sagas {
    let long = Saga::<()>::new("long").timer("pause", Duration::from_secs(1_000_000)).build().expect("it is sound");
    let short = Saga::<u32>::new("short").timer("pause", Duration::from_millis(300)).build().expect("it is sound");
    store.sagas().with(long).with(short).start().await.expect("it starts")
}

/// The statement of a look, with values in their places.
fn due(now: &str) -> String {
    explained(DUE, 21, |number| match number {
        1 => "'long'".to_owned(),
        2 => now.to_owned(),
        3..=18 => (number - 3).to_string(),
        19 => "'0001-01-01'".to_owned(),
        _ => "''".to_owned(),
    })
}

/// The statement that lists those that ask for approval.
fn approvals() -> String {
    explained(APPROVALS, 1, |_| "10".to_owned())
}

fn explained(text: &str, values: usize, value: impl Fn(usize) -> String) -> String {
    let (condition, order) = text.split_once("ORDER BY").expect("it has an order");
    let (order, limit) = order.split_once("LIMIT").expect("it has a limit");
    let mut text = format!(
        "EXPLAIN %SELECT * FROM (SELECT * FROM saga_instances AS t) AS r WHERE ({condition})
         ORDER BY {order}, tenant, saga_id LIMIT {limit}"
    );
    for number in (1..=values).rev() {
        text = text.replace(&format!("${number}"), &value(number));
    }
    text
}

/// Starts an instance that waits for a short time, beside many that wait for a long one.
async fn runs_beside_many(sagas: &Sagas) {
    let began = std::time::Instant::now();
    sagas.start(&id("s"), 1_u32).await.expect("it is new");
    assert_eq!(sagas.wait_for(&id("s"), SOON).await.expect("it ends").status, Status::Completed);
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    assert_eq!(sagas.runner().error, None);
    sagas.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waiting_instances_cost_one_search_of_an_index_on_sqlite() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("sagas.db");
    let store = annals_eventstore::sqlite(&path).await.expect("it opens");
    let sagas = start(&store).await;
    sagas.start(&id("w"), ()).await.expect("it is new");
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    while sagas.find(&id("w")).await.expect("it is asked").is_none_or(|row| row.current_step.is_none()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.expect("it connects");
    sqlx::query(MANY).execute(&mut connection).await.expect("it is inserted");
    let plan = AssertSqlSafe(due("0").replace('%', "QUERY PLAN "));
    let plan = sqlx::query(plan).fetch_all(&mut connection).await.expect("it is planned");
    let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    insta::assert_snapshot!(plan.join("\n"));
    let plan = AssertSqlSafe(approvals().replace('%', "QUERY PLAN "));
    let plan = sqlx::query(plan).fetch_all(&mut connection).await.expect("it is planned");
    let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    insta::assert_snapshot!("approvals_on_sqlite", plan.join("\n"));
    runs_beside_many(&sagas).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waiting_instances_cost_one_search_of_an_index_on_postgres() {
    let database = annals_scratch::Database::empty().await;
    let store = PostgresOptions::new(database.url()).migrate().open().await.expect("it opens");
    let sagas = start(&store).await;
    sagas.start(&id("w"), ()).await.expect("it is new");
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    while sagas.find(&id("w")).await.expect("it is asked").is_none_or(|row| row.current_step.is_none()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut connection = PgConnection::connect(database.url()).await.expect("it connects");
    sqlx::query(MANY).execute(&mut connection).await.expect("it is inserted");
    sqlx::query("ANALYZE saga_instances_v1").execute(&mut connection).await.expect("it is counted");
    let plan = AssertSqlSafe(due("now()").replace('%', "(COSTS OFF) "));
    let plan = sqlx::query(plan).fetch_all(&mut connection).await.expect("it is planned");
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    insta::assert_snapshot!(plan.join("\n"));
    let plan = AssertSqlSafe(approvals().replace('%', "(COSTS OFF) "));
    let plan = sqlx::query(plan).fetch_all(&mut connection).await.expect("it is planned");
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    insta::assert_snapshot!("approvals_on_postgres", plan.join("\n"));
    runs_beside_many(&sagas).await;
}
