//! A deadline is handed to PostgreSQL too, or the server works on for callers that have left.

use std::time::{Duration, Instant};

use annals::PostgresOptions;
use annals::prelude::*;
use annals::resilience::Deadline;
use annals::resilience::deadline::DeadlineOver;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, Row};

type Fault = Box<dyn std::error::Error + Send + Sync>;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// For the transaction that is open only. Without time left nothing is sent.
async fn tell(connection: &mut PgConnection, deadline: Deadline) -> Result<(), Fault> {
    if let Some(millis) = deadline.statement_timeout_ms()? {
        let set = "SELECT set_config('statement_timeout', $1, true)";
        sqlx::query(set).bind(millis.to_string()).execute(connection).await?;
    }
    Ok(())
}

async fn timeout_of(connection: &mut PgConnection) -> Result<String, Fault> {
    Ok(sqlx::query("SELECT current_setting('statement_timeout')").fetch_one(connection).await?.get(0))
}

#[tokio::test]
async fn a_connection_forgets_the_deadline_of_its_last_unit_of_work() -> Result<(), Fault> {
    let scratch = annals_scratch::Database::empty().await;
    let store = PostgresOptions::new(scratch.url()).migrate().connections(2).open().await?;
    for (commits, careless) in [(true, false), (false, false), (true, true)] {
        let (mut one, mut other) = (store.begin().await?, store.begin().await?);
        for unit in [&mut one, &mut other] {
            tell(unit, Deadline::within(ms(200))).await?;
            if careless {
                // For the session: the store takes back what it lends.
                sqlx::query("SET statement_timeout = 200").execute(&mut **unit).await?;
            }
            let left = timeout_of(unit).await?;
            let left: u32 = left.strip_suffix("ms").ok_or(left.clone())?.parse()?;
            assert!((1..=200).contains(&left), "{left}");
        }
        for unit in [one, other] {
            if commits { unit.commit().await? } else { unit.rollback().await? }
        }
        let (mut one, mut other) = (store.begin().await?, store.begin().await?);
        for unit in [&mut one, &mut other] {
            assert_eq!(timeout_of(unit).await?, "0");
        }
        let (slow, slow_too) = ("SELECT pg_sleep(0.3)", "SELECT pg_sleep(0.3)");
        tokio::try_join!(sqlx::query(slow).execute(&mut *one), sqlx::query(slow_too).execute(&mut *other))?;
        one.rollback().await?;
        other.rollback().await?;
    }
    store.close().await;
    Ok(())
}

#[tokio::test]
async fn a_rest_below_a_millisecond_is_a_limit_and_no_rest_sends_nothing() -> Result<(), Fault> {
    let scratch = annals_scratch::Database::empty().await;
    let pool = PgPoolOptions::new().max_connections(1).connect(scratch.url()).await?;
    let mut transaction = pool.begin().await?;
    // Sent as it is computed here, since time goes on.
    let least = Deadline::within(Duration::from_micros(400)).statement_timeout_ms();
    assert!(matches!(least, Ok(Some(1)) | Err(DeadlineOver)), "{least:?}");
    let set = "SELECT set_config('statement_timeout', '1', true)";
    sqlx::query(set).execute(&mut *transaction).await?;
    let error = sqlx::query("SELECT pg_sleep(1)").execute(&mut *transaction).await.unwrap_err();
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("57014"));
    transaction.rollback().await?;
    let mut transaction = pool.begin().await?;
    let over = tell(&mut transaction, Deadline::within(Duration::ZERO)).await.unwrap_err();
    assert!(over.is::<DeadlineOver>());
    assert_eq!(timeout_of(&mut transaction).await?, "0");
    Ok(())
}

#[tokio::test]
async fn four_statements_on_two_connections_end_at_their_deadline_and_so_does_the_server() -> Result<(), Fault> {
    let scratch = annals_scratch::Database::empty().await;
    let pool = PgPoolOptions::new().min_connections(2).max_connections(2).connect(scratch.url()).await?;
    let deadline = Deadline::within(ms(200));
    let begin = Instant::now();
    let call = || {
        deadline.run(async {
            let mut transaction = pool.begin().await?;
            tell(&mut transaction, deadline).await?;
            sqlx::query("SELECT pg_sleep(5)").execute(&mut *transaction).await?;
            Ok::<_, Fault>(())
        })
    };
    let answers: [_; 4] = tokio::join!(call(), call(), call(), call()).into();
    let took = begin.elapsed();
    assert!(took >= ms(195) && took < ms(1_000), "{took:?}");
    assert!(answers.iter().all(|answer| !matches!(answer, Ok(Ok(())))), "{answers:?}");
    // Nobody waits any more, and the server does not go on either.
    let mut look = PgPoolOptions::new().max_connections(1).connect(scratch.url()).await?.acquire().await?;
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    while sqlx::query(busy).fetch_one(&mut *look).await?.get::<i64, _>(0) > 0 {
        assert!(begin.elapsed() < ms(2_500), "the server still works for callers that have left");
        tokio::time::sleep(ms(10)).await;
    }
    sqlx::query("SELECT 1").execute(&pool).await?;
    Ok(())
}
