//! The scene is a function, so a test can call it and keep what it prints.

use annals::testing::{GivenEvent, given, given_events, shapes_of};
use annals::{ManualClock, SeededIds, SqliteOptions};

use jiff::Timestamp;

use crate::detail::{Detail, OrderDetail};
use crate::money::{Currency, Money};
use crate::order::{CustomerId, Line, Order, OrderError, OrderEvent, OrderId, PaymentId, Status};
use crate::shop::Shop;
use crate::story;

#[tokio::test]
async fn the_story_is_told_as_ever_and_goes_on_from_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.db");
    let mut told = Vec::new();
    for (seed, day) in [(1, "2026-03-02T09:30:00Z"), (2, "2026-03-03T17:45:00Z")] {
        let clock = ManualClock::at(day.parse().expect("a time"));
        let store = SqliteOptions::new(&path).clock(clock).ids(SeededIds::new(seed)).open();
        let shop = Shop::over(store.await.expect("opened")).await.expect("started");
        story::play(&shop, &mut told).await.expect("played");
        told.extend(b"\n~~~~~~~~~~~~~~~~ again, the next day ~~~~~~~~~~~~~~~~\n\n");
        shop.close().await.expect("closed");
    }
    insta::assert_snapshot!("story", String::from_utf8(told).expect("text"));
}

/// Stored names are for ever; this golden file makes a changed one show in review.
#[test]
fn stored_names_are_what_they_were() {
    insta::assert_snapshot!("names", shapes_of::<OrderEvent>());
}

fn placed() -> OrderEvent {
    let lines = vec![Line { product: "kettle".to_owned(), quantity: 2, price: Money::euro_cents(4_900) }];
    let customer = CustomerId::new("alice").expect("a name");
    OrderEvent::Placed { customer, lines, total: Money::euro_cents(9_800) }
}

fn paid() -> OrderEvent {
    OrderEvent::Paid { payment: PaymentId::new("pay-1").expect("a name"), amount: Money::euro_cents(9_800) }
}

#[test]
fn a_paid_order_that_is_cancelled_is_refunded_in_the_same_breath() {
    let reason = "found one at home".to_owned();
    let refund =
        OrderEvent::Refunded { payment: PaymentId::new("pay-1").expect("a name"), amount: Money::euro_cents(9_800) };
    given::<Order>([placed(), paid()])
        .when(|order| order.cancel("found one at home"))
        .then([OrderEvent::Cancelled { reason }, refund]);
}

#[test]
fn nothing_is_shipped_before_it_is_paid_and_reserved() {
    for (history, status) in [(vec![placed()], Status::Placed), (vec![placed(), paid()], Status::Paid)] {
        given::<Order>(history)
            .when(|order| order.ship("snail", "SN-1"))
            .then_rejected(OrderError::NotNow { step: "shipped", status });
    }
}

#[test]
fn a_price_beyond_counting_is_refused() {
    let dear = Line { product: "moon".to_owned(), quantity: 3, price: Money::euro_cents(i64::MAX / 2) };
    let alice = CustomerId::new("alice").expect("a name");
    given::<Order>([]).when(|order| order.place(alice.clone(), vec![dear.clone()])).then_rejected(OrderError::NoTotal);
}

#[test]
fn a_cancelled_order_shows_as_cancelled_with_nothing_paid() {
    let noon: Timestamp = "2026-03-02T12:00:00Z".parse().expect("a time");
    let refund =
        OrderEvent::Refunded { payment: PaymentId::new("pay-1").expect("a name"), amount: Money::euro_cents(9_800) };
    let events = [placed(), paid(), OrderEvent::Cancelled { reason: "so".to_owned() }, refund];
    let events = events.map(|event| GivenEvent::of("order", "o-1", event).at(noon));
    given_events(events).with(OrderDetail).then_rows([Detail {
        order_id: OrderId::new("o-1").expect("a name"),
        customer: CustomerId::new("alice").expect("a name"),
        status: Status::Cancelled,
        lines: vec![Line { product: "kettle".to_owned(), quantity: 2, price: Money::euro_cents(4_900) }],
        total: 9_800,
        currency: Currency::Eur,
        paid: 0,
        carrier: None,
        tracking: None,
        changed_at: noon,
    }]);
}
