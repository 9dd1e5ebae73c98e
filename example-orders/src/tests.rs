//! The scene is a function, so a test can call it and keep what it prints.

use std::path::Path;

use annals::testing::{GivenEvent, given, given_events, shapes_of};
use annals::{ManualClock, SeededIds, SqliteOptions};
use jiff::Timestamp;
use sqlx::{Connection, PgConnection, Row};

use crate::detail::{Detail, OrderDetail};
use crate::money::{Currency, Money};
use crate::order::{CustomerId, Line, Order, OrderError, OrderEvent, OrderId, PaymentId, Status};
use crate::place::Place;
use crate::shop::Shop;
use crate::story;
use crate::tables::Tables;

/// Plays the scene once more at a shop that is open, and closes it.
async fn tell(shop: Shop, told: &mut Vec<u8>) {
    story::play(&shop, told).await.expect("played");
    told.extend(b"\n~~~~~~~~~~~~~~~~ again, the next day ~~~~~~~~~~~~~~~~\n\n");
    shop.close().await.expect("closed");
}

/// A shop in a file, at a moment that stands still.
async fn in_a_file(path: &Path, seed: u64, now: Timestamp) -> Shop {
    let options = SqliteOptions::new(path).clock(ManualClock::at(now)).ids(SeededIds::new(seed));
    let store = options.open().await.expect("opened");
    let tables = Tables::Sqlite(store.database().clone());
    Shop::over(store, tables).await.expect("started")
}

#[tokio::test]
async fn the_story_is_told_as_ever_and_goes_on_from_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.db");
    let mut told = Vec::new();
    for (seed, day) in [(1, "2026-03-02T09:30:00Z"), (2, "2026-03-03T17:45:00Z")] {
        tell(in_a_file(&path, seed, day.parse().expect("a time")).await, &mut told).await;
    }
    insta::assert_snapshot!("story", String::from_utf8(told).expect("text"));
}

/// The server's clock cannot be held, so the file's shop is played at the server's time, and hours are not compared.
#[tokio::test]
async fn the_story_is_the_same_on_postgresql() {
    loop {
        let scratch = annals_scratch::Database::empty().await;
        let place = Place::of(None, Some(scratch.url().to_owned())).expect("it is one of ours");
        let began = server_time(scratch.url()).await;
        let mut told = Vec::new();
        for _ in 0..2 {
            tell(Shop::open(&place).await.expect("opened"), &mut told).await;
        }
        let ended = server_time(scratch.url()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut expected = Vec::new();
        for seed in 1..=2 {
            tell(in_a_file(&folder.path().join("orders.db"), seed, began).await, &mut expected).await;
        }
        // Midnight may have come in between; then sales are of two days.
        if day_of(began) == day_of(ended) {
            assert_eq!(without_hours(told), without_hours(expected));
            return;
        }
    }
}

async fn server_time(url: &str) -> Timestamp {
    let mut connection = PgConnection::connect(url).await.expect("it is there");
    let now = "SELECT CAST(floor(extract(epoch FROM clock_timestamp())) AS bigint)";
    let row = sqlx::query(now).fetch_one(&mut connection).await.expect("it answers");
    Timestamp::from_second(row.get(0)).expect("a time")
}

fn day_of(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// `09:30` and the like become `hh:mm`.
fn without_hours(told: Vec<u8>) -> String {
    let is_hour = |word: &str| word.len() == 5 && word.as_bytes()[2] == b':';
    let told = String::from_utf8(told).expect("text");
    told.split(' ').map(|word| if is_hour(word) { "hh:mm" } else { word }).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_place_is_found_and_no_password_is_shown() {
    let url = |url: &str| Place::of(None, Some(url.to_owned()));
    assert!(matches!(url("postgres://app@localhost/shop"), Ok(Place::Postgres(_))));
    assert!(matches!(url("postgresql://app@localhost/shop"), Ok(Place::Postgres(_))));
    assert!(matches!(url(""), Ok(Place::File(_))));
    let both = Place::of(Some("shop.db".into()), Some("postgres://app@localhost/shop".to_owned()));
    assert!(matches!(both, Ok(Place::File(file)) if file == Path::new("shop.db")), "the command line comes first");
    for (unknown, said) in [
        ("mysql://app:secret@localhost/shop", "is of the kind `mysql`"),
        ("app:secret@localhost/shop", "is no URL"),
        ("secret with spaces://x", "is no URL"),
        ("shop.db", "is no URL"),
    ] {
        let error = url(unknown).err().expect("it is refused").to_string();
        assert!(error.contains(said) && error.contains("postgres://user@host"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
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
