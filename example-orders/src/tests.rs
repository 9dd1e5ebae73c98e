//! The scene is a function, so a test can call it and compare what it prints.

use std::path::Path;

use annals::engine::{ManualClock, Payload, SeededIds};
use annals::testing::{GivenEvent, given, given_events, schema_lock, shapes_of};
use annals::{Decide, Event, Evolve, SqliteOptions};
use jiff::Timestamp;
use sqlx::{Connection, PgConnection, Row};

use crate::domain::credit::{Credit, CreditEvent};
use crate::domain::money::{Currency, Money};
use crate::domain::order::OrderCommand::{Cancel, Deliver, Pay, Place, Reserve, Ship};
use crate::domain::order::{CustomerId, Line, Order, OrderCommand, OrderError, OrderEvent, OrderId, PaymentId, Status};
use crate::location::Location;
use crate::read_models::analytics::{DailySales, Day};
use crate::read_models::detail::{Detail, OrderDetail};
use crate::read_models::list::{Listed, OrderList};
use crate::read_models::statement::{CustomerStatement, ShopEvent, Statement};
use crate::scenes::dead_letters;
use crate::scenes::generations;
use crate::scenes::mail;
use crate::scenes::on_account;
use crate::scenes::past;
use crate::scenes::resilience;
use crate::scenes::story;
use crate::scenes::tables;
use crate::scenes::totals;
use crate::scenes::two_shops;
use crate::shop::Shop;

/// Runs the scene once in an open shop, and closes the shop.
async fn play(shop: Shop, first: i64, printed: &mut Vec<u8>) {
    story::play(&shop, first, printed).await.expect("played");
    printed.extend(b"\n~~~~~~~~~~~~~~~~ again, the next day ~~~~~~~~~~~~~~~~\n\n");
    shop.close().await.expect("closed");
}

/// A shop in a file, with a fixed clock.
async fn in_a_file(path: &Path, seed: u64, now: Timestamp) -> Shop {
    let options = SqliteOptions::new(path).clock(ManualClock::at(now)).ids(SeededIds::new(seed));
    let store = options.open().await.expect("opened");
    Shop::over(store).await.expect("started")
}

#[tokio::test]
async fn the_story_prints_the_golden_text_and_a_second_run_continues_the_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.db");
    let mut printed = Vec::new();
    for (seed, first, day) in [(1, 1_001, "2026-03-02T09:30:00Z"), (2, 1_005, "2026-03-03T17:45:00Z")] {
        play(in_a_file(&path, seed, day.parse().expect("a time")).await, first, &mut printed).await;
    }
    insta::assert_snapshot!("story", String::from_utf8(printed).expect("text"));
}

#[tokio::test]
async fn orders_on_account_print_the_golden_text_and_a_second_run_continues_the_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut printed = Vec::new();
    for (seed, first, day) in [(1, 1_001, "2026-03-02T09:30:00Z"), (2, 1_002, "2026-03-03T17:45:00Z")] {
        let shop = in_a_file(&folder.path().join("orders.db"), seed, day.parse().expect("a time")).await;
        on_account::play(&shop, first, &mut printed).await.expect("played");
        shop.close().await.expect("closed");
    }
    insta::assert_snapshot!("on_account", String::from_utf8(printed).expect("text"));
}

#[tokio::test]
async fn the_past_of_the_story_prints_the_golden_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.db");
    let mut unread = Vec::new();
    let time = |text: &str| text.parse::<Timestamp>().expect("a time");
    for (seed, first, day) in [(1, 1_001, "2026-03-02T09:30:00Z"), (2, 1_005, "2026-03-03T17:45:00Z")] {
        play(in_a_file(&path, seed, time(day)).await, first, &mut unread).await;
    }
    let shop = in_a_file(&path, 3, time("2026-03-04T08:00:00Z")).await;
    let (mut printed, yesterday) = (Vec::new(), time("2026-03-03T08:00:00Z"));
    let order = |id: &str| OrderId::new(id).expect("an id");
    past::history(&shop, &order("o-1003"), &mut printed).await.expect("printed");
    printed.push(b'\n');
    for id in ["o-1003", "o-1005"] {
        past::as_of(&shop, &order(id), yesterday, &mut printed).await.expect("printed");
    }
    printed.push(b'\n');
    past::list(&shop, yesterday, &mut printed).await.expect("printed");
    let refused = past::list(&shop, time("2026-03-04T08:00:01Z"), &mut printed).await.expect_err("it is not over");
    printed.extend(format!("\n{refused}\n").into_bytes());
    shop.close().await.expect("closed");
    insta::assert_snapshot!("past", String::from_utf8(printed).expect("text"));
}

#[tokio::test]
async fn orders_of_three_generations_print_the_golden_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut printed = Vec::new();
    let shop = in_a_file(&folder.path().join("orders.db"), 1, "2026-03-02T09:30:00Z".parse().expect("a time")).await;
    generations::play(&shop, 1_001, &mut printed).await.expect("played");
    shop.close().await.expect("closed");
    insta::assert_snapshot!("evolution", String::from_utf8(printed).expect("text"));
}

#[tokio::test]
async fn two_shops_with_the_same_order_numbers_print_the_golden_text_on_both_databases() {
    let day = "2026-03-02T09:30:00Z".parse().expect("a time");
    let folder = tempfile::tempdir().expect("a folder");
    let mut printed = Vec::new();
    for seed in 1..=2 {
        let shop = in_a_file(&folder.path().join("orders.db"), seed, day).await;
        two_shops::play(&shop, &mut printed).await.expect("played");
        shop.close().await.expect("closed");
    }
    insta::assert_snapshot!("two_shops", String::from_utf8(printed).expect("text"));

    let scratch = annals_scratch::Database::empty().await;
    let location = Location::of(None, Some(scratch.url().to_owned())).expect("a known URL");
    let shop = Shop::open(&location).await.expect("opened");
    let mut printed = Vec::new();
    two_shops::play(&shop, &mut printed).await.expect("played");
    shop.close().await.expect("closed");
    let printed = String::from_utf8(printed).expect("text");
    for line in ["alice    │ cancelled │", "bob      │ placed"] {
        assert_eq!(printed.matches(line).count(), 1, "{printed}");
    }
}

#[tokio::test]
async fn orders_that_cannot_be_listed_are_set_aside_dropped_and_retried_and_the_text_is_the_golden_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = annals_scratch::Database::empty().await;
    let on_postgres = Location::of(None, Some(scratch.url().to_owned())).expect("a known URL");
    for location in [Location::File(folder.path().join("orders.db")), on_postgres] {
        let mut printed = Vec::new();
        dead_letters::play(&location, 1_001, &mut printed).await.expect("played");
        insta::assert_snapshot!("dead_letters", String::from_utf8(printed).expect("text"));
    }
}

#[tokio::test]
async fn a_mail_is_sent_once_for_each_parcel_and_none_for_history_and_the_text_is_the_golden_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = annals_scratch::Database::empty().await;
    let on_postgres = Location::of(None, Some(scratch.url().to_owned())).expect("a known URL");
    for location in [Location::File(folder.path().join("orders.db")), on_postgres] {
        let mut printed = Vec::new();
        mail::play(&location, 1_001, &mut printed).await.expect("played");
        insta::assert_snapshot!("mail", String::from_utf8(printed).expect("text"));
    }
}

#[tokio::test]
async fn totals_by_sql_of_the_shops_own_print_the_golden_text_on_both_databases() {
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = annals_scratch::Database::empty().await;
    let on_postgres = Location::of(None, Some(scratch.url().to_owned())).expect("a known URL");
    for location in [Location::File(folder.path().join("orders.db")), on_postgres] {
        let mut printed = Vec::new();
        for first in [1_001, 1_004] {
            totals::play(&location, first, &mut printed).await.expect("played");
            printed.extend(b"\n~~~~~~~~~~~~~~~~ again ~~~~~~~~~~~~~~~~\n\n");
        }
        insta::assert_snapshot!("totals", String::from_utf8(printed).expect("text"));
    }
}

#[test]
fn the_statement_counts_the_events_of_both_aggregates() {
    let euro = Money::euro_cents;
    let carol = || CustomerId::new("carol").expect("an id");
    let placed = OrderEvent::Placed { customer: carol(), lines: vec![], total: euro(500) };
    given_events([
        GivenEvent::of("credit", "carol", CreditEvent::Granted { amount: euro(2_000) }),
        GivenEvent::of("order", "o-1", placed),
    ])
    .with(CustomerStatement)
    .then_rows([Statement { customer: carol(), orders: 1, ordered: 500, granted: 2_000, charged: 0 }]);
}

/// The clock of the server cannot be fixed, so the shop in a file runs at the server's time, and hours are not compared.
#[tokio::test]
async fn the_story_is_the_same_on_postgresql() {
    loop {
        let scratch = annals_scratch::Database::empty().await;
        let location = Location::of(None, Some(scratch.url().to_owned())).expect("a known URL");
        let began = server_time(scratch.url()).await;
        let mut printed = Vec::new();
        for first in [1_001, 1_005] {
            play(Shop::open(&location).await.expect("opened"), first, &mut printed).await;
        }
        let ended = server_time(scratch.url()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut expected = Vec::new();
        for (seed, first) in [(1, 1_001), (2, 1_005)] {
            play(in_a_file(&folder.path().join("orders.db"), seed, began).await, first, &mut expected).await;
        }
        // Midnight may have passed in between; then there are sales of two days.
        if day_of(began) == day_of(ended) {
            assert_eq!(without_hours(printed), without_hours(expected));
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_service_degrades_fails_and_recovers_as_ever() {
    let mut printed = Vec::new();
    resilience::play(&mut printed).await.expect("played");
    insta::assert_snapshot!("resilience", String::from_utf8(printed).expect("text"));
}

async fn server_time(url: &str) -> Timestamp {
    let mut connection = PgConnection::connect(url).await.expect("the server is running");
    let now = "SELECT CAST(floor(extract(epoch FROM clock_timestamp())) AS bigint)";
    let row = sqlx::query(now).fetch_one(&mut connection).await.expect("it answers");
    Timestamp::from_second(row.get(0)).expect("a time")
}

fn day_of(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Replaces hours such as `09:30` by `hh:mm`.
fn without_hours(printed: Vec<u8>) -> String {
    let is_hour = |word: &str| word.len() == 5 && word.as_bytes()[2] == b':';
    let printed = String::from_utf8(printed).expect("text");
    printed.split(' ').map(|word| if is_hour(word) { "hh:mm" } else { word }).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_location_is_found_and_no_password_is_printed() {
    let url = |url: &str| Location::of(None, Some(url.to_owned()));
    assert!(matches!(url("postgres://app@localhost/shop"), Ok(Location::Postgres(_))));
    assert!(matches!(url("postgresql://app@localhost/shop"), Ok(Location::Postgres(_))));
    assert!(matches!(url(""), Ok(Location::File(_))));
    let both = Location::of(Some("shop.db".into()), Some("postgres://app@localhost/shop".to_owned()));
    assert!(matches!(both, Ok(Location::File(file)) if file == Path::new("shop.db")), "the command line comes first");
    for (unknown, message) in [
        ("mysql://app:secret@localhost/shop", "is of the kind `mysql`"),
        ("app:secret@localhost/shop", "is not a URL"),
        ("secret with spaces://x", "is not a URL"),
        ("shop.db", "is not a URL"),
    ] {
        let error = url(unknown).err().expect("it is refused").to_string();
        assert!(error.contains(message) && error.contains("postgres://user@host"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

/// Stored names never change; with this golden file a changed one is visible in review.
#[test]
fn stored_names_are_unchanged() {
    insta::assert_snapshot!("names", shapes_of::<OrderEvent>());
}

#[test]
fn stored_events_keep_their_shape_and_meaning() {
    schema_lock!("events.lock", corpus = "tests/corpus", events = [ShopEvent], aggregates = [Order, Credit]);
}

#[test]
fn an_order_of_every_generation_is_read_as_one_of_today() {
    let files = [
        (1, include_str!("../tests/corpus/order.placed.v1.json"), 2_500),
        (2, include_str!("../tests/corpus/order.placed.v2.json"), 7_400),
        (3, include_str!("../tests/corpus/order.placed.v3.json"), 2_500),
    ];
    for (version, json, cents) in files {
        let stored = Payload::from_json(json).expect("JSON");
        let read = OrderEvent::read("order.placed", version, &stored).expect("readable");
        match read.as_slice() {
            [OrderEvent::Placed { lines, total, .. }] => {
                assert_eq!((lines[0].quantity, *total), (2, Money::euro_cents(cents)));
            }
            other => panic!("version {version} is read as {other:?}"),
        }
    }
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
fn a_paid_order_that_is_cancelled_is_refunded_in_the_same_append() {
    let reason = "found one at home".to_owned();
    let refund =
        OrderEvent::Refunded { payment: PaymentId::new("pay-1").expect("a name"), amount: Money::euro_cents(9_800) };
    given::<Order>([placed(), paid()])
        .when_command(Cancel { reason: reason.clone() })
        .then([OrderEvent::Cancelled { reason }, refund]);
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

fn o(name: &str) -> OrderId {
    OrderId::new(name).expect("a name")
}

fn alice() -> CustomerId {
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
    ];
    for (status, history) in histories {
        let order = after(&history);
        assert_eq!(order.status, status);
        let owes = !matches!(status, Status::Unknown | Status::Placed | Status::Cancelled);
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
        check("placed", &[Status::Unknown], Place { customer: alice(), lines: vec![line] });
        check("paid", &[Status::Placed], pay(Money::euro_cents(9_800)));
        check("reserved", &[Status::Paid], Reserve { warehouse: "north".to_owned() });
        check("shipped", &[Status::Reserved], ship());
        check("delivered", &[Status::Shipped], Deliver { signed_by: "alice".to_owned() });
        let may_end = [Status::Placed, Status::Paid, Status::Reserved];
        check("cancelled", &may_end, cancel());
        if may_end.contains(&status) {
            let refunds = usize::from(status != Status::Placed);
            let events = order.decide(&cancel()).expect("it may");
            assert_eq!(events.len(), 1 + refunds, "what was paid is refunded once");
        }
    }
}

fn pay(amount: Money) -> OrderCommand {
    Pay { payment: PaymentId::new("pay-1").expect("a name"), amount }
}

fn ship() -> OrderCommand {
    Ship { carrier: "snail".to_owned(), tracking: "SN-1".to_owned() }
}

fn cancel() -> OrderCommand {
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
    given_events(events).with(DailySales).across_tenants().then_rows([
        day(jiff::civil::date(2026, 3, 2), "EUR", 1, 9_800, 9_800),
        day(jiff::civil::date(2026, 3, 2), "USD", 1, 500, 0),
        day(jiff::civil::date(2026, 3, 3), "EUR", 0, 0, -9_800),
    ]);
}

#[tokio::test]
async fn a_day_with_only_refunds_shows_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = std::sync::Arc::new(ManualClock::at("2026-03-02T09:30:00Z".parse().expect("a time")));
    let options = SqliteOptions::new(folder.path().join("orders.db")).clock(std::sync::Arc::clone(&clock));
    let store = options.open().await.expect("opened");
    let shop = Shop::over(store).await.expect("started");
    let price = Money::euro_cents(50);
    let lines = vec![Line { product: "paper clip".to_owned(), quantity: 1, price }];
    let mut last = annals::Position::START;
    for id in ["o-9999", "o-10000"] {
        let id = o(id);
        shop.orders.send(&id, Place { customer: alice(), lines: lines.clone() }).await.expect("placed");
        shop.orders.send(&id, pay(price)).await.expect("paid");
        clock.advance(std::time::Duration::from_secs(24 * 60 * 60));
        last = shop.orders.send(&id, cancel()).await.expect("cancelled").position;
        clock.advance(std::time::Duration::from_secs(24 * 60 * 60));
    }
    shop.caught_up(last).await.expect("caught up");
    let mut printed = Vec::new();
    tables::show(&shop.views, &o("o-9999"), &mut printed).await.expect("shown");
    let printed = String::from_utf8(printed).expect("text");
    let of_refunds: Vec<_> = printed.lines().filter(|line| line.contains("-0.50")).collect();
    assert_eq!(of_refunds.len(), 2, "{printed}");
    assert!(of_refunds.iter().all(|line| line.contains("│ 0      │ -0.50   │ -")), "{printed}");
}
