//! Both variants from begin to end, and what their customer and an operator see.

use std::time::{Duration, Instant};

use annals::resilience::breaker::BreakerState;
use annals::resilience::{Deadline, IdempotencyKey};
use annals::sagas::{By, Intervention, SagaError, Status};
use annals::{EventStoreExt, Filter, Position};
use example_orders::checkout::{CheckoutError, Flow};
use example_orders::domain::order::{OrderCommand, Status as OrderStatus};
use example_orders::services::{ClientSettings, Faults, Origin, Servers};
use futures::TryStreamExt;

use crate::{begin, cart, order, quick, shop, start};

/// What the book of each service counts for an order.
async fn books(servers: &Servers, number: usize) -> [i64; 3] {
    let of = [&servers.payment, &servers.stock, &servers.shipping];
    let mut open = [0; 3];
    for (open, server) in open.iter_mut().zip(of) {
        *open = server.entry(&shop(), &order(number)).await.expect("it is read").open();
    }
    open
}

#[tokio::test]
async fn a_checkout_ends_with_a_parcel_or_with_nothing_in_any_book_whoever_directs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    for (flow, first) in [(Flow::Orchestrated, 10), (Flow::Choreographed, 20)] {
        // Two kettles; more than the warehouse has; more than the card is charged for.
        for (number, quantity) in (first..).zip([2, 11, 200]) {
            let id = begin(&checkouts, flow, cart(number, quantity)).await;
            assert_eq!(begin(&checkouts, flow, cart(number, quantity)).await, id, "begun again is the same");
            let standing = checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends");
            let loaded = checkouts.orders.load(&order(number)).await.expect("it is read");
            let (answer, status, open) = match quantity {
                2 => ("completed", OrderStatus::Shipped, [9_800, 2, 1]),
                _ => ("undone", OrderStatus::Cancelled, [0, 0, 0]),
            };
            assert_eq!((standing.answer, loaded.state.status), (answer, status), "{flow:?} {quantity}: {standing:?}");
            assert_eq!(loaded.state.paid.is_some(), quantity == 2);
            assert_eq!(books(&servers, number).await, open, "{flow:?} {quantity}");
            let timeline = checkouts.timeline(&shop(), &id).await.expect("it is read");
            assert!(timeline.len() > 2, "{timeline:?}");
        }
        // Another cart for the order of a checkout is another request.
        let other = checkouts.begin(flow, cart(first, 3), &annals::Context::default()).await;
        assert!(other.is_err(), "{other:?}");
    }
    // An order that has been placed is not checked out once more by the other variant.
    let twice = begin(&checkouts, Flow::Orchestrated, cart(20, 2)).await;
    assert_eq!(checkouts.wait(&shop(), &twice, Deadline::NONE).await.expect("it ends").answer, "undone");
    assert_eq!(books(&servers, 20).await, [9_800, 2, 1]);
    checkouts.close().await;
    servers.stop().await;
}

#[tokio::test]
async fn orders_that_are_placed_without_a_checkout_are_no_flow() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    let context = annals::Context::default().with_correlation(annals::CorrelationId::new("request-1").expect("an id"));
    let place = OrderCommand::Place { customer: cart(1, 1).customer, lines: cart(1, 1).lines };
    checkouts.orders.with(context).send(&order(1), place).await.expect("placed");
    // A flow behind it has been seen, so the order was seen too.
    let id = begin(&checkouts, Flow::Choreographed, cart(2, 1)).await;
    checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends");
    let sagas = Filter::all().tenant(shop()).aggregate_type("saga").expect("a type");
    let events: Vec<_> = store.read_all(Position::START, sagas).try_collect().await.expect("they are read");
    assert!(events.iter().all(|event| event.stream.aggregate_id() == "flow-o-2"), "{events:?}");
    assert_eq!(books(&servers, 1).await, [0, 0, 0]);
    checkouts.close().await;
    servers.stop().await;
}

#[tokio::test]
async fn a_customer_who_cancels_a_paid_order_meanwhile_gets_the_money_back_whoever_directs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    for (number, flow) in [(1, Flow::Orchestrated), (2, Flow::Choreographed)] {
        servers.stock.faults.set(Faults { down: true, ..Faults::default() });
        let id = begin(&checkouts, flow, cart(number, 1)).await;
        let until = Instant::now() + Duration::from_secs(20);
        while checkouts.orders.load(&order(number)).await.expect("read").state.status != OrderStatus::Paid {
            assert!(Instant::now() < until, "it is not paid");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let cancel = OrderCommand::Cancel { reason: "too late".to_owned() };
        checkouts.orders.send(&order(number), cancel).await.expect("cancelled");
        servers.stock.faults.set(Faults::default());
        let standing = checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends");
        assert_eq!(standing.answer, "undone", "{standing:?}");
        while books(&servers, number).await != [0, 0, 0] {
            assert!(Instant::now() < until, "{:?}", books(&servers, number).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    checkouts.close().await;
    servers.stop().await;
}

#[tokio::test]
async fn what_is_refused_after_it_was_done_without_an_answer_is_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    servers.stock.faults.set(Faults { lost_answers: 1.0, ..Faults::default() });
    let id = begin(&checkouts, Flow::Choreographed, cart(1, 1)).await;
    let until = Instant::now() + Duration::from_secs(20);
    while books(&servers, 1).await[1] == 0 {
        assert!(Instant::now() < until, "nothing is set aside");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    servers.stock.faults.set(Faults { closed: true, ..Faults::default() });
    while !checkouts
        .timeline(&shop(), &id)
        .await
        .expect("it is read")
        .iter()
        .any(|moment| moment.event == "-- from here on it is undone --")
    {
        assert!(Instant::now() < until, "it is not refused");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    servers.stock.faults.set(Faults::default());
    while books(&servers, 1).await != [0, 0, 0] {
        assert!(Instant::now() < until, "{:?}", books(&servers, 1).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    checkouts.close().await;
    servers.stop().await;
}

#[tokio::test]
async fn while_the_breaker_of_payment_is_open_a_customer_is_told_at_once_and_an_operator_may_give_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, ClientSettings::default()).await;
    servers.payment.faults.set(Faults { down: true, ..Faults::default() });
    let payment = &checkouts.services.payment;
    let origin = Origin { shop: shop().to_string(), trace: None };
    let key = IdempotencyKey::new("checkout-0/charge/undo").expect("a key");
    let body = order(0);
    futures::future::join_all((0..10).map(|_| payment.call::<()>("/charge", &body, &origin, &key))).await;
    assert_eq!(payment.policy.breaker().state(), BreakerState::Open);
    servers.payment.faults.set(Faults::default());
    let begun = Instant::now();
    let id = begin(&checkouts, Flow::Orchestrated, cart(1, 1)).await;
    let standing = checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it stands");
    assert_eq!((standing.status, standing.answer), (Status::Running, "pending, will retry"), "{standing:?}");
    assert!(standing.next_try.is_some() && begun.elapsed() < Duration::from_secs(5), "{standing:?}");

    let kim = By::new("kim", "the customer has left").expect("both are given");
    let would = checkouts.preview(&shop(), &id, Intervention::Cancel, &kim).await.expect("it may");
    assert!(!would.is_empty());
    let now = checkouts.standing(&shop(), &id).await.expect("it stands");
    assert_eq!(now.status, Status::Running, "a dry run changes nothing");
    let wrong = checkouts.decide(&shop(), &id, Intervention::Skip, &kim).await;
    assert!(matches!(wrong, Err(CheckoutError::Saga(SagaError::WrongStatus { .. }))), "{wrong:?}");
    checkouts.decide(&shop(), &id, Intervention::Cancel, &kim).await.expect("it is given up");
    assert_eq!(checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends").answer, "undone");
    assert_eq!(books(&servers, 1).await, [0, 0, 0]);
    checkouts.close().await;
    servers.stop().await;
}
