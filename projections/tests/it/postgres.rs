//! What only a server can do: end a connection in the middle of a commit.

use std::time::Duration;

use annals_eventstore::{EventStore, PostgresOptions, UnitOfWork};
use annals_projections::{ProjectionState, ProjectionsExt, WaitError};
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::backends::{Backend, until_at};
use super::everywhere::Wider;
use super::shop::{OrderList, Sales, placed};

const SOON: Duration = Duration::from_secs(30);

const SALES: &str = "SELECT customer || ' ' || orders || ' ' || cents FROM sales ORDER BY customer";

/// A backend other than `known` that waits for somebody's lock, once there is one.
async fn blocked_backend(connection: &mut PgConnection, known: i32) -> i32 {
    loop {
        let waiting = "SELECT pid FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> $1";
        let rows = sqlx::query(waiting).bind(known).fetch_all(&mut *connection).await.unwrap();
        if let Some(row) = rows.first() {
            return row.get(0);
        }
        tokio::task::yield_now().await;
    }
}

/// The process that makes indexes may be at it for an hour, and one connection is all that there is.
#[tokio::test]
async fn a_start_that_waits_for_the_indexes_of_another_process_keeps_no_connection_and_strangers_keep_none_from_it() {
    let backend = Backend::in_one_postgres().await;
    let shop = backend.open().await;
    shop.projections().with(OrderList).start().await.unwrap().close().await;
    let url = backend.postgres_url();
    let mut owner = PgConnection::connect(url).await.unwrap();
    let unfinished = "UPDATE pg_index SET indisvalid = false
                      WHERE NOT indisprimary AND indrelid = 'order_list_v1'::regclass";
    let finished = "SELECT count(*) FROM pg_index WHERE indrelid = 'order_list_v1'::regclass AND NOT indisvalid";
    let lock = "SELECT pg_advisory_lock(1634627180, 1768842360)";
    let store = PostgresOptions::new(url).connections(1).open().await.unwrap();
    let begin = || {
        let store = store.clone();
        tokio::spawn(async move { store.projections().with(OrderList).start().await })
    };

    let mut other = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    sqlx::raw_sql(unfinished).execute(&mut owner).await.unwrap();
    let start = begin();
    for _ in 0..10 {
        let begun = tokio::time::timeout(Duration::from_secs(3), store.begin()).await;
        begun.expect("a connection is free at times").unwrap().rollback().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!start.is_finished(), "the other one makes indexes");
    other.close().await.unwrap();
    start.await.unwrap().unwrap().close().await;
    assert_eq!(sqlx::query_scalar::<_, i64>(finished).fetch_one(&mut owner).await.unwrap(), 0);

    let name = format!("stranger_{:016x}", fastrand::u64(..));
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE ROLE {name} LOGIN PASSWORD 'only for tests'")))
        .execute(&mut owner)
        .await
        .unwrap();
    let options: PgConnectOptions = url.parse().unwrap();
    let mut stranger = PgConnection::connect_with(&options.username(&name).password("only for tests")).await.unwrap();
    sqlx::raw_sql(lock).execute(&mut stranger).await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_lock(1634627180, 1886545264)").execute(&mut stranger).await.unwrap();
    sqlx::raw_sql(unfinished).execute(&mut owner).await.unwrap();
    let started = tokio::time::timeout(SOON, begin()).await.expect("it does not wait for a stranger");
    started.unwrap().unwrap().close().await;
    assert_eq!(sqlx::query_scalar::<_, i64>(finished).fetch_one(&mut owner).await.unwrap(), 0);
    drop(stranger);
    sqlx::raw_sql(AssertSqlSafe(format!("DROP ROLE {name}"))).execute(&mut owner).await.unwrap();
}

/// It was said that the position is not reached, which was not so.
#[tokio::test]
async fn a_wait_says_that_the_database_does_not_answer_where_that_is_why_it_ends() {
    let backend = Backend::in_one_postgres().await;
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).start().await.unwrap();
    let position = shop.append("o-1", &[placed("ann", 1)]).await;
    views.wait_for(position, SOON).await.unwrap();
    let mut holder = PgConnection::connect(backend.postgres_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE annals.read_models IN ACCESS EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
    let error = views.wait_for(position, Duration::from_millis(400)).await.unwrap_err();
    assert!(matches!(error, WaitError::Unavailable(_)) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("it has not answered within 400ms"), "{error}");
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    views.wait_for(position, SOON).await.unwrap();
    views.close().await;
}

/// Units of work that were open took the connections of queries, too.
#[tokio::test]
async fn rows_are_found_while_transactions_of_the_user_have_all_connections_for_writing() {
    let backend = Backend::in_one_postgres().await;
    let shop = backend.open().await;
    let position = shop.append("o-1", &[placed("ann", 1)]).await;
    let store = PostgresOptions::new(backend.postgres_url()).connections(2).open().await.unwrap();
    let views = store.projections().with(OrderList).start().await.unwrap();
    views.wait_for(position, SOON).await.unwrap();
    let units = (store.begin().await.unwrap(), store.begin().await.unwrap());
    let found = tokio::time::timeout(Duration::from_secs(3), views.find::<OrderList>(&"o-1".to_owned())).await;
    assert_eq!(found.expect("it is answered").unwrap().unwrap().cents, 1);
    drop(units);
    views.close().await;
}

/// They took all connections for reads, and never ended.
#[tokio::test]
async fn queries_of_a_locked_read_model_end_and_leave_connections_for_the_reads_of_the_store() {
    let backend = Backend::in_one_postgres().await;
    let shop = backend.open().await;
    let position = shop.append("o-1", &[placed("ann", 1)]).await;
    let options = PostgresOptions::new(backend.postgres_url()).connections(2).answer_timeout(Duration::from_secs(2));
    let store = options.open().await.unwrap();
    let views = store.projections().with(OrderList).start().await.unwrap();
    views.wait_for(position, SOON).await.unwrap();
    let mut holder = PgConnection::connect(backend.postgres_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE order_list_v1 IN ACCESS EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
    let find = || async { views.find::<OrderList>(&"o-1".to_owned()).await };
    let reads = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let head = tokio::time::timeout(Duration::from_millis(1_500), store.head()).await;
        assert_eq!(head.expect("a connection is free").unwrap().position, position);
    };
    let ends = async { tokio::time::timeout(SOON, join_all([find(), find()])).await };
    let ((), found) = tokio::join!(reads, ends);
    for answer in found.expect("they end") {
        let error = answer.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    assert_eq!(find().await.unwrap().unwrap().cents, 1);
    views.close().await;
}

/// Somebody holds the table, so the commit waits in its middle, the checkpoint moved and the rows not written.
#[tokio::test]
async fn a_connection_that_the_server_ends_in_a_commit_is_made_good_and_nothing_counts_twice() {
    for round in 0..2 {
        let backend = Backend::in_one_postgres().await;
        let shop = backend.open().await;
        let views = shop.projections().with(Sales).start().await.unwrap();
        let position = shop.append("o-1", &[placed("ann", 1)]).await;
        views.wait_for(position, SOON).await.unwrap();

        let mut holder = PgConnection::connect(backend.postgres_url()).await.unwrap();
        let mut foreign = PgConnection::connect(backend.postgres_url()).await.unwrap();
        sqlx::raw_sql("BEGIN; LOCK TABLE sales_v1 IN SHARE MODE").execute(&mut holder).await.unwrap();
        let position = shop.append("o-2", &[placed("ann", 2), placed("bob", 3)]).await;
        let pid = blocked_backend(&mut foreign, 0).await;
        if round == 0 {
            sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut foreign).await.unwrap();
            // It comes again by another connection, and waits again.
            blocked_backend(&mut foreign, pid).await;
        } else {
            sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut foreign).await.unwrap();
        }
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
        views.wait_for(position, SOON).await.unwrap();
        until_at(&views, position).await;
        assert_eq!(shop.query(SALES).await, ["ann 2 3", "bob 1 3"]);
        assert!(matches!(views.status()[0].state, ProjectionState::Live));
        assert_eq!(views.status()[0].applied, 3);
        views.close().await;
    }
}

/// Nothing that is cut off at any time may be counted twice or not at all.
#[tokio::test]
async fn connections_that_the_server_ends_again_and_again_cost_nothing_but_time() {
    let backend = Backend::in_two_postgres().await;
    let shop = backend.open().await;
    let views = shop.projections().with(Sales).start().await.unwrap();
    let mut foreign = PgConnection::connect(backend.views_url()).await.unwrap();
    let mut last = annals_eventstore::Position::START;
    for n in 0..40 {
        last = shop.append(&format!("o-{n}"), &[placed("ann", 1), placed("bob", 2)]).await;
        let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
        sqlx::query(end_all).execute(&mut foreign).await.unwrap();
    }
    views.wait_for(last, SOON).await.unwrap();
    let sold = sqlx::query(SALES).fetch_all(&mut foreign).await.unwrap();
    let sold: Vec<String> = sold.iter().map(|row| row.get(0)).collect();
    assert_eq!(sold, ["ann 40 40", "bob 40 80"]);
    views.close().await;
}

/// The view cannot be switched while somebody reads it, and until then queries see the old version.
#[tokio::test]
async fn a_report_that_delays_the_switch_ends_no_wait_early() {
    let backend = Backend::in_one_postgres().await;
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).start().await.unwrap();
    views.wait_for(shop.append("o-1", &[placed("ann", 1)]).await, SOON).await.unwrap();
    views.close().await;

    let mut report = PgConnection::connect(backend.postgres_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM order_list").execute(&mut report).await.unwrap();
    let position = shop.append("o-2", &[placed("bob", 2)]).await;
    let views = shop.projections().with(Wider::<2>).start().await.unwrap();
    let error = views.wait_for(position, Duration::from_millis(1_500)).await.unwrap_err();
    assert!(error.to_string().contains("`order_list` shows version 1, which is at 1 and"), "{error}");
    assert!(error.to_string().contains("version 2, which runs here, is at 2"), "{error}");
    assert_eq!(shop.query("SELECT order_id FROM order_list").await, ["o-1"]);
    sqlx::raw_sql("COMMIT").execute(&mut report).await.unwrap();
    views.wait_for(position, SOON).await.unwrap();
    assert_eq!(shop.query("SELECT order_id || note FROM order_list ORDER BY 1").await, ["o-1wide", "o-2wide"]);
    views.close().await;
}

/// The roles of the example under names of their own, as roles are the whole server's.
fn example_of_roles(suffix: &str) -> String {
    let mut script = annals_migrations::POSTGRES_ROLES_EXAMPLE.to_owned();
    for role in ROLES {
        script = script.replace(role, &format!("{role}{suffix}"));
    }
    script
}

const ROLES: [&str; 4] = ["annals_owner", "annals_app", "annals_reader", "annals_projections"];

#[tokio::test]
async fn the_example_of_roles_lets_projections_do_their_work_and_no_more() {
    let backend = Backend::in_one_postgres().await;
    // Closed while its tables get another owner.
    backend.open().await.close().await;
    let suffix = format!("_{:016x}", fastrand::u64(..));
    let mut superuser = PgConnection::connect(backend.postgres_url()).await.unwrap();
    let account = format!("views{suffix}");
    let accounts = format!(
        "CREATE ROLE {account} LOGIN IN ROLE annals_projections{suffix};
         ALTER ROLE {account} SET search_path = read_models"
    );
    for sql in [example_of_roles(&suffix), accounts] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut superuser).await.unwrap();
    }
    let shop = backend.open().await;
    let store = PostgresOptions::new(backend.postgres_url_as(&account)).open().await.unwrap();
    // The second start finds everything in place.
    for n in 1..3 {
        let views = store.projections().with(Sales).with(OrderList).start().await.unwrap();
        let position = shop.append(&format!("o-{n}"), &[placed("ann", 1)]).await;
        views.wait_for(position, SOON).await.unwrap();
        views.close().await;
    }
    assert_eq!(shop.query("SELECT customer || ' ' || orders FROM read_models.sales").await, ["ann 2"]);
    let mut transaction = store.database().begin().await.unwrap();
    let refused = sqlx::query("DELETE FROM annals.request_keys").execute(&mut *transaction).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501");
    drop(transaction);
    store.close().await;
    shop.close().await;
    superuser.close().await.unwrap();
    let server = backend.server_of_postgres();
    drop(backend);
    let all = ROLES.map(|role| format!("{role}{suffix}")).join(", ");
    let forget = format!("DROP ROLE {account}, {all}");
    let mut superuser = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(forget)).execute(&mut superuser).await.unwrap();
}
