//! Projections of a SQLite store into the same file, and into another.

use std::time::Duration;

use annals_eventstore::{EventStore, Position, Recorded, SqliteDatabase};
use annals_macros::ReadModel;
use annals_projections::{Projection, ProjectionError, Projections, ProjectionsExt, Rows, StartError};

use super::shop::{OrderEvent, OrderList, OrderRow, Sales, append, open, placed, query};

/// Plenty, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const ORDERS: &str = "SELECT order_id || ' ' || customer || ' ' || status || ' ' || cents || ' ' || history \
                      FROM order_list ORDER BY order_id";
const SALES: &str = "SELECT customer || ' ' || orders || ' ' || cents FROM sales ORDER BY customer";

#[tokio::test]
async fn read_models_are_tables_beside_the_events() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("shop.db")).await;
    let views = store.projections().with(OrderList).with(Sales).start().await.unwrap();
    append(&store, "o-1", &[placed("ann", 1_200), OrderEvent::Paid]).await;
    append(&store, "o-2", &[placed("bob", 750)]).await;
    append(&store, "o-3", &[placed("ann", 50), OrderEvent::Cancelled]).await;
    let position = append(&store, "o-2", &[OrderEvent::Paid]).await;
    views.wait_for(position, SOON).await.unwrap();
    assert_eq!(
        query(&store, ORDERS).await,
        ["o-1 ann paid 1200 [\"placed\",\"paid\"]", "o-2 bob paid 750 [\"placed\",\"paid\"]"]
    );
    assert_eq!(query(&store, SALES).await, ["ann 2 1250", "bob 1 750"]);
    views.close().await;
    store.close().await;
}

#[tokio::test]
async fn read_models_may_live_in_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("shop.db")).await;
    let database = SqliteDatabase::open(folder.path().join("views.db")).await.unwrap();
    let start = || Projections::over(store.clone()).into_database(database.clone()).with(OrderList).start();
    let views = start().await.unwrap();
    let position = append(&store, "o-1", &[placed("ann", 1)]).await;
    views.wait_for(position, SOON).await.unwrap();
    views.close().await;
    let position = append(&store, "o-2", &[placed("ann", 2)]).await;
    let views = start().await.unwrap();
    views.wait_for(position, SOON).await.unwrap();
    assert_eq!(views.status()[0].applied, 1);
    let mut reader = database.read().await.unwrap();
    let rows = sqlx::query("SELECT order_id FROM order_list ORDER BY order_id").fetch_all(&mut *reader).await.unwrap();
    assert_eq!(rows.len(), 2);
    views.close().await;
}

#[tokio::test]
async fn a_restart_goes_on_and_a_broken_event_stops_one_projection_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let store = open(&path).await;
    let views = store.projections().with(OrderList).with(Sales).start().await.unwrap();
    append(&store, "o-1", &[placed("ann", 5)]).await;
    append(&store, "o-2", &[placed("ann", -5)]).await;
    let position = append(&store, "o-3", &[placed("ann", 7)]).await;
    views.wait_for_one::<Sales>(position, SOON).await.unwrap();
    let stopped = views.stopped().await.unwrap_err();
    assert_eq!(
        stopped.to_string(),
        "projection `order_list` (version 1) stopped before event `order.placed` at position 2 (`default/order/o-2`, version 1)"
    );
    views.close().await;
    store.close().await;

    let store = open(&path).await;
    let views = store.projections().with(Sales).with(OrderList).start().await.unwrap();
    views.wait_for_one::<Sales>(position, SOON).await.unwrap();
    assert_eq!(views.stopped().await.unwrap_err().event, stopped.event);
    assert_eq!(query(&store, SALES).await, ["ann 3 7"]);
    assert_eq!(query(&store, "SELECT order_id FROM order_list").await, ["o-1"]);
    views.close().await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_with_one_file_apply_every_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    // Two handles share nothing but the file, as two processes do.
    let (one, two) = (open(&path).await, open(&path).await);
    let first = one.projections().with(Sales).start().await.unwrap();
    let second = two.projections().with(Sales).start().await.unwrap();
    let mut last = Position::START;
    for n in 0..60 {
        let store = if n % 2 == 0 { &one } else { &two };
        last = append(store, &format!("o-{n}"), &[placed("ann", 1), placed("bob", 2)]).await;
    }
    first.wait_for(last, SOON).await.unwrap();
    second.wait_for(last, SOON).await.unwrap();
    assert_eq!(query(&one, SALES).await, ["ann 60 60", "bob 60 120"]);
    let applied: u64 = [&first, &second].iter().map(|views| views.status()[0].applied).sum();
    assert_eq!(applied, 120);
    first.close().await;
    second.close().await;
}

/// Kills the runtime, and with it every task at whatever it is doing, again and again.
#[test]
fn whenever_the_process_dies_rows_and_checkpoint_agree() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let mut expected = 0;
    for life in 0..12_u64 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        expected = runtime.block_on(async {
            let store = open(&path).await;
            let views = store.projections().with(Sales).start().await.unwrap();
            let mut last = Position::START;
            for n in 0..20 + life {
                last = append(&store, &format!("o-{life}-{n}"), &[placed("ann", 1)]).await;
            }
            // A different share of it is done in each life.
            let reached = Position::new(last.get() - (life as i64 * 3) % 20).unwrap();
            views.wait_for(reached, SOON).await.unwrap();
            last.get()
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&path).await;
        let views = store.projections().with(Sales).start().await.unwrap();
        views.wait_for(store.head().await.unwrap().position, SOON).await.unwrap();
        assert_eq!(query(&store, SALES).await, [format!("ann {expected} {expected}")]);
        views.close().await;
        store.close().await;
    });
}

/// The list with a column more, under the same version and under the next.
#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id")]
struct WiderRow {
    order_id: String,
    customer: String,
    note: Option<String>,
}

struct Wider<const VERSION: u32>;

impl<const VERSION: u32> Projection for Wider<VERSION> {
    type Event = OrderEvent;
    type Row = WiderRow;
    const VERSION: u32 = VERSION;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<WiderRow>) -> Result<(), ProjectionError> {
        if let OrderEvent::Placed { customer, .. } = &event.event {
            let order_id = event.stream.aggregate_id().to_owned();
            rows.upsert(WiderRow { order_id, customer: customer.clone(), note: Some("wide".to_owned()) });
        }
        Ok(())
    }
}

#[tokio::test]
async fn another_shape_needs_a_raised_version_which_is_shown_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("shop.db")).await;
    let views = store.projections().with(OrderList).start().await.unwrap();
    let position = append(&store, "o-1", &[placed("ann", 5)]).await;
    views.wait_for(position, SOON).await.unwrap();
    views.close().await;

    let error = store.projections().with(Wider::<1>).start().await.err().expect("it must be refused");
    assert!(matches!(&error, StartError::ShapeChanged { .. }), "{error}");
    assert!(error.to_string().ends_with("raise its `VERSION` to build it anew"), "{error}");

    let views = store.projections().with(Wider::<2>).start().await.unwrap();
    views.wait_for(position, SOON).await.unwrap();
    let position = append(&store, "o-2", &[placed("bob", 5)]).await;
    views.wait_for(position, SOON).await.unwrap();
    assert_eq!(query(&store, "SELECT order_id || note FROM order_list ORDER BY 1").await, ["o-1wide", "o-2wide"]);
    assert_eq!(query(&store, "SELECT order_id FROM order_list_v1").await, ["o-1"], "the old table is kept");
    views.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_table_that_somebody_drops_stops_its_projection_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("shop.db")).await;
    let views = store.projections().with(OrderList).with(Sales).start().await.unwrap();
    let mut transaction = store.database().begin().await.unwrap();
    sqlx::query("DROP TABLE order_list_v1").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let position = append(&store, "o-1", &[placed("ann", 5)]).await;
    views.wait_for_one::<Sales>(position, SOON).await.unwrap();
    let stopped = views.stopped().await.unwrap_err();
    assert_eq!(&*stopped.projection, "order_list");
    assert!(stopped.cause.to_string().contains("the database of the read models refused"), "{stopped:?}");
    assert_eq!(query(&store, SALES).await, ["ann 1 5"]);
    views.close().await;
    store.close().await;
}

/// Rows as the derive gives them fit the table as the derive declares it.
#[test]
fn a_derived_row_has_a_value_for_every_column() {
    use annals_projections::ReadModel;

    let row = OrderRow {
        order_id: "o".to_owned(),
        customer: "c".to_owned(),
        status: super::shop::Status::Paid,
        cents: 1,
        changed_at: jiff::Timestamp::UNIX_EPOCH,
        history: Vec::new(),
    };
    OrderRow::TABLE.check().unwrap();
    let columns = row.to_columns();
    assert_eq!(columns.len(), OrderRow::TABLE.columns.len());
    let again = OrderRow::from_columns(&mut columns.clone().into_iter()).unwrap();
    assert_eq!(again.to_columns(), columns);
}
