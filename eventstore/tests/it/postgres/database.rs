//! The database handle: transactions that end as reported, and connections that are clean when borrowed.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use annals_eventstore::{DatabaseError, PostgresDatabase, PostgresOptions, PostgresTransaction};
use annals_migrations::Migration;
use annals_scratch::Database;
use sqlx::{Connection, PgConnection, Row};

use super::{code, run};

const TABLE: &str = "CREATE TABLE mine (n int NOT NULL, half int NOT NULL, PRIMARY KEY (n, half))";

/// A database without a store that has one table, and a handle with `connections`.
async fn with_table(connections: usize) -> (Database, PostgresDatabase) {
    let there = Database::empty().await;
    let mut foreign = PgConnection::connect(there.url()).await.unwrap();
    run(&mut foreign, TABLE).await.unwrap();
    let options = PostgresOptions::new(there.url()).connections(connections);
    (there, PostgresDatabase::open_with(&options).await.unwrap())
}

async fn insert(connection: &mut PgConnection, n: i32, half: i32) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO mine (n, half) VALUES ($1, $2)").bind(n).bind(half);
    insert.execute(connection).await.map(|_| ())
}

async fn count(database: &PostgresDatabase) -> i64 {
    let mut reader = database.read().await.unwrap();
    sqlx::query("SELECT count(*) FROM mine").fetch_one(&mut *reader).await.unwrap().get(0)
}

async fn text(connection: &mut PgConnection, query: &'static str) -> String {
    sqlx::query(query).fetch_one(connection).await.unwrap().get(0)
}

pub(super) async fn pid(connection: &mut PgConnection) -> i32 {
    sqlx::query("SELECT pg_backend_pid()").fetch_one(connection).await.unwrap().get(0)
}

/// Ends the connection's server process, as a crash or an administrator does, and waits until it has ended.
pub(super) async fn kill(there: &Database, pid: i32) {
    let mut foreign = PgConnection::connect(there.url()).await.unwrap();
    let kill = sqlx::query("SELECT pg_terminate_backend($1, 5000)").bind(pid);
    assert!(kill.fetch_one(&mut foreign).await.unwrap().get::<bool, _>(0));
}

/// No transaction is open on the connection, and no session state of the previous borrower is left.
async fn assert_clean(connection: &mut PgConnection, case: &str) {
    let outside = run(connection, "SAVEPOINT outside").await.expect_err(case);
    assert_eq!(code(&outside), "25P01", "{case}: {outside}");
    let left = "
        SELECT coalesce(current_setting('annals.transaction', true), ''),
               current_setting('search_path') || current_setting('statement_timeout') || current_user,
               (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')
               + (SELECT count(*) FROM pg_listening_channels())
               + (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
    ";
    let row = sqlx::query(left).fetch_one(connection).await.expect(case);
    assert_eq!(row.get::<&str, _>(0), "", "{case}");
    assert_eq!(row.get::<&str, _>(1), "\"$user\", public0postgres", "{case}");
    assert_eq!(row.get::<i64, _>(2), 0, "{case}");
}

/// Polls the future up to `times`, each time that it is woken; then waits for `delay` and drops it. On a busy machine an
/// answer may be there at the first poll already.
pub(super) async fn cut<F: Future>(future: F, times: usize, delay: Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    let cut = std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let output = cut.await;
    if output.is_none() {
        tokio::time::sleep(delay).await;
    }
    output
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Begin,
    Statement,
    Commit,
    Rollback,
}

/// One transaction of two rows, dropped in the middle of the step `at`. Returns whether it was committed, if that is known.
async fn cut_transaction(
    database: &PostgresDatabase,
    n: i32,
    at: Cut,
    times: usize,
    delay: Duration,
) -> Result<Option<bool>, DatabaseError> {
    let mut transaction = match at {
        Cut::Begin => match cut(database.begin(), times, delay).await {
            Some(begun) => begun?,
            None => return Ok(Some(false)),
        },
        _ => database.begin().await?,
    };
    insert(&mut transaction, n, 1).await.map_err(|e| database.fault(e))?;
    let second = insert(&mut transaction, n, 2);
    let second = match at {
        Cut::Statement => match cut(second, times, delay).await {
            Some(done) => done,
            None => return Ok(Some(false)),
        },
        _ => second.await,
    };
    second.map_err(|e| database.fault(e))?;
    match at {
        Cut::Commit => Ok(cut(transaction.commit(), times, delay).await.transpose()?.map(|()| true)),
        Cut::Rollback => {
            cut(transaction.rollback(), times, delay).await;
            Ok(Some(false))
        }
        _ => transaction.commit().await.map(|()| Some(true)),
    }
}

#[tokio::test]
async fn after_a_drop_at_any_point_the_next_borrower_gets_a_clean_connection() {
    let (_there, database) = with_table(2).await;
    let mut known = Vec::new();
    let mut cuts = 0;
    for n in 0..200_i32 {
        let at = [Cut::Begin, Cut::Statement, Cut::Commit, Cut::Rollback][n as usize % 4];
        let times = 1 + n as usize / 4 % 3;
        // Dropped at once, and some time after the answer has arrived.
        let delay = Duration::from_micros([0, 100, 2_000][n as usize / 12 % 3]);
        let case = format!("transaction {n}, dropped after {times} polls of {at:?} and {delay:?}");
        let committed = cut_transaction(&database, n, at, times, delay).await.expect(&case);
        cuts += usize::from(at != Cut::Rollback && committed != Some(true));
        known.push(committed);
        let (mut one, mut other) = (database.read().await.expect(&case), database.begin().await.expect(&case));
        assert_clean(&mut one, &case).await;
        let mine = "SELECT pg_current_xact_id_if_assigned() IS NULL";
        assert!(sqlx::query(mine).fetch_one(&mut *other).await.expect(&case).get::<bool, _>(0), "{case}");
        other.commit().await.expect(&case);
    }
    assert!(cuts >= 15, "only {cuts} were cut");
    let mut reader = database.read().await.unwrap();
    let rows = sqlx::query("SELECT n, count(*) FROM mine GROUP BY n ORDER BY n").fetch_all(&mut *reader).await.unwrap();
    let stored: Vec<(i32, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(stored.iter().all(|(_, halves)| *halves == 2), "{stored:?}");
    for (n, committed) in (0..).zip(known) {
        let found = stored.iter().any(|(stored, _)| *stored == n);
        assert!(committed.is_none_or(|committed| committed == found), "transaction {n}: {committed:?}");
    }
}

#[tokio::test]
async fn readers_dropped_in_the_middle_leave_nothing_to_the_next() {
    let (_there, database) = with_table(1).await;
    const LEAVE: [&str; 6] = [
        "BEGIN",
        "BEGIN; SELECT 1/0",
        "SET search_path = nowhere; SET statement_timeout = 4711; SET ROLE pg_monitor",
        "SELECT pg_advisory_lock(7)",
        "LISTEN notifications",
        "CREATE TEMP TABLE scratch (n int)",
    ];
    for n in 0..60_usize {
        let case = format!("`{}`, dropped after {} polls", LEAVE[n % 6], 1 + n / 6);
        let mut reader = database.read().await.expect(&case);
        let delay = Duration::from_micros([0, 1_000][n % 2]);
        cut(run(&mut reader, LEAVE[n % 6]), 1 + n / 6, delay).await;
        if n % 4 == 0 {
            let mut transaction = cut(reader.begin(), 1 + n / 8 % 3, delay).await;
            if let Some(Ok(transaction)) = &mut transaction {
                cut(insert(transaction, 1, 1), 1, delay).await;
            }
        }
        drop(reader);
        assert_clean(&mut database.read().await.expect(&case), &case).await;
        assert_eq!(count(&database).await, 0, "{case}");
    }
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_at_once_and_its_connection_is_used_again() {
    let (_there, database) = with_table(1).await;
    let mut dropped = database.begin().await.unwrap();
    insert(&mut dropped, 1, 1).await.unwrap();
    let before = pid(&mut dropped).await;
    drop(dropped);
    let mut next = database.begin().await.unwrap();
    assert_eq!(pid(&mut next).await, before, "no connection was given up");
    insert(&mut next, 1, 1).await.unwrap();
    next.rollback().await.unwrap();
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn a_dropped_statement_that_still_runs_blocks_no_connection() {
    let (_there, database) = with_table(1).await;
    let mut transaction = database.begin().await.unwrap();
    let endless = tokio::time::timeout(Duration::from_millis(20), run(&mut transaction, "SELECT pg_sleep(60)"));
    endless.await.unwrap_err();
    drop(transaction);
    assert_clean(&mut database.read().await.unwrap(), "after an endless statement").await;
}

#[tokio::test]
async fn a_transaction_dropped_outside_of_a_runtime_is_rolled_back_too() {
    let (_there, database) = with_table(1).await;
    let mut transaction = database.begin().await.unwrap();
    insert(&mut transaction, 1, 1).await.unwrap();
    std::thread::spawn(move || drop(transaction)).join().unwrap();
    let mut next = database.begin().await.unwrap();
    insert(&mut next, 1, 1).await.unwrap();
    next.commit().await.unwrap();
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn what_a_failed_statement_left_cannot_be_committed() {
    let (there, database) = with_table(1).await;
    let mut transaction = database.begin().await.unwrap();
    insert(&mut transaction, 1, 1).await.unwrap();
    let twice = insert(&mut transaction, 1, 1).await.unwrap_err();
    assert!(matches!(database.fault(twice), DatabaseError::Refused { .. }));
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, DatabaseError::Failed { .. }), "{error:?}");
    assert_clean(&mut database.read().await.unwrap(), "after a failed commit").await;
    assert_eq!(count(&database).await, 0);

    // The server answers COMMIT with ROLLBACK there, and sqlx reports success.
    let mut connection = PgConnection::connect(there.url()).await.unwrap();
    let mut trap = connection.begin().await.unwrap();
    insert(&mut trap, 1, 1).await.unwrap();
    insert(&mut trap, 1, 1).await.unwrap_err();
    trap.commit().await.unwrap();
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn a_constraint_that_refuses_the_commit_stores_nothing() {
    let (_there, database) = with_table(1).await;
    let mut transaction = database.begin().await.unwrap();
    let deferred = "ALTER TABLE mine ADD CONSTRAINT pairs UNIQUE (half) DEFERRABLE INITIALLY DEFERRED";
    run(&mut transaction, deferred).await.unwrap();
    transaction.commit().await.unwrap();
    let mut transaction = database.begin().await.unwrap();
    insert(&mut transaction, 1, 1).await.unwrap();
    insert(&mut transaction, 2, 1).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, DatabaseError::Refused { .. }), "{error:?}");
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn a_transaction_that_was_ended_by_sql_is_not_called_committed() {
    let (_there, database) = with_table(1).await;
    for end in ["COMMIT", "ROLLBACK", "COMMIT; BEGIN", "ROLLBACK AND CHAIN"] {
        let mut transaction = database.begin().await.unwrap();
        run(&mut transaction, end).await.unwrap();
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, DatabaseError::OutcomeUnknown { .. }), "{end}: {error:?}");
        assert_clean(&mut database.read().await.unwrap(), end).await;
    }
}

#[tokio::test]
async fn a_transaction_is_read_committed_durable_and_not_idle_for_long_at_any_defaults() {
    let (there, _) = with_table(1).await;
    let mut foreign = PgConnection::connect(there.url()).await.unwrap();
    for (default, durable) in [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
        let defaults = format!(
            "DO $$ BEGIN
                 EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {default}', current_database());
                 EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable',
                                current_database());
             END $$"
        );
        run(&mut foreign, &defaults).await.unwrap();
        let database = PostgresDatabase::open(there.url()).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        assert_eq!(text(&mut transaction, "SHOW transaction_isolation").await, "read committed");
        assert_eq!(text(&mut transaction, "SHOW synchronous_commit").await, durable);
        assert_eq!(text(&mut transaction, "SHOW idle_in_transaction_session_timeout").await, "10s");
    }
}

#[tokio::test]
async fn a_transaction_begun_inside_is_a_savepoint() {
    let (_there, database) = with_table(1).await;
    let mut outer = database.begin().await.unwrap();
    insert(&mut outer, 1, 1).await.unwrap();
    let mut inner = outer.begin().await.unwrap();
    insert(&mut inner, 2, 1).await.unwrap();
    insert(&mut inner, 2, 1).await.unwrap_err();
    inner.rollback().await.unwrap();
    let mut inner = outer.begin().await.unwrap();
    insert(&mut inner, 3, 1).await.unwrap();
    inner.commit().await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(count(&database).await, 2);
}

#[tokio::test]
async fn a_forgotten_transaction_inside_is_cleaned_up_after() {
    let (_there, database) = with_table(1).await;
    let mut outer = database.begin().await.unwrap();
    std::mem::forget(outer.begin().await.unwrap());
    drop(outer);
    assert_clean(&mut database.read().await.unwrap(), "after a forgotten savepoint").await;
    let mut outer = database.begin().await.unwrap();
    insert(&mut outer, 1, 1).await.unwrap();
    std::mem::forget(outer.begin().await.unwrap());
    outer.commit().await.unwrap();
    assert_clean(&mut database.read().await.unwrap(), "after a forgotten savepoint and a commit").await;
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn a_transaction_that_is_idle_for_too_long_is_ended_with_an_error() {
    let (there, _) = with_table(1).await;
    let options = PostgresOptions::new(there.url()).connections(1).idle_timeout(Duration::from_millis(1));
    let database = PostgresDatabase::open_with(&options).await.unwrap();
    for commit in [false, true] {
        let mut transaction = database.begin().await.unwrap();
        wait_until_gone(&there).await;
        if commit {
            let error = transaction.commit().await.unwrap_err();
            // If the socket is closed before the commit can be sent, the server's last message is lost.
            assert!(matches!(error, DatabaseError::Unavailable { .. } | DatabaseError::OutcomeUnknown { .. }));
        } else {
            let error = database.fault(insert(&mut transaction, 1, 1).await.unwrap_err());
            assert!(error.is_transient(), "{error:?}");
        }
    }
    assert_eq!(count(&database).await, 0);
}

/// Waits until there is no other connection.
async fn wait_until_gone(there: &Database) {
    let mut foreign = PgConnection::connect(there.url()).await.unwrap();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while sqlx::query(others).fetch_one(&mut foreign).await.unwrap().get::<i64, _>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_connection_that_broke_while_idle_is_replaced() {
    let (there, database) = with_table(3).await;
    let mut pids = Vec::new();
    let mut all = Vec::new();
    for _ in 0..3 {
        let mut transaction = database.begin().await.unwrap();
        pids.push(pid(&mut transaction).await);
        all.push(transaction);
    }
    for transaction in all {
        transaction.rollback().await.unwrap();
    }
    for pid in pids {
        kill(&there, pid).await;
    }
    let mut transaction = database.begin().await.unwrap();
    insert(&mut transaction, 1, 1).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn a_lost_connection_is_transient_before_the_commit_and_unknown_at_it() {
    let (there, database) = with_table(1).await;
    let begun = async || {
        let mut transaction = database.begin().await.unwrap();
        insert(&mut transaction, 1, 1).await.unwrap();
        let pid = pid(&mut transaction).await;
        kill(&there, pid).await;
        transaction
    };
    let mut transaction: PostgresTransaction = begun().await;
    let error = database.fault(insert(&mut transaction, 1, 2).await.unwrap_err());
    assert!(matches!(error, DatabaseError::Unavailable { .. }), "{error:?}");
    drop(transaction);
    let error = begun().await.commit().await.unwrap_err();
    assert!(matches!(error, DatabaseError::OutcomeUnknown { .. }), "{error:?}");
    begun().await.rollback().await.unwrap_err();
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn transient_errors_are_distinguished_from_permanent_ones() {
    let (there, database) = with_table(2).await;
    for (statement, transient) in [
        ("SELECT nothing", false),
        ("SELECT 1/0", false),
        ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'serialization_failure'; END $$", true),
        ("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)", true),
        ("SET TRANSACTION READ ONLY; INSERT INTO mine VALUES (1, 1)", false),
        ("INSERT INTO mine (n) VALUES (1)", false),
    ] {
        let mut transaction = database.begin().await.unwrap();
        let error = database.fault(run(&mut transaction, statement).await.unwrap_err());
        assert_eq!(error.is_transient(), transient, "{statement}: {error:?}");
        match statement {
            _ if statement.contains("READ ONLY") => assert!(matches!(error, DatabaseError::ReadOnly { .. })),
            _ if statement.contains("mine (n)") => assert!(matches!(error, DatabaseError::Refused { .. })),
            _ => {}
        }
    }
    let alone = PostgresOptions::new(there.url()).connections(1).connection_timeout(Duration::from_millis(500));
    let alone = PostgresDatabase::open_with(&alone).await.unwrap();
    let _taken = alone.read().await.unwrap();
    assert!(alone.begin().await.err().unwrap().is_transient());
    drop(_taken);
    alone.close().await;
    assert!(matches!(alone.begin().await.err().unwrap(), DatabaseError::Closed));
    assert!(matches!(alone.read().await.err().unwrap(), DatabaseError::Closed));
}

#[tokio::test]
async fn deadlocked_transactions_are_distinguished_from_broken_ones() {
    let (_there, database) = with_table(3).await;
    let mut first = database.begin().await.unwrap();
    let mut second = database.begin().await.unwrap();
    insert(&mut first, 1, 1).await.unwrap();
    insert(&mut second, 2, 1).await.unwrap();
    let (one, other) = tokio::join!(insert(&mut first, 2, 1), insert(&mut second, 1, 1));
    // The server rolls back one of them; the other waits for that and continues.
    let error = one.and(other).unwrap_err();
    assert_eq!(code(&error), "40P01");
    assert!(database.fault(error).is_transient());
}

#[tokio::test]
async fn migrations_run_once_and_whole_in_a_database_without_a_store() {
    const GOOD: Migration =
        Migration { component: "mine", number: 1, name: "table", sql: "CREATE TABLE theirs (n int); SELECT 1" };
    const BAD: Migration =
        Migration { component: "mine", number: 2, name: "bad", sql: "CREATE TABLE other (n int); SELECT 1/0" };
    let there = Database::empty().await;
    let database = PostgresDatabase::open(there.url()).await.unwrap();
    let many = (0..4).map(|_| database.migrate(&[GOOD]));
    futures::future::join_all(many).await.into_iter().for_each(|done| done.unwrap());
    database.migrate(&[GOOD, BAD]).await.unwrap_err();
    let mut reader = database.read().await.unwrap();
    assert_clean(&mut reader, "after a failed migration").await;
    assert_eq!(text(&mut reader, "SELECT concat(to_regclass('theirs'), to_regclass('other'))").await, "theirs");
}

/// The chain gave the same text twice, with a line number of the server's own source.
#[tokio::test]
async fn an_error_of_the_server_is_told_once_with_its_code() {
    let (_there, database) = with_table(1).await;
    let mut reader = database.read().await.unwrap();
    let error = sqlx::query("SELECT missing").execute(&mut *reader).await.unwrap_err();
    let error = database.fault(error);
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "column \"missing\" does not exist (SQLSTATE 42703)");
    assert_eq!(format!("{source:?}"), source.to_string());
    assert!(source.source().is_none());
}
