//! Commands of aggregates inside a unit of work.

use std::time::Duration;

use tokio::time::Instant;

use super::Fixture;
use crate::context::Context;
use crate::error::AppendError;
use crate::repository::{AggregateStore, ExecuteError};
use crate::request::{Fingerprint, RequestKey};
use crate::stream::Tenant;
use crate::unit_of_work::UnitOfWork;

#[expect(unreachable_pub, reason = "the examples of the documentation share it")]
mod order {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs"));
}
use order::{Order, OrderError, OrderId};

fn id() -> OrderId {
    OrderId::new("o-17").expect("a name")
}

#[tokio::test]
async fn a_decision_sees_what_its_own_unit_of_work_has_appended() {
    let fixture = Fixture::new().await;
    let orders = fixture.store.aggregate::<Order>();
    let mut work = fixture.store.begin().await.expect("begun");
    let placed = work.execute(&orders, &id(), |order| order.place(1_200)).await.expect("placed");
    let refused = work.execute(&orders, &id(), |order| order.pay(700)).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(OrderError::WrongAmount { due: 1_200 }))), "{refused:?}");
    let paid =
        work.execute(&orders, &id(), |order| order.pay(1_200)).await.expect("the unit goes on after a rejection");
    assert_eq!((placed.version.get(), paid.version.get()), (1, 2));
    work.commit().await.expect("committed");
    assert!(orders.load(&id()).await.expect("loaded").state.paid);
}

#[tokio::test]
async fn what_is_rolled_back_never_happened_also_for_the_cache() {
    let fixture = Fixture::new().await;
    let orders = fixture.store.aggregate::<Order>();
    let mut work = fixture.store.begin().await.expect("begun");
    work.execute(&orders, &id(), |order| order.place(1_200)).await.expect("placed");
    work.rollback().await.expect("rolled back");
    assert!(!orders.load(&id()).await.expect("loaded").exists());
    let done = orders.execute(&id(), |order| order.place(900)).await.expect("placed for the first time");
    assert_eq!(done.version.get(), 1);
}

#[tokio::test]
async fn a_request_has_one_effect_within_and_across_units_of_work() {
    let fixture = Fixture::new().await;
    let request = RequestKey::new("form-1", Fingerprint::of(&1_200).expect("JSON")).expect("a name");
    let orders = fixture.store.aggregate::<Order>().with(Context::of(Tenant::default()).with_request(request));
    let mut work = fixture.store.begin().await.expect("begun");
    for repeated in [false, true] {
        let done = work.execute(&orders, &id(), |order| order.place(1_200)).await.expect("one effect");
        assert_eq!((done.version.get(), done.repeated), (1, repeated));
    }
    work.commit().await.expect("committed");
    let mut work = fixture.store.begin().await.expect("begun");
    assert!(work.execute(&orders, &id(), |order| order.place(1_200)).await.expect("the first answer").repeated);
    work.commit().await.expect("committed");
    assert_eq!(fixture.log().await.len(), 1);
}

#[tokio::test]
async fn a_repository_of_another_store_and_a_passed_deadline_are_refused() {
    let (fixture, other) = (Fixture::new().await, Fixture::new().await);
    let mut work = fixture.store.begin().await.expect("begun");
    let foreign = other.store.aggregate::<Order>();
    let error = work.execute(&foreign, &id(), |order| order.place(1_200)).await.expect_err("refused");
    assert!(matches!(&error, ExecuteError::Invalid(i) if i.field == "repository"), "{error:?}");
    let passed = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now);
    let late = fixture.store.aggregate::<Order>().with(Context::default().with_deadline(passed));
    let error = work.execute(&late, &id(), |order| order.place(1_200)).await.expect_err("refused");
    assert!(matches!(error, ExecuteError::Append(AppendError::DeadlineExceeded { .. })), "{error:?}");
    work.commit().await.expect("nothing to commit");
    assert!(fixture.log().await.is_empty());
}
