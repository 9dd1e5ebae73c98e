//! An older backup is restored into the file of the events while projections follow it, whose read models are elsewhere.

use std::path::Path;
use std::time::Duration;

use annals_projections::WaitError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::backends::{Backend, block_on};
use super::shop::{OrderList, Sales, placed};

const SOON: Duration = Duration::from_secs(30);

const SALES: &str = "SELECT customer || ' ' || orders || ' ' || cents FROM sales ORDER BY customer";

/// What a restored backup leaves: the first five events, and the numbers behind them to be given out again.
async fn restore_to_five(path: &Path) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    let guard = "SELECT sql FROM sqlite_schema WHERE name = 'events_are_never_deleted'";
    let guard: String = sqlx::query(guard).fetch_one(&mut connection).await.unwrap().get(0);
    let sql = format!(
        "BEGIN IMMEDIATE; DROP TRIGGER events_are_never_deleted; DELETE FROM events WHERE position > 5;
         UPDATE sqlite_sequence SET seq = 5 WHERE name = 'events'; {guard}; COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// They would count 6 to 10 of the lost events together with 11 and 12 of the new ones, and say that they are current.
#[test]
fn read_models_of_a_restored_log_stop_and_are_not_called_current() {
    let backend = Backend::in_two_files();
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(OrderList).with(Sales).start().await.unwrap();
        for n in 1..=10 {
            let position = shop.append(&format!("o-{n}"), &[placed("ann", 10)]).await;
            views.wait_for(position, SOON).await.unwrap();
        }
        assert_eq!(shop.query(SALES).await, ["ann 10 100"]);
        restore_to_five(backend.events_file()).await;
        let mut position = annals_eventstore::Position::START;
        for n in 6..=12 {
            position = shop.append(&format!("p-{n}"), &[placed("ann", 100)]).await;
            let ended = views.wait_for(position, SOON).await;
            assert!(matches!(ended, Err(WaitError::Stopped(_))), "the rows lack event {n}: {ended:?}");
        }
        assert_eq!(position.get(), 12);
        let error = views.wait_for(position, SOON).await.unwrap_err();
        let stopped = views.stopped().await.unwrap_err();
        assert!(format!("{stopped:?}").contains("StoreRewound"), "{error:?}: {stopped:?}");
        assert_eq!(shop.query(SALES).await, ["ann 10 100"], "two histories were mixed");
        views.close().await;
        // Nor after a restart.
        if let Ok(views) = shop.projections().with(Sales).start().await {
            views.wait_for(position, SOON).await.unwrap_err();
            views.close().await;
        }
        assert_eq!(shop.query(SALES).await, ["ann 10 100"]);
        shop.close().await;
    });
}
