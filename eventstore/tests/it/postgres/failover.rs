//! A failover to a server that had not got everything: what the primary had acknowledged is lost, and others write there.

use annals_eventstore::{
    AggregateStore, Append, AppendError, EventStore, EventStoreExt, ExecuteError, PostgresOptions, PostgresStore,
    StreamVersion, UnitOfWork,
};
use annals_scratch::{Server, Stop};
use sqlx::{Connection, PgConnection};

use super::{Fixture, run};
use crate::order::{Order, OrderError, OrderEvent, OrderId};

const LATE: OrderError = OrderError::WrongAmount { due: 99_00 };

/// Other events in the place of the lost ones.
async fn place_instead(other: &PostgresStore, id: &OrderId) {
    let done = other.aggregate::<Order>().execute(id, |order| order.place(99_00)).await.unwrap();
    assert_eq!((done.version.get(), done.events), (1, 1));
}

/// State that was cached before the failover causes no wrong decision: the order is placed with 99.00 now.
async fn check_decided_again(store: &PostgresStore, orders: [annals_eventstore::Repository<Order>; 3], id: &OrderId) {
    let [first, second, third] = orders;
    let before = first.stream(id).unwrap();
    // As known by the cache, in a unit of work, and by a load.
    let error = first.execute(id, |order| order.pay(12_00)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Rejected(LATE)), "{error:?}");
    let mut unit = store.begin().await.unwrap();
    let error = unit.execute(&second, id, |order| order.pay(12_00)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Rejected(LATE)), "{error:?}");
    unit.rollback().await.unwrap();
    assert_eq!(third.load(id).await.unwrap().state.due, Some(99_00));
    let page = store.load_page(&before, StreamVersion::NONE, 10).await.unwrap();
    assert_eq!(page.events.len(), 1);
    // And the store is usable.
    first.execute(id, |order| order.pay(99_00)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_decided_on_events_that_a_failover_has_lost_is_decided_again() {
    let primary = Server::start(&[]);
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join("at");
    std::os::unix::fs::symlink(primary.folder(), &link).unwrap();
    let url = Server::url_at(&link, "postgres");
    let store = PostgresOptions::new(&url).migrate().open().await.unwrap();
    let second = tokio::task::block_in_place(|| {
        let standby = primary.standby();
        standby.stop(Stop::Fast);
        standby
    });
    let id = OrderId::new("o-17").unwrap();
    let orders = [(); 3].map(|()| store.aggregate::<Order>());
    orders[0].execute(&id, |order| order.place(12_00)).await.unwrap();
    let known = orders[1].load(&id).await.unwrap();
    orders[2].load(&id).await.unwrap();

    tokio::task::block_in_place(|| {
        primary.stop(Stop::Immediate);
        second.start_again();
        second.promote();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(second.folder(), &link).unwrap();
    });
    let other = PostgresOptions::new(second.url("postgres")).open().await.unwrap();
    place_instead(&other, &id).await;

    // What was loaded before is refused too, on every way that an append takes.
    for count in [1, 2, 100] {
        let paid = |_| store.new_event(&OrderEvent::Paid { amount: 12_00 }).unwrap();
        let append = Append::to(known.stream.clone(), known.expected(), (0..count).map(paid).collect());
        // The first call finds the connection broken.
        let mut answer = store.append_many(append.clone()).await;
        while answer.as_ref().is_err_and(|error| !error.settles_outcome()) {
            answer = store.append_many(append.clone()).await;
        }
        let error = answer.unwrap_err();
        let AppendError::WrongExpectedVersion { expected, actual, .. } = &error else { panic!("{error}") };
        assert_eq!((*expected, actual.get()), (known.expected(), 1), "{count}");
    }
    check_decided_again(&store, orders, &id).await;
}

/// A backup that is restored without a restart of the server, so that connections stay open.
#[tokio::test]
async fn a_command_decided_on_events_that_a_restore_has_taken_back_is_decided_again() {
    let fixture = Fixture::new().await;
    let id = OrderId::new("o-17").unwrap();
    let orders = [(); 3].map(|()| fixture.store.aggregate::<Order>());
    for orders in &orders {
        orders.execute(&id, |order| order.place(12_00)).await.unwrap();
        orders.load(&id).await.unwrap();
    }
    let mut admin = PgConnection::connect(fixture.database.url()).await.unwrap();
    let restore = "BEGIN;
                   ALTER TABLE annals.events DISABLE TRIGGER events_are_never_deleted;
                   DELETE FROM annals.events;
                   ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_are_never_deleted;
                   COMMIT";
    run(&mut admin, restore).await.unwrap();
    let other = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    place_instead(&other, &id).await;
    check_decided_again(&fixture.store, orders, &id).await;
}
