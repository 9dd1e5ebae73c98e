//! Given / when / then for the rules of the domain, and for the folds of the read models.

use annals::testing::{GivenEvent, given, given_events};
use annals::{Decide, Evolve};
use jiff::Timestamp;

use crate::domain::money::{Currency, Money};
use crate::domain::order::OrderCommand::{Cancel, Change, Deliver, Pay, Place, Reserve, Return, Ship};
use crate::domain::order::{
    CustomerId, Line, MOST, Order, OrderCommand, OrderError, OrderEvent, OrderId, PaymentId, Status,
};
use crate::read_models::analytics::{DailySales, Day, ShopDay, ShopSales};
use crate::read_models::detail::{Detail, OrderDetail};
use crate::read_models::list::{Listed, OrderList};
use crate::read_models::statement::{CustomerStatement, Statement};

fn placed() -> OrderEvent {
    let lines = vec![Line { product: "kettle".to_owned(), quantity: 2, price: Money::euro_cents(4_900) }];
    let customer = CustomerId::new("alice").expect("a name");
    OrderEvent::Placed { customer, lines, total: Money::euro_cents(9_800) }
}

fn paid() -> OrderEvent {
    OrderEvent::Paid { payment: PaymentId::new("pay-1").expect("a name"), amount: Money::euro_cents(9_800) }
}

#[test]
fn a_paid_order_that_is_cancelled_is_refunded_in_the_same_append() {
    let reason = "found one at home".to_owned();
    let refund =
        OrderEvent::Refunded { payment: PaymentId::new("pay-1").expect("a name"), amount: Money::euro_cents(9_800) };
    given::<Order>([placed(), paid()])
        .when_command(Cancel { reason: reason.clone() })
        .then([OrderEvent::Cancelled { reason }, refund]);
}

#[test]
fn what_is_returned_is_refunded_in_the_same_append() {
    let reason = "too loud".to_owned();
    given::<Order>([placed(), paid(), reserved(), shipped(), delivered()])
        .when_command(Return { reason })
        .then([returned(), refunded()]);
}

#[test]
fn a_changed_order_costs_what_its_new_lines_do_and_keeps_its_currency() {
    let three = |price| vec![Line { product: "kettle".to_owned(), quantity: 3, price }];
    let euro = Money::euro_cents(4_900);
    let (total, instead_of) = (Money::euro_cents(14_700), Money::euro_cents(9_800));
    let changed = OrderEvent::Changed { customer: alice(), lines: three(euro), total, instead_of };
    given::<Order>([placed()]).when_command(Change { lines: three(euro) }).then([changed.clone()]);
    let dollars = Money { currency: Currency::Usd, ..euro };
    let refused = OrderError::OtherCurrency { total: Money { currency: Currency::Usd, ..total } };
    given::<Order>([placed()]).when_command(Change { lines: three(dollars) }).then_rejected(refused);
    // The next change is instead of this one, and so are the amounts that are summed up.
    given_events(hourly("o-1", vec![placed(), changed.clone()])).with(ShopSales).then_rows([ShopDay {
        day: jiff::civil::date(2026, 3, 2),
        currency: "EUR".to_owned(),
        orders: 1,
        ordered: 14_700,
        revenue: 0,
    }]);
    let as_before = OrderEvent::Changed {
        customer: alice(),
        lines: vec![Line { product: "kettle".to_owned(), quantity: 2, price: euro }],
        total: instead_of,
        instead_of: total,
    };
    given::<Order>([placed(), changed])
        .when_command(Change { lines: vec![Line { product: "kettle".to_owned(), quantity: 2, price: euro }] })
        .then([as_before]);
}

#[test]
fn nothing_is_shipped_before_it_is_paid_and_reserved() {
    for (history, status) in [(vec![placed()], Status::Placed), (vec![placed(), paid()], Status::Paid)] {
        given::<Order>(history).when_command(ship()).then_rejected(OrderError::NotNow { step: "shipped", status });
    }
}

#[test]
fn a_price_that_overflows_is_refused() {
    let dear = Line { product: "moon".to_owned(), quantity: 3, price: Money::euro_cents(i64::MAX / 2) };
    let alice = CustomerId::new("alice").expect("a name");
    given::<Order>([]).when_command(Place { customer: alice, lines: vec![dear] }).then_rejected(OrderError::NoTotal);
}

#[test]
fn an_order_costs_no_more_than_sums_of_many_can_hold() {
    let lines = |minor| vec![Line { product: "moon".to_owned(), quantity: 1, price: Money::euro_cents(minor) }];
    let place = |minor| given::<Order>([]).when_command(Place { customer: alice(), lines: lines(minor) });
    let total = Money::euro_cents(MOST);
    place(MOST).then([OrderEvent::Placed { customer: alice(), lines: lines(MOST), total }]);
    for minor in [MOST + 1, i64::MAX, -MOST - 1] {
        let total = Money::euro_cents(minor);
        place(minor).then_rejected(OrderError::TooMuch { total });
        given::<Order>([placed()])
            .when_command(Change { lines: lines(minor) })
            .then_rejected(OrderError::TooMuch { total });
    }
}

/// An event cannot be taken back. One amount stopped the read models of all shops for good.
#[test]
fn amounts_that_were_stored_before_there_was_a_limit_stop_no_read_model() {
    let dear = |total| OrderEvent::Placed { customer: alice(), lines: Vec::new(), total: Money::euro_cents(total) };
    let back = |total| OrderEvent::Refunded {
        payment: PaymentId::new("pay-1").expect("a name"),
        amount: Money::euro_cents(total),
    };
    let events = [("o-1", dear(i64::MAX)), ("o-2", dear(i64::MAX)), ("o-1", back(i64::MIN)), ("o-2", back(i64::MIN))];
    let given = given_events(events.clone());
    let day = jiff::tz::Offset::UTC.to_datetime(given.recorded()[0].recorded_at).date();
    let sum = Day { day, currency: "EUR".to_owned(), orders: 2, ordered: i64::MAX, revenue: i64::MAX };
    given.with(DailySales).then_rows([sum]);
    let currency = Currency::Eur;
    let statement = Statement { customer: alice(), currency, orders: 2, ordered: i64::MAX, granted: 0, charged: 0 };
    given_events(events.into_iter().map(|(id, event)| GivenEvent::of("order", id, event)))
        .with(CustomerStatement)
        .then_rows([statement]);
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
        delivery: None,
        placed_at: noon,
        changed_at: noon,
    }]);
}

pub(super) fn o(name: &str) -> OrderId {
    OrderId::new(name).expect("a name")
}

pub(super) fn alice() -> CustomerId {
    CustomerId::new("alice").expect("a name")
}

fn reserved() -> OrderEvent {
    OrderEvent::Reserved { warehouse: "north".to_owned() }
}

fn shipped() -> OrderEvent {
    OrderEvent::Shipped { carrier: "snail".to_owned(), tracking: "SN-1".to_owned() }
}

fn delivered() -> OrderEvent {
    OrderEvent::Delivered { signed_by: "alice".to_owned() }
}

fn cancelled() -> OrderEvent {
    OrderEvent::Cancelled { reason: "so".to_owned() }
}

fn refunded() -> OrderEvent {
    OrderEvent::Refunded { payment: PaymentId::new("pay-1").expect("a name"), amount: Money::euro_cents(9_800) }
}

fn returned() -> OrderEvent {
    OrderEvent::Returned { reason: "too loud".to_owned() }
}

fn after(history: &[OrderEvent]) -> Order {
    let mut order = Order::default();
    history.iter().for_each(|event| order.evolve(event));
    order
}

#[test]
fn every_step_is_accepted_in_its_status_and_refused_in_all_others() {
    let histories = [
        (Status::Unknown, vec![]),
        (Status::Placed, vec![placed()]),
        (Status::Paid, vec![placed(), paid()]),
        (Status::Reserved, vec![placed(), paid(), reserved()]),
        (Status::Shipped, vec![placed(), paid(), reserved(), shipped()]),
        (Status::Delivered, vec![placed(), paid(), reserved(), shipped(), delivered()]),
        (Status::Cancelled, vec![placed(), paid(), cancelled(), refunded()]),
        (Status::Returned, vec![placed(), paid(), reserved(), shipped(), delivered(), returned(), refunded()]),
    ];
    for (status, history) in histories {
        let order = after(&history);
        assert_eq!(order.status, status);
        let owes = !matches!(status, Status::Unknown | Status::Placed | Status::Cancelled | Status::Returned);
        assert_eq!(order.paid.is_some(), owes, "what was paid and not given back, {status}");
        let check = |step: &'static str, taken: &[Status], command: OrderCommand| {
            let expected = match step {
                _ if taken.contains(&status) => Ok(()),
                "placed" => Err(OrderError::PlacedAlready),
                step => Err(OrderError::NotNow { step, status }),
            };
            assert_eq!(order.decide(&command).map(drop), expected, "an order that is {status}, {step}");
        };
        let line = Line { product: "kettle".to_owned(), quantity: 1, price: Money::euro_cents(1) };
        check("placed", &[Status::Unknown], Place { customer: alice(), lines: vec![line.clone()] });
        check("changed", &[Status::Placed], Change { lines: vec![line] });
        check("paid", &[Status::Placed], pay(Money::euro_cents(9_800)));
        check("reserved", &[Status::Paid], Reserve { warehouse: "north".to_owned() });
        check("shipped", &[Status::Reserved], ship());
        check("delivered", &[Status::Shipped], Deliver { signed_by: "alice".to_owned() });
        check("returned", &[Status::Delivered], Return { reason: "too loud".to_owned() });
        let may_end = [Status::Placed, Status::Paid, Status::Reserved];
        check("cancelled", &may_end, cancel());
        if may_end.contains(&status) {
            let refunds = usize::from(status != Status::Placed);
            let events = order.decide(&cancel()).expect("it may");
            assert_eq!(events.len(), 1 + refunds, "what was paid is refunded once");
        }
    }
}

pub(super) fn pay(amount: Money) -> OrderCommand {
    Pay { payment: PaymentId::new("pay-1").expect("a name"), amount }
}

fn ship() -> OrderCommand {
    Ship { carrier: "snail".to_owned(), tracking: "SN-1".to_owned() }
}

pub(super) fn cancel() -> OrderCommand {
    Cancel { reason: "so".to_owned() }
}

#[test]
fn an_order_costs_what_its_lines_add_up_to_and_is_paid_with_that() {
    let line = |quantity, price| Line { product: "cup".to_owned(), quantity, price };
    let dollars = Money { minor: 9_800, currency: Currency::Usd };
    let order = Order::default();
    let lines = vec![line(2, Money::euro_cents(1_250)), line(1, Money::euro_cents(4_900))];
    match order.decide(&Place { customer: alice(), lines }).as_deref() {
        Ok([OrderEvent::Placed { total, .. }]) => assert_eq!(*total, Money::euro_cents(7_400)),
        other => panic!("it should be placed: {other:?}"),
    }
    for (lines, why) in [
        (vec![], OrderError::Empty),
        (vec![line(1, Money::euro_cents(1)), line(0, Money::euro_cents(1))], OrderError::Empty),
        (vec![line(1, Money::euro_cents(1)), line(1, dollars)], OrderError::NoTotal),
        (vec![line(1, Money::euro_cents(i64::MAX)), line(1, Money::euro_cents(1))], OrderError::NoTotal),
    ] {
        assert_eq!(order.decide(&Place { customer: alice(), lines }).map(drop), Err(why));
    }
    let placed = after(&[placed()]);
    let expected = Money::euro_cents(9_800);
    for offered in [Money::euro_cents(9_799), Money::euro_cents(9_801), dollars] {
        assert_eq!(placed.decide(&pay(offered)).map(drop), Err(OrderError::WrongAmount { expected, offered }));
    }
}

#[test]
fn amounts_below_one_keep_their_sign() {
    let shown = [-1, -50, -100, -12_345, 0, 5, 199].map(|minor| Money::euro_cents(minor).to_string());
    assert_eq!(shown, ["-0.01 EUR", "-0.50 EUR", "-1.00 EUR", "-123.45 EUR", "0.00 EUR", "0.05 EUR", "1.99 EUR"]);
}

/// The events of one order, one an hour from `2026-03-02T20:00:00Z`.
fn hourly(id: &str, events: Vec<OrderEvent>) -> Vec<GivenEvent> {
    let first: Timestamp = "2026-03-02T20:00:00Z".parse().expect("a time");
    let at = |hours| first + jiff::SignedDuration::from_hours(hours);
    (0..).zip(events).map(|(hours, event)| GivenEvent::of("order", id, event).at(at(hours))).collect()
}

#[test]
fn the_list_and_the_detail_follow_an_order_to_its_end() {
    let at = |text: &str| text.parse::<Timestamp>().expect("a time");
    let story = || hourly("o-1", vec![placed(), paid(), reserved(), shipped(), delivered()]);
    given_events(story()).with(OrderList).then_rows([Listed {
        order_id: o("o-1"),
        customer: alice(),
        status: Status::Delivered,
        pieces: 2,
        total: 9_800,
        currency: Currency::Eur,
        placed_at: at("2026-03-02T20:00:00Z"),
        search: "o-1 alice kettle".to_owned(),
    }]);
    given_events(story()).with(OrderDetail).then_rows([Detail {
        order_id: o("o-1"),
        customer: alice(),
        status: Status::Delivered,
        lines: vec![Line { product: "kettle".to_owned(), quantity: 2, price: Money::euro_cents(4_900) }],
        total: 9_800,
        currency: Currency::Eur,
        paid: 9_800,
        carrier: Some("snail".to_owned()),
        tracking: Some("SN-1".to_owned()),
        delivery: Some(jiff::civil::date(2026, 3, 3)),
        placed_at: at("2026-03-02T20:00:00Z"),
        changed_at: at("2026-03-03T00:00:00Z"),
    }]);
    for (steps, status) in [(1, Status::Placed), (2, Status::Paid), (3, Status::Reserved), (4, Status::Shipped)] {
        given_events(story().into_iter().take(steps)).with(OrderList).then_rows([Listed {
            order_id: o("o-1"),
            customer: alice(),
            status,
            pieces: 2,
            total: 9_800,
            currency: Currency::Eur,
            placed_at: at("2026-03-02T20:00:00Z"),
            search: "o-1 alice kettle".to_owned(),
        }]);
    }
}

#[test]
fn a_refund_counts_on_its_day_and_each_currency_separately() {
    let dollars = Money { minor: 500, currency: Currency::Usd };
    let lines = vec![Line { product: "cup".to_owned(), quantity: 1, price: dollars }];
    let in_dollars = OrderEvent::Placed { customer: alice(), lines, total: dollars };
    // Placed at 20, paid at 21, reserved at 22, cancelled at 23 and refunded at midnight.
    let mut events = hourly("o-1", vec![placed(), paid(), reserved(), cancelled(), refunded()]);
    events.extend(hourly("o-2", vec![in_dollars]));
    let day = |day, currency: &str, orders, ordered, revenue| Day {
        day,
        currency: currency.to_owned(),
        orders,
        ordered,
        revenue,
    };
    given_events(events).with(DailySales).then_rows([
        day(jiff::civil::date(2026, 3, 2), "EUR", 1, 9_800, 9_800),
        day(jiff::civil::date(2026, 3, 2), "USD", 1, 500, 0),
        day(jiff::civil::date(2026, 3, 3), "EUR", 0, 0, -9_800),
    ]);
}
