//! What holds wherever the events and the read models are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{Position, Recorded};
use annals_macros::ReadModel;
use annals_projections::{EffectKey, Projection, ProjectionError, Reactor, ReactorError, Rows, StartError};
use jiff::Timestamp;

use super::backends::{Backend, block_on, until_at};
pub(crate) use super::evolving::events_that_changed_are_folded_as_what_they_mean_today;
use super::shop::{Balances, OrderEvent, OrderList, OrderRow, Sales, Status, placed};

/// Plenty, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const ORDERS: &str = "SELECT order_id || ' ' || customer || ' ' || status || ' ' || cents || ' ' || history \
                      FROM order_list ORDER BY order_id";
const SALES: &str = "SELECT customer || ' ' || orders || ' ' || cents FROM sales ORDER BY customer";

pub(crate) fn read_models_are_tables_that_follow_the_events(backend: Backend) {
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(OrderList).with(Sales).start().await.unwrap();
        shop.append("o-1", &[placed("ann", 1_200), OrderEvent::Paid]).await;
        shop.append("o-2", &[placed("bob", 750)]).await;
        shop.append("o-3", &[placed("ann", 50), OrderEvent::Cancelled]).await;
        let position = shop.append("o-2", &[OrderEvent::Paid]).await;
        views.wait_for(position, SOON).await.unwrap();
        let orders: Vec<String> = shop.query(ORDERS).await.iter().map(|order| order.replace(", ", ",")).collect();
        assert_eq!(orders, ["o-1 ann paid 1200 [\"placed\",\"paid\"]", "o-2 bob paid 750 [\"placed\",\"paid\"]"]);
        assert_eq!(shop.query(SALES).await, ["ann 2 1250", "bob 1 750"]);
        views.close().await;
        shop.close().await;
    });
}

pub(crate) fn a_restart_continues_and_a_broken_event_stops_one_projection_alone(backend: Backend) {
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(OrderList).with(Sales).start().await.unwrap();
        shop.append("o-1", &[placed("ann", 5)]).await;
        shop.append("o-2", &[placed("ann", -5)]).await;
        let position = shop.append("o-3", &[placed("ann", 7)]).await;
        views.wait_for_one::<Sales>(position, SOON).await.unwrap();
        let stopped = views.stopped().await.unwrap_err();
        assert_eq!(
            stopped.to_string(),
            "projection `order_list` (version 1) stopped before event `order.placed` at position 2 (`default/order/o-2`, version 1): \
             it could not apply the event; fix the fold and start again, then it continues with this event: \
             an order cannot cost less than nothing"
        );
        views.close().await;
        shop.close().await;

        let shop = backend.open().await;
        let views = shop.projections().with(Sales).with(OrderList).start().await.unwrap();
        views.wait_for_one::<Sales>(position, SOON).await.unwrap();
        assert_eq!(views.stopped().await.unwrap_err().event, stopped.event);
        assert_eq!(shop.query(SALES).await, ["ann 3 7"]);
        assert_eq!(shop.query("SELECT order_id FROM order_list").await, ["o-1"]);
        let applied = views.status()[0].applied;
        assert_eq!(applied, 0, "what was applied before the restart is not applied again");
        views.close().await;
        shop.close().await;
    });
}

pub(crate) fn two_processes_apply_every_event_once(backend: Backend) {
    block_on(async {
        // Two sets of handles share nothing but the databases, as two processes do.
        let (one, two) = (backend.open().await, backend.open().await);
        let first = one.projections().with(Sales).start().await.unwrap();
        let second = two.projections().with(Sales).start().await.unwrap();
        let mut last = Position::START;
        for n in 0..60 {
            let shop = if n % 2 == 0 { &one } else { &two };
            last = shop.append(&format!("o-{n}"), &[placed("ann", 1), placed("bob", 2)]).await;
        }
        first.wait_for(last, SOON).await.unwrap();
        second.wait_for(last, SOON).await.unwrap();
        until_at(&first, last).await;
        until_at(&second, last).await;
        assert_eq!(one.query(SALES).await, ["ann 60 60", "bob 60 120"]);
        let applied: u64 = [&first, &second].iter().map(|views| views.status()[0].applied).sum();
        assert_eq!(applied, 120);
        first.close().await;
        second.close().await;
    });
}

/// What one process has read and not stored may be applied in part by the other; amounts that only grow would not show it.
pub(crate) fn events_that_cancel_out_are_each_applied_once_by_two_processes(backend: Backend) {
    block_on(async {
        let (one, two) = (backend.open().await, backend.open().await);
        let first = one.projections().with(Balances).start().await.unwrap();
        let second = two.projections().with(Balances).start().await.unwrap();
        let mut last = Position::START;
        let mut balance = 0;
        for n in 0..150 {
            let shop = if n % 2 == 0 { &one } else { &two };
            let cents = [1, -1, 5, -5, 0][fastrand::usize(..5)];
            balance += cents;
            let events = [placed("ann", cents), placed("bob", 3), placed("bob", -3)];
            last = shop.append(&format!("o-{n}"), &events[..1 + n % 3]).await;
        }
        first.wait_for(last, SOON).await.unwrap();
        second.wait_for(last, SOON).await.unwrap();
        let bob = 3 * 50;
        let expected = [("ann", balance), ("bob", bob)].into_iter().filter(|(_, cents)| *cents != 0);
        let expected: Vec<String> = expected.map(|(who, cents)| format!("{who} {cents}")).collect();
        assert_eq!(one.query("SELECT customer || ' ' || cents FROM balances ORDER BY customer").await, expected);
        first.close().await;
        second.close().await;
    });
}

/// Kills the runtime, and with it every task at whatever it is doing, again and again.
pub(crate) fn whenever_the_process_dies_rows_and_checkpoint_agree(backend: Backend) {
    let mut expected = 0;
    for run in 0..8_i64 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let shop = backend.open().await;
            let views = shop.projections().with(Sales).start().await.unwrap();
            let mut last = Position::START;
            for n in 0..20 + run {
                last = shop.append(&format!("o-{run}-{n}"), &[placed("ann", 1)]).await;
                expected += 1;
            }
            // A different share of it is done in each run.
            let reached = Position::new(last.get() - (run * 3) % 20).unwrap();
            views.wait_for(reached, SOON).await.unwrap();
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(Sales).start().await.unwrap();
        views.wait_for(shop.store().head().await.unwrap().position, SOON).await.unwrap();
        assert_eq!(shop.query(SALES).await, [format!("ann {expected} {expected}")]);
        views.close().await;
        shop.close().await;
    });
}

/// A mail service that knows the keys of what it was asked for. It is outside, so it outlives the processes.
#[derive(Clone, Default)]
struct Mails(Arc<Mutex<BTreeMap<String, BTreeSet<EffectKey>>>>);

impl Reactor for Mails {
    type Event = OrderEvent;
    const NAME: &'static str = "mails";

    async fn react(&self, event: &Recorded<OrderEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mail = format!("{} {}", event.stream.aggregate_id(), event.version.get());
        self.0.lock().unwrap().entry(mail).or_default().insert(*key);
        Ok(())
    }
}

/// Kills the runtime, and with it every handler at whatever it is doing, again and again.
pub(crate) fn whenever_the_process_dies_mails_are_sent_again_under_their_keys_and_none_is_missing(backend: Backend) {
    let mails = Mails::default();
    let start =
        async |shop: &crate::backends::Shop| shop.projections().with(Sales).react(mails.clone()).start().await.unwrap();
    block_on(async {
        let shop = backend.open().await;
        shop.append("history", &[placed("ann", 1)]).await;
        start(&shop).await.close().await;
        shop.close().await;
    });
    for run in 0..5_i64 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let shop = backend.open().await;
            let views = start(&shop).await;
            let reached = views.reactors()[0].position.get() + run * 3;
            for n in 0..12 {
                shop.append(&format!("o-{}", n % 5), &[placed("ann", 1), OrderEvent::Paid]).await;
            }
            while views.reactors()[0].position.get() < reached {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
    block_on(async {
        let shop = backend.open().await;
        let views = start(&shop).await;
        let head = shop.store().head().await.unwrap().position;
        while views.reactors()[0].position < head {
            assert!(views.reactors()[0].state.is_running(), "{:?}", views.reactors());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        views.close().await;
        shop.close().await;
    });
    let mails = mails.0.lock().unwrap();
    assert_eq!(mails.len(), 5 * 24, "every event, and none of the history");
    assert!(mails.values().all(|keys| keys.len() == 1), "each under one key: {mails:?}");
}

/// The list with a column more, under the same version and under the next.
#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id")]
pub(crate) struct WiderRow {
    order_id: String,
    customer: String,
    note: Option<String>,
    status: Status,
    cents: i64,
    changed_at: Timestamp,
    #[column(json)]
    history: Vec<String>,
}

pub(crate) struct Wider<const VERSION: u32>;

impl<const VERSION: u32> Projection for Wider<VERSION> {
    type Event = OrderEvent;
    type Row = WiderRow;
    const VERSION: u32 = VERSION;

    fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<WiderRow>) -> Result<(), ProjectionError> {
        if let OrderEvent::Placed { customer, cents } = &event.event {
            rows.upsert(WiderRow {
                order_id: event.stream.aggregate_id().to_owned(),
                customer: customer.clone(),
                note: Some("wide".to_owned()),
                status: Status::Placed,
                cents: *cents,
                changed_at: event.recorded_at,
                history: Vec::new(),
            });
        }
        Ok(())
    }
}

/// The list with fewer columns, and one of another type.
#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id")]
struct NarrowRow {
    order_id: String,
    customer: String,
    status: Status,
    cents: String,
    changed_at: Timestamp,
}

struct Narrow;

impl Projection for Narrow {
    type Event = OrderEvent;
    type Row = NarrowRow;
    const VERSION: u32 = 2;

    fn apply(&self, _: &Recorded<OrderEvent>, _: &mut Rows<NarrowRow>) -> Result<(), ProjectionError> {
        Ok(())
    }
}

pub(crate) fn another_shape_needs_a_raised_version_which_is_shown_when_it_is_complete(backend: Backend) {
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(OrderList).start().await.unwrap();
        let position = shop.append("o-1", &[placed("ann", 5)]).await;
        views.wait_for(position, SOON).await.unwrap();
        views.close().await;

        let error = shop.projections().with(Wider::<1>).start().await.expect_err("it must be refused");
        assert!(matches!(&error, StartError::ShapeChanged { .. }), "{error}");
        assert!(error.to_string().ends_with("raise its `VERSION` to build it anew"), "{error}");

        let error = shop.projections().with(Narrow).start().await.expect_err("it must be refused");
        assert_eq!(
            error.to_string(),
            "projection `order_list` (version 2) lacks what queries of `order_list` find today in version 1: `cents` was \
             integer and is text, `history` is gone; keep it, or give the read model a new table name"
        );

        let views = shop.projections().with(Wider::<2>).start().await.unwrap();
        views.wait_for(position, SOON).await.unwrap();
        let position = shop.append("o-2", &[placed("bob", 5)]).await;
        views.wait_for(position, SOON).await.unwrap();
        assert_eq!(shop.query("SELECT order_id || note FROM order_list ORDER BY 1").await, ["o-1wide", "o-2wide"]);
        assert_eq!(shop.query("SELECT order_id FROM order_list_v1").await, ["o-1"], "the old table is kept");
        views.close().await;
        shop.close().await;
    });
}

/// Events keep coming, so that the new version is a little behind the old one nearly all the time.
pub(crate) fn a_raised_version_takes_the_name_under_load_and_no_event_that_was_seen_is_gone(backend: Backend) {
    block_on(async {
        let (shop, other) = (backend.open().await, backend.open().await);
        let older = shop.projections().with(OrderList).start().await.unwrap();
        let load = async {
            for n in 0.. {
                other.append(&format!("load-{n}"), &[placed("bob", 1)]).await;
            }
        };
        let deploy = async {
            let newer = other.projections().with(Wider::<2>).start().await.unwrap();
            let shown = format!("SELECT CAST(version AS TEXT) FROM {}", shop.table_of_names());
            let (mut n, mut after) = (0, 0);
            while after < 10 {
                let position = shop.append(&format!("o-{n}"), &[placed("ann", 1)]).await;
                for views in [&older, &newer] {
                    views.wait_for(position, SOON).await.unwrap();
                    let found = format!("SELECT order_id FROM order_list WHERE order_id = 'o-{n}'");
                    assert_eq!(shop.query(&found).await.len(), 1, "event {n}");
                }
                n += 1;
                after += usize::from(shop.query(&shown).await == ["2"]);
            }
            newer.close().await;
        };
        tokio::select! {
            () = load => unreachable!("it never ends"),
            done = tokio::time::timeout(SOON, deploy) => done.expect("the name is switched"),
        }
        older.close().await;
    });
}

pub(crate) fn a_table_that_somebody_drops_stops_its_projection_and_says_so(backend: Backend) {
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(OrderList).with(Sales).start().await.unwrap();
        shop.run("DROP VIEW order_list").await;
        shop.run("DROP TABLE order_list_v1").await;
        let position = shop.append("o-1", &[placed("ann", 5)]).await;
        views.wait_for_one::<Sales>(position, SOON).await.unwrap();
        let stopped = views.stopped().await.unwrap_err();
        assert_eq!(&*stopped.projection, "order_list");
        assert!(stopped.cause.to_string().contains("the database of the read models refused"), "{stopped:?}");
        assert_eq!(shop.query(SALES).await, ["ann 1 5"]);
        views.close().await;
        // Started again, it is built anew.
        let views = shop.projections().with(OrderList).start().await.unwrap();
        views.wait_for(position, SOON).await.unwrap();
        assert_eq!(shop.query("SELECT order_id FROM order_list").await, ["o-1"]);
        views.close().await;
        shop.close().await;
    });
}

/// Writers commit in any order; a projection that stepped over one that is late would count too little.
pub(crate) fn events_of_many_writers_are_each_counted_once(backend: Backend) {
    const WRITERS: usize = 8;
    const APPENDS: usize = 40;
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(Sales).with(OrderList).start().await.unwrap();
        let others = [backend.open().await, backend.open().await];
        let writers = (0..WRITERS).map(|writer| {
            let shop = &others[writer % others.len()];
            async move {
                let mut last = Position::START;
                for n in 0..APPENDS {
                    // Short and long appends race, so that the numbers of some become visible late.
                    let events = vec![placed(&format!("customer-{}", writer % 3), 1); 1 + (n * writer) % 25];
                    last = last.max(shop.append(&format!("o-{writer}-{n}"), &events).await);
                }
                last
            }
        });
        let last = futures::future::join_all(writers).await.into_iter().max().unwrap();
        views.wait_for(last, SOON).await.unwrap();
        until_at(&views, last).await;
        let expected: usize = (0..WRITERS).map(|w| (0..APPENDS).map(|n| 1 + (n * w) % 25).sum::<usize>()).sum();
        let total = shop.query("SELECT CAST(sum(orders) AS TEXT) || ' ' || CAST(sum(cents) AS TEXT) FROM sales").await;
        assert_eq!(total, [format!("{expected} {expected}")]);
        let orders = shop.query("SELECT CAST(count(*) AS TEXT) FROM order_list").await;
        assert_eq!(orders, [(WRITERS * APPENDS).to_string()]);
        assert_eq!(views.status()[0].applied, expected as u64);
        views.close().await;
    });
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
