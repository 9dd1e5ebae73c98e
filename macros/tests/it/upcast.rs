//! Events that changed, as derived code reads them.

use annals_eventstore::{DecodeError, Event as _, JsonUpcaster, Payload, StepError};
use annals_macros::Event;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct PlacedV1 {
    item: String,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct PlacedV2 {
    items: Vec<String>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Placed {
    items: Vec<String>,
    count: u8,
}

impl From<PlacedV1> for PlacedV2 {
    fn from(old: PlacedV1) -> Self {
        if old.item == "panic" {
            panic!("no such item");
        }
        Self { items: vec![old.item] }
    }
}

impl TryFrom<PlacedV2> for Placed {
    type Error = std::num::TryFromIntError;

    fn try_from(old: PlacedV2) -> Result<Self, Self::Error> {
        Ok(Self { count: old.items.len().try_into()?, items: old.items })
    }
}

#[derive(Serialize, Deserialize)]
struct MovedV1(String);

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum OrderEvent {
    #[event(name = "order.placed", version = 3, upcast(PlacedV1, PlacedV2))]
    Placed(Placed),
    #[event(name = "order.moved", version = 2, upcast(MovedV1))]
    Moved { to: String },
    #[event(name = "order.closed")]
    Closed,
}

impl TryFrom<MovedV1> for OrderEvent {
    type Error = String;

    fn try_from(old: MovedV1) -> Result<Self, Self::Error> {
        if old.0.is_empty() { Err("no place".to_owned()) } else { Ok(Self::Moved { to: old.0 }) }
    }
}

#[derive(Serialize, Deserialize)]
struct CountedV1 {
    n: u32,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(name = "stock.counted", version = 2, upcast(CountedV1))]
struct StockCounted {
    amount: u32,
}

impl From<CountedV1> for StockCounted {
    fn from(old: CountedV1) -> Self {
        Self { amount: old.n }
    }
}

/// The chain of case "a chain goes on behind a split": by JSON, then by types.
#[derive(Serialize, Deserialize)]
struct TakenV2 {
    cents: i64,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Taken {
    amount: String,
}

impl From<TakenV2> for Taken {
    fn from(old: TakenV2) -> Self {
        Self { amount: format!("{} cents", old.cents) }
    }
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(upcasters = PAYMENT_STEPS)]
enum PaymentEvent {
    #[event(name = "payment.taken", version = 3, upcast(TakenV2))]
    Taken(Taken),
    #[event(name = "receipt.sent", version = 2)]
    ReceiptSent { to: String },
}

const PAYMENT_STEPS: &[JsonUpcaster] = &[
    JsonUpcaster::split(("payment.taken", 1), &[("payment.taken", 2), ("receipt.sent", 1)], separate_receipt),
    JsonUpcaster::change(("receipt.sent", 1), name_the_receiver),
    JsonUpcaster::rename(("payment.booked", 1), ("payment.taken", 1)),
    JsonUpcaster::drop(("payment.viewed", 1)),
];

fn separate_receipt(payment: Value) -> Result<Vec<(&'static str, Value)>, StepError> {
    let to = payment["to"].as_array().ok_or("no receivers")?;
    let taken = ("payment.taken", json!({ "cents": payment["cents"] }));
    let receipts = to.iter().map(|to| ("receipt.sent", to.clone()));
    Ok([taken].into_iter().chain(receipts).collect())
}

fn name_the_receiver(receipt: Value) -> Result<Value, StepError> {
    match receipt.as_str() {
        Some("panic") => panic!("no such receiver"),
        Some("unlisted") => Ok(json!({ "receiver": 1 })),
        Some(to) => Ok(json!({ "to": to })),
        None => Err("no text".into()),
    }
}

#[derive(Event, Debug, PartialEq)]
enum ShopEvent {
    #[event(transparent)]
    Order(OrderEvent),
    #[event(transparent)]
    Payment(PaymentEvent),
}

fn json_payload(json: &str) -> Payload {
    Payload::from_json(json).expect("a payload")
}

/// A stored event and what it is read as.
#[track_caller]
fn check<E: annals_eventstore::Event + std::fmt::Debug + PartialEq>(stored: (&str, u32, &str), expected: &[E]) {
    let read = E::read(stored.0, stored.1, &json_payload(stored.2)).expect("it can be read");
    assert_eq!(read.as_slice(), expected);
}

/// A stored event and why it cannot be read, with all causes.
#[track_caller]
fn check_failure<E: annals_eventstore::Event + std::fmt::Debug>(stored: (&str, u32, &str), expected: &str) {
    let error = E::read(stored.0, stored.1, &json_payload(stored.2)).expect_err("it cannot be read");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert_eq!(text, expected);
}

fn placed(items: &[&str]) -> OrderEvent {
    let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
    OrderEvent::Placed(Placed { count: u8::try_from(items.len()).expect("few items"), items })
}

#[test]
fn every_version_is_read_as_the_present_one_by_typed_steps() {
    check(("order.placed", 1, r#"{"item": "cup"}"#), &[placed(&["cup"])]);
    check(("order.placed", 2, r#"{"items": ["cup", "pot"]}"#), &[placed(&["cup", "pot"])]);
    check(("order.placed", 3, r#"{"items": [], "count": 0}"#), &[placed(&[])]);
    check(("order.moved", 1, r#""north""#), &[OrderEvent::Moved { to: "north".to_owned() }]);
    check(("order.closed", 1, "{}"), &[OrderEvent::Closed]);
    check(("stock.counted", 1, r#"{"n": 4}"#), &[StockCounted { amount: 4 }]);
}

#[test]
fn what_is_read_is_listed_with_old_names_and_versions() {
    let listed = |shapes: &[annals_eventstore::EventShape]| {
        let lines: Vec<_> =
            shapes.iter().map(|shape| format!("{} {} {}", shape.name, shape.version, shape.rust_name)).collect();
        lines.join("\n")
    };
    let order = "order.placed 3 OrderEvent::Placed\norder.moved 2 OrderEvent::Moved\norder.closed 1 OrderEvent::Closed\n\
                 order.placed 1 PlacedV1\norder.placed 2 PlacedV2\norder.moved 1 MovedV1";
    let payment = "payment.taken 3 PaymentEvent::Taken\nreceipt.sent 2 PaymentEvent::ReceiptSent\npayment.taken 2 TakenV2\n\
                   payment.taken 1 a step on JSON\nreceipt.sent 1 a step on JSON\npayment.booked 1 a step on JSON\n\
                   payment.viewed 1 a step on JSON";
    assert_eq!(listed(OrderEvent::READS), order);
    assert_eq!(listed(PaymentEvent::READS), payment);
    assert_eq!(listed(ShopEvent::READS), format!("{order}\n{payment}"));
    assert_eq!(ShopEvent::SHAPES.len(), 5, "what is written is written in one version");
    assert_eq!(StockCounted::READS.len(), 2);
}

#[test]
fn a_chain_goes_on_behind_a_split() {
    let taken = |cents: i64| PaymentEvent::Taken(Taken { amount: format!("{cents} cents") });
    let sent = |to: &str| PaymentEvent::ReceiptSent { to: to.to_owned() };
    check(("payment.taken", 1, r#"{"cents": 5, "to": ["ann"]}"#), &[taken(5), sent("ann")]);
    check(("payment.taken", 1, r#"{"cents": 5, "to": ["ann", "bob"]}"#), &[taken(5), sent("ann"), sent("bob")]);
    check(("payment.booked", 1, r#"{"cents": 5, "to": []}"#), &[taken(5)]);
    check(("payment.taken", 2, r#"{"cents": 5}"#), &[taken(5)]);
    check(("receipt.sent", 1, r#""ann""#), &[sent("ann")]);
    check::<PaymentEvent>(("payment.viewed", 1, r#"{"by": "ann"}"#), &[]);
}

/// The variant of the case: the first part of the split is dropped later.
#[test]
fn a_part_of_a_split_may_be_dropped_later() {
    #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
    #[event(upcasters = STEPS)]
    enum ReceiptEvent {
        #[event(name = "receipt.sent", version = 2)]
        Sent { to: String },
    }
    const STEPS: &[JsonUpcaster] = &[
        JsonUpcaster::split(("payment.taken", 1), &[("payment.taken", 2), ("receipt.sent", 1)], separate_receipt),
        JsonUpcaster::drop(("payment.taken", 2)),
        JsonUpcaster::change(("receipt.sent", 1), name_the_receiver),
    ];
    check(("payment.taken", 1, r#"{"cents": 5, "to": ["ann"]}"#), &[ReceiptEvent::Sent { to: "ann".to_owned() }]);
}

#[test]
fn a_wrapping_enum_reads_by_the_steps_of_what_it_wraps() {
    check(("order.placed", 1, r#"{"item": "cup"}"#), &[ShopEvent::Order(placed(&["cup"]))]);
    let parts = PaymentEvent::read("payment.booked", 1, &json_payload(r#"{"cents": 5, "to": ["ann"]}"#)).unwrap();
    let parts: Vec<_> = parts.into_iter().map(ShopEvent::Payment).collect();
    assert_eq!(parts.len(), 2);
    check(("payment.booked", 1, r#"{"cents": 5, "to": ["ann"]}"#), &parts);
}

#[test]
fn a_step_that_fails_or_panics_is_named_with_its_cause() {
    let many = format!(r#"{{"items": [{}]}}"#, vec![r#""cup""#; 300].join(", "));
    check_failure::<OrderEvent>(
        ("order.placed", 2, &many),
        "the step from `order.placed` version 2 to version 3 failed: out of range integral type conversion attempted",
    );
    check_failure::<OrderEvent>(
        ("order.placed", 1, r#"{"item": "panic"}"#),
        "the step from `order.placed` version 1 to version 2 failed: it panicked: no such item",
    );
    check_failure::<OrderEvent>(
        ("order.moved", 1, r#""""#),
        "the step from `order.moved` version 1 to version 2 failed: no place",
    );
    check_failure::<ShopEvent>(
        ("payment.taken", 1, r#"{"cents": 5}"#),
        "the step from `payment.taken` version 1 to `payment.taken` version 2, `receipt.sent` version 1 failed: no receivers",
    );
    check_failure::<PaymentEvent>(
        ("payment.taken", 1, r#"{"cents": 5, "to": ["panic"]}"#),
        "the step from `receipt.sent` version 1 to `receipt.sent` version 2 failed: it panicked: no such receiver",
    );
}

/// The step is to blame for what it gives, not the stored payload.
#[test]
fn what_a_step_gives_and_does_not_fit_names_the_step() {
    check_failure::<PaymentEvent>(
        ("receipt.sent", 1, r#""unlisted""#),
        "the step from `receipt.sent` version 1 to `receipt.sent` version 2 failed: what it gave as `receipt.sent` version 2 does \
         not fit: missing field `to` at line 1 column 15",
    );
    check_failure::<OrderEvent>(
        ("order.placed", 1, r#"{"thing": "cup"}"#),
        "the payload does not fit: missing field `item` at line 1 column 16",
    );
}

/// serde_json reads numbers of this size as the nearest `f64`. The disaster: an amount changed by being read.
#[test]
fn a_number_that_a_step_on_json_would_round_is_an_error() {
    check_failure::<PaymentEvent>(
        ("payment.taken", 1, r#"{"cents": 123456789012345678901234567890, "to": []}"#),
        "the step from `payment.taken` version 1 to `payment.taken` version 2, `receipt.sent` version 1 failed: the payload has a \
         number that `serde_json::Value` rounds; use `upcast(..)` with a type that holds it",
    );
}

#[test]
fn a_version_that_is_newer_than_known_is_an_error() {
    let payload = json_payload("{}");
    for (name, version, newest) in [("order.placed", 4, 3), ("order.closed", 2, 1), ("payment.booked", 2, 1)] {
        match ShopEvent::read(name, version, &payload) {
            Err(DecodeError::UnknownSchemaVersion { found, known, .. }) => {
                assert_eq!((found, known), (version, newest))
            }
            other => panic!("{other:?}"),
        }
    }
    match PaymentEvent::read("order.placed", 1, &payload) {
        Err(DecodeError::UnknownName { known, .. }) => {
            assert_eq!(known, "payment.taken, receipt.sent, payment.booked, payment.viewed");
        }
        other => panic!("{other:?}"),
    }
}
