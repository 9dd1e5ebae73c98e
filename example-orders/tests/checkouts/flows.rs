//! Both variants from begin to end, and what their customer and an operator see.

use std::time::{Duration, Instant};

use annals::engine::{Clock, SystemClock};
use annals::resilience::breaker::BreakerState;
use annals::resilience::{Deadline, IdempotencyKey};
use annals::sagas::{By, Intervention, SagaError, Status};
use annals::{EventStoreExt, Filter, Position};
use example_orders::checkout::timeline::for_staff;
use example_orders::checkout::{CheckoutError, Checkouts, Flow};
use example_orders::domain::order::{OrderCommand, OrderError, Status as OrderStatus};
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
            let timeline = checkouts.timeline(&shop(), &id, for_staff).await.expect("it is read");
            assert!(timeline.len() > 2, "{timeline:?}");
        }
        // Another cart for the order of a checkout is another request.
        let other = checkouts.begin(flow, cart(first, 3), &annals::Context::default()).await;
        assert!(other.is_err(), "{other:?}");
    }
    // An order that has been placed is not checked out once more by the other variant.
    let twice = checkouts.begin(Flow::Orchestrated, cart(20, 2), &annals::Context::default()).await;
    assert!(matches!(twice, Err(CheckoutError::Order(OrderError::PlacedAlready))), "{twice:?}");
    let (_, standing) = checkouts.find(&shop(), &order(20)).await.expect("it is read").expect("there is one");
    assert_eq!((standing.flow, standing.answer), (Flow::Choreographed, "completed"));
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
        until_it_is(&checkouts, number, OrderStatus::Paid).await;
        let cancel = OrderCommand::Cancel { reason: "too late".to_owned() };
        checkouts.orders.send(&order(number), cancel).await.expect("cancelled");
        servers.stock.faults.set(Faults::default());
        let standing = checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends");
        assert_eq!(standing.answer, "undone", "{standing:?}");
        until_the_books_say(&servers, number, [0, 0, 0]).await;
    }
    checkouts.close().await;
    servers.stop().await;
}

/// Waits until an order is `status`.
async fn until_it_is(checkouts: &Checkouts, number: usize, status: OrderStatus) {
    let until = Instant::now() + Duration::from_secs(20);
    while checkouts.orders.load(&order(number)).await.expect("read").state.status != status {
        assert!(Instant::now() < until, "it is not {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the books of an order count `open`.
async fn until_the_books_say(servers: &Servers, number: usize, open: [i64; 3]) {
    let until = Instant::now() + Duration::from_secs(20);
    while books(servers, number).await != open {
        assert!(Instant::now() < until, "{:?}", books(servers, number).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_order_that_is_changed_while_its_card_is_charged_is_not_paid_by_that_whoever_directs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    for (number, flow) in [(1, Flow::Orchestrated), (2, Flow::Choreographed)] {
        servers.payment.faults.set(Faults { down: true, ..Faults::default() });
        let id = begin(&checkouts, flow, cart(number, 1)).await;
        until_it_is(&checkouts, number, OrderStatus::Placed).await;
        let change = OrderCommand::Change { lines: cart(number, 2).lines };
        checkouts.orders.send(&order(number), change).await.expect("changed");
        servers.payment.faults.set(Faults::default());
        let standing = checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends");
        let loaded = checkouts.orders.load(&order(number)).await.expect("it is read");
        assert_eq!((standing.answer, loaded.state.status), ("undone", OrderStatus::Cancelled), "{standing:?}");
        until_the_books_say(&servers, number, [0, 0, 0]).await;
    }
    checkouts.close().await;
    servers.stop().await;
}

#[tokio::test]
async fn what_was_charged_for_an_order_that_is_sent_back_is_given_back_whoever_directs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    for (number, flow) in [(1, Flow::Orchestrated), (2, Flow::Choreographed)] {
        let id = begin(&checkouts, flow, cart(number, 1)).await;
        assert_eq!(checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends").answer, "completed");
        let deliver = OrderCommand::Deliver { signed_by: "alice".to_owned() };
        checkouts.orders.send(&order(number), deliver).await.expect("delivered");
        assert_eq!(books(&servers, number).await, [4_900, 1, 1]);
        let send_back = OrderCommand::Return { reason: "too loud".to_owned() };
        checkouts.orders.send(&order(number), send_back).await.expect("sent back");
        until_the_books_say(&servers, number, [0, 0, 0]).await;
        let standing = checkouts.standing(&shop(), &id).await.expect("it stands");
        let loaded = checkouts.orders.load(&order(number)).await.expect("it is read");
        assert_eq!((standing.answer, loaded.state.status), ("completed", OrderStatus::Returned), "{standing:?}");
    }
    checkouts.close().await;
    servers.stop().await;
}

#[tokio::test]
async fn what_a_saga_did_for_an_order_that_is_cancelled_behind_its_pivot_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    servers.shipping.faults.set(Faults { down: true, ..Faults::default() });
    let id = begin(&checkouts, Flow::Orchestrated, cart(1, 1)).await;
    until_it_is(&checkouts, 1, OrderStatus::Reserved).await;
    let cancel = OrderCommand::Cancel { reason: "too late".to_owned() };
    checkouts.orders.send(&order(1), cancel).await.expect("cancelled");
    servers.shipping.faults.set(Faults::default());
    until_the_books_say(&servers, 1, [0, 0, 0]).await;
    let standing = checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it stands");
    assert_eq!(standing.status, Status::Stuck, "the parcel is a person's matter: {standing:?}");
    let kim = By::new("kim", "cancelled by its customer").expect("both are given");
    checkouts.decide(&shop(), &id, Intervention::Complete, &kim).await.expect("it may");
    checkouts.wait(&shop(), &id, Deadline::NONE).await.expect("it ends");
    // A parcel that was fetched after the undo would be counted by now.
    assert_eq!(books(&servers, 1).await, [0, 0, 0]);
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
        .timeline(&shop(), &id, for_staff)
        .await
        .expect("it is read")
        .iter()
        .any(|moment| moment.event == "from here on it is undone")
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
async fn a_checkout_says_that_it_is_tried_again_after_a_failure_alone_and_when() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    servers.payment.faults.set(Faults { latency_ms: 60, ..Faults::default() });
    for (number, flow) in [(1, Flow::Orchestrated), (2, Flow::Choreographed)] {
        let id = begin(&checkouts, flow, cart(number, 1)).await;
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let standing = match checkouts.standing(&shop(), &id).await {
                Err(CheckoutError::Saga(SagaError::NotStarted { .. })) => continue,
                standing => standing.expect("it stands"),
            };
            assert!(["pending", "completed"].contains(&standing.answer) && standing.next_try.is_none(), "{standing:?}");
            if standing.status.is_final() {
                break;
            }
        }
    }
    servers.payment.faults.set(Faults { down: true, ..Faults::default() });
    let id = begin(&checkouts, Flow::Orchestrated, cart(3, 1)).await;
    let until = Instant::now() + Duration::from_secs(20);
    let next_try = loop {
        let standing = checkouts.standing(&shop(), &id).await.expect("it stands");
        assert_eq!(standing.answer == "pending, will retry", standing.next_try.is_some(), "{standing:?}");
        if let Some(at) = standing.next_try {
            break at;
        }
        assert!(Instant::now() < until, "{standing:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // The checkout may take five minutes.
    assert!(next_try.duration_since(SystemClock.now()).as_secs() < 100, "{next_try}");
    assert_eq!(next_try.subsec_nanosecond() % 1_000, 0, "{next_try}");
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
    // Nobody directs this one, so nobody knows when the reactor calls again.
    let id_of_flow = begin(&checkouts, Flow::Choreographed, cart(2, 1)).await;
    let of_flow = checkouts.wait(&shop(), &id_of_flow, Deadline::NONE).await.expect("it stands");
    assert_eq!((of_flow.status, of_flow.answer), (Status::Running, "pending, will retry"), "{of_flow:?}");
    assert!(of_flow.next_try.is_none() && begun.elapsed() < Duration::from_secs(10), "{of_flow:?}");

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
