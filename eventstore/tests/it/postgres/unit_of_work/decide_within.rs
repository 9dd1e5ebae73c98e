//! Commands of aggregates inside a unit of work.

use std::sync::atomic::{AtomicUsize, Ordering};

use annals_eventstore::{
    AggregateStore, Append, Context, ErrorFamily, EventStore, EventStoreExt, ExecuteError, Fingerprint, NewEvent,
    PostgresOptions, RequestKey, Tenant, UnitOfWork,
};
use sqlx::Row;

use super::{ANY, Fixture, NO_STREAM, blocked, heads, own_row};

#[expect(unreachable_pub, reason = "the examples of the documentation share it")]
mod order {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs"));
}
use order::{Order, OrderError, OrderEvent, OrderId};

fn id() -> OrderId {
    OrderId::new("o-17").unwrap()
}

#[tokio::test]
async fn a_decision_sees_what_its_own_unit_has_appended_and_the_cache_only_what_was_committed() {
    let fixture = Fixture::with_table().await;
    let orders = fixture.store.aggregate::<Order>();
    let mut unit = fixture.store.begin().await.unwrap();
    unit.execute(&orders, &id(), |order| order.place(9)).await.unwrap();
    unit.rollback().await.unwrap();
    assert!(!orders.load(&id()).await.unwrap().exists());
    let mut unit = fixture.store.begin().await.unwrap();
    let placed = unit.execute(&orders, &id(), |order| order.place(1_200)).await.unwrap();
    let refused = unit.execute(&orders, &id(), |order| order.pay(700)).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(OrderError::WrongAmount { due: 1_200 }))), "{refused:?}");
    let paid = unit.execute(&orders, &id(), |order| order.pay(1_200)).await.unwrap();
    let nothing = unit.execute(&orders, &id(), |order| order.pay(1_200)).await.unwrap();
    assert_eq!((placed.version.get(), paid.version.get(), nothing.events), (1, 2, 0));
    unit.commit().await.unwrap();
    assert!(orders.load(&id()).await.unwrap().state.paid);
}

#[tokio::test]
async fn a_command_is_decided_again_when_another_writer_came_between() {
    let fixture = Fixture::with_table().await;
    let orders = fixture.store.aggregate::<Order>();
    orders.execute(&id(), |order| order.place(1_200)).await.unwrap();
    let mut rival = fixture.store.begin().await.unwrap();
    rival.execute(&orders, &id(), |order| order.pay(1_200)).await.unwrap();
    let mut unit = fixture.store.begin().await.unwrap();
    own_row(&mut unit, 1).await.unwrap();
    let again = orders.clone();
    let waiting = tokio::spawn(async move {
        let decided = AtomicUsize::new(0);
        let pay = |order: &Order| {
            decided.fetch_add(1, Ordering::Relaxed);
            order.pay(1_200)
        };
        let done = unit.execute(&again, &id(), pay).await;
        unit.commit().await.unwrap();
        (decided.into_inner(), done)
    });
    blocked(&fixture).await;
    rival.commit().await.unwrap();
    let (decided, done) = waiting.await.unwrap();
    // The second time the order is paid already, so nothing is to be done.
    assert_eq!((decided, done.unwrap().events), (2, 0));
    assert_eq!(fixture.stored().await, (heads(&[("o-17", 2)]), vec![1]));
}

#[tokio::test]
async fn a_command_that_loses_every_attempt_gets_the_conflict_and_the_unit_stays_usable() {
    let fixture = Fixture::with_table().await;
    let orders = fixture.store.aggregate::<Order>().attempts(1);
    let mut rival = fixture.store.begin().await.unwrap();
    rival.execute(&orders, &id(), |order| order.place(1)).await.unwrap();
    let mut unit = fixture.store.begin().await.unwrap();
    let waiting = tokio::spawn(async move {
        let done = unit.execute(&orders, &id(), |order| order.place(2)).await;
        (unit, done)
    });
    blocked(&fixture).await;
    rival.commit().await.unwrap();
    let (mut unit, done) = waiting.await.unwrap();
    let error = done.unwrap_err();
    assert_eq!(error.family(), Some(ErrorFamily::Conflict), "{error:?}");
    own_row(&mut unit, 1).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(fixture.stored().await, (heads(&[("o-17", 1)]), vec![1]));
}

#[tokio::test]
async fn a_request_has_one_effect_within_and_across_units() {
    let fixture = Fixture::with_table().await;
    let request = RequestKey::new("form-1", Fingerprint::of(&1_200).unwrap()).unwrap();
    let orders = fixture.store.aggregate::<Order>().with(Context::of(Tenant::default()).with_request(request));
    let mut unit = fixture.store.begin().await.unwrap();
    for repeated in [false, true] {
        let done = unit.execute(&orders, &id(), |order| order.place(1_200)).await.unwrap();
        assert_eq!((done.version.get(), done.repeated), (1, repeated));
    }
    // One that comes at the same time waits for the first, and gets its answer.
    let mut rival = fixture.store.begin().await.unwrap();
    let same = orders.clone();
    let waiting = tokio::spawn(async move {
        let done = rival.execute(&same, &id(), |order| order.place(1_200)).await;
        rival.commit().await.unwrap();
        done
    });
    blocked(&fixture).await;
    unit.commit().await.unwrap();
    let done = waiting.await.unwrap().unwrap();
    assert_eq!((done.version.get(), done.repeated), (1, true));
    assert!(orders.execute(&id(), |order| order.place(1_200)).await.unwrap().repeated);
    assert_eq!(fixture.stored().await.0, heads(&[("o-17", 1)]));
}

/// The statement has a name on the connection, and the store uses it too, where it must be planned otherwise.
#[tokio::test]
async fn what_a_unit_reads_leaves_no_plan_on_the_connection() {
    let fixture = Fixture::with_table().await;
    let store = PostgresOptions::new(fixture.database.url()).connections(1).open().await.unwrap();
    let orders = store.aggregate::<Order>();
    for _ in 0..10 {
        let mut unit = store.begin().await.unwrap();
        unit.execute(&orders, &id(), |order| order.place(1)).await.unwrap();
    }
    let plans = "SELECT sum(custom_plans)::bigint, sum(generic_plans)::bigint
                 FROM pg_prepared_statements
                 WHERE statement LIKE '%aggregate_id = $3 AND version > $4%' AND statement NOT LIKE '%custom_plans%'";
    let plans = sqlx::query(plans).fetch_one(&mut *store.database().read().await.unwrap()).await.unwrap();
    assert_eq!((plans.get::<i64, _>(0), plans.get::<i64, _>(1)), (10, 0));
}

#[tokio::test]
async fn a_repository_of_another_store_is_refused() {
    let (fixture, other) = (Fixture::with_table().await, Fixture::new().await);
    let mut unit = fixture.store.begin().await.unwrap();
    let error = unit.execute(&other.store.aggregate::<Order>(), &id(), |order| order.place(1)).await.unwrap_err();
    assert!(matches!(&error, ExecuteError::Invalid(i) if i.field == "repository"), "{error:?}");
    unit.commit().await.unwrap();
}

#[tokio::test]
async fn a_long_stream_is_decided_on_as_a_whole() {
    let fixture = Fixture::with_table().await;
    let orders = fixture.store.aggregate::<Order>();
    let long = |n: usize| -> Vec<NewEvent> {
        let event = |_| fixture.store.new_event(&OrderEvent::Placed { total: 5 });
        (0..n).map(|n| event(n).unwrap()).collect()
    };
    let at = orders.load(&id()).await.unwrap().stream;
    fixture.store.append(&at, NO_STREAM, long(3_000)).await.unwrap();
    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(Append::to(at.clone(), ANY, long(10))).await.unwrap();
    let done = unit.execute(&orders, &id(), |order| order.pay(5)).await.unwrap();
    assert_eq!(done.version.get(), 3_011);
    unit.commit().await.unwrap();
}
