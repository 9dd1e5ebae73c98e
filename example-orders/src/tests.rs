//! The scene is a function, so a test can call it and compare what it prints. The rules and the folds are in `tests/rules.rs`.

mod rules;

use std::path::Path;

use annals::engine::{ManualClock, Payload, SeededIds};
use annals::testing::{GivenEvent, given_events, schema_lock, shapes_of};
use annals::{Event, SqliteOptions};
use jiff::Timestamp;
use sqlx::{Connection, PgConnection, Row};

use crate::checkout::parts::{PaymentEvent, ShipmentEvent, StockEvent};
use crate::degradation::{PreferencesEvent, ToggleEvent};
use crate::domain::credit::{Credit, CreditEvent};
use crate::domain::customer::{Customer, CustomerEvent};
use crate::domain::money::{Currency, Money};
use crate::domain::order::OrderCommand::Place;
use crate::domain::order::{CustomerId, Line, Order, OrderEvent, OrderId};
use crate::location::Location;
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
use crate::services::EntryEvent;
use crate::shop::Shop;
use crate::tests::rules::{alice, cancel, o, pay};

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
fn the_statement_counts_the_events_of_both_aggregates_in_each_currency() {
    let euro = Money::euro_cents;
    let carol = || CustomerId::new("carol").expect("an id");
    let dollars = |minor| Money { minor, currency: Currency::Usd };
    let placed = |total| OrderEvent::Placed { customer: carol(), lines: vec![], total };
    let row =
        |currency, ordered, granted| Statement { customer: carol(), currency, orders: 1, ordered, granted, charged: 0 };
    given_events([
        GivenEvent::of("credit", "carol", CreditEvent::Granted { amount: euro(2_000) }),
        GivenEvent::of("order", "o-1", placed(euro(500))),
        GivenEvent::of("order", "o-2", placed(dollars(70))),
    ])
    .with(CustomerStatement)
    .then_rows([row(Currency::Eur, 500, 2_000), row(Currency::Usd, 70, 0)]);
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
    schema_lock!(
        "events.lock",
        corpus = "tests/corpus",
        events = [
            ShopEvent,
            CustomerEvent,
            PaymentEvent,
            StockEvent,
            ShipmentEvent,
            ToggleEvent,
            PreferencesEvent,
            EntryEvent
        ],
        aggregates = [Order, Credit, Customer]
    );
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
