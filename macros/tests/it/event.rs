use std::fmt::Debug;

use annals_eventstore::{DecodeError, Event as _, EventShape, MAX_NAME_BYTES, Payload};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Debug, PartialEq, Clone)]
enum OrderEvent {
    #[event(name = "order.placed", version = 2)]
    Placed { customer: String, lines: Vec<u32> },
    #[event(name = "order.paid")]
    Paid(u64),
    #[event(name = "order.moved")]
    Moved(i32, i32),
    #[event(name = "order.closed")]
    Closed,
    #[event(name = "order.checked")]
    r#Final {},
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(name = "stock.counted", version = 3)]
struct StockCounted {
    amount: u32,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(name = "stock.marked")]
struct StockMarked;

#[derive(Event, Debug, PartialEq)]
enum StockEvent {
    #[event(transparent)]
    Counted(StockCounted),
    #[event(transparent)]
    Marked(StockMarked),
}

#[derive(Event, Debug, PartialEq)]
enum ShopEvent {
    #[event(transparent)]
    Order(OrderEvent),
    #[event(transparent)]
    Stock(StockEvent),
}

fn every_order_event() -> Vec<OrderEvent> {
    vec![
        OrderEvent::Placed { customer: "c-1".to_owned(), lines: vec![1, 2] },
        OrderEvent::Paid(1),
        OrderEvent::Moved(-1, 2),
        OrderEvent::Closed,
        OrderEvent::Final {},
    ]
}

fn check_round_trip<E: annals_eventstore::Event + Debug + PartialEq>(event: &E) {
    let shape = event.shape();
    let payload = event.encode().expect("every value has a payload");
    assert_eq!(&E::decode(shape.name, shape.version, &payload).expect("every payload is read"), event);
}

#[test]
fn shapes_are_in_the_order_of_declaration_with_names_and_versions() {
    let shape = |name, version, rust_name| EventShape { name, version, rust_name };
    assert_eq!(
        OrderEvent::SHAPES,
        [
            shape("order.placed", 2, "OrderEvent::Placed"),
            shape("order.paid", 1, "OrderEvent::Paid"),
            shape("order.moved", 1, "OrderEvent::Moved"),
            shape("order.closed", 1, "OrderEvent::Closed"),
            shape("order.checked", 1, "OrderEvent::Final"),
        ]
    );
    assert_eq!(StockCounted::SHAPES, [shape("stock.counted", 3, "StockCounted")]);
}

#[test]
fn every_value_has_its_shape() {
    let shapes: Vec<_> = every_order_event().iter().map(|event| *event.shape()).collect();
    assert_eq!(shapes, OrderEvent::SHAPES);
    assert_eq!(StockMarked.shape().name, "stock.marked");
}

#[test]
fn every_kind_of_variant_comes_back_equal() {
    every_order_event().iter().for_each(check_round_trip);
}

#[test]
fn structs_come_back_equal() {
    check_round_trip(&StockCounted { amount: 7 });
    check_round_trip(&StockMarked);
}

#[test]
fn unknown_names_and_unknown_versions_are_different_errors() {
    let payload = OrderEvent::Closed.encode().unwrap();
    match OrderEvent::decode("order.lost", 1, &payload) {
        Err(DecodeError::UnknownName { name, known }) => {
            assert_eq!(name, "order.lost");
            assert_eq!(known, "order.placed, order.paid, order.moved, order.closed, order.checked");
        }
        other => panic!("{other:?}"),
    }
    match OrderEvent::decode("order.placed", 3, &payload) {
        Err(DecodeError::UnknownSchemaVersion { name, found: 3, known: 2 }) => assert_eq!(name, "order.placed"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        StockCounted::decode("stock.counted", 1, &payload),
        Err(DecodeError::UnknownSchemaVersion { known: 3, .. })
    ));
}

/// The disaster: an app renamed a variant or an enum, and its old events could not be read any more.
#[test]
fn renamed_rust_code_reads_what_was_written_before() {
    #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
    enum Happened {
        #[event(name = "order.placed", version = 2)]
        Ordered { customer: String, lines: Vec<u32> },
        #[event(name = "order.paid")]
        MoneyCame(u64),
    }
    let placed = OrderEvent::Placed { customer: "c-1".to_owned(), lines: vec![3] }.encode().unwrap();
    let read = Happened::decode("order.placed", 2, &placed).unwrap();
    assert_eq!(read, Happened::Ordered { customer: "c-1".to_owned(), lines: vec![3] });
    let paid = OrderEvent::Paid(5).encode().unwrap();
    assert_eq!(Happened::decode("order.paid", 1, &paid).unwrap(), Happened::MoneyCame(5));
}

#[test]
fn serde_attributes_on_fields_work_as_usual() {
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Money {
        cents: i64,
        currency: String,
    }
    #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
    #[serde(rename_all_fields = "camelCase", deny_unknown_fields)]
    enum Billed {
        #[event(name = "billed.once")]
        Once {
            order_number: u32,
            #[serde(default)]
            note: Option<String>,
        },
    }
    #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
    enum Refunded {
        #[event(name = "refunded.fully")]
        Fully {
            #[serde(flatten)]
            money: Money,
            #[serde(skip)]
            cached: u8,
        },
    }
    let billed = Billed::Once { order_number: 1, note: None };
    check_round_trip(&billed);
    assert_eq!(billed.encode().unwrap(), Payload::from_json(r#"{"orderNumber":1,"note":null}"#).unwrap());
    let old = Payload::from_json(r#"{"orderNumber":1}"#).unwrap();
    assert_eq!(Billed::decode("billed.once", 1, &old).unwrap(), billed);
    let refunded = Refunded::Fully { money: Money { cents: 5, currency: "EUR".to_owned() }, cached: 0 };
    check_round_trip(&refunded);
    assert_eq!(refunded.encode().unwrap(), Payload::from_json(r#"{"cents":5,"currency":"EUR"}"#).unwrap());
}

/// Only the stored name decides: two variants with equal content are never confused.
#[test]
fn variants_of_equal_content_are_chosen_by_name() {
    #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Moved {
        #[event(name = "moved.in")]
        In(u32),
        #[event(name = "moved.out")]
        #[serde(rename = "elsewhere")]
        Out(u32),
    }
    let payload = Moved::In(4).encode().unwrap();
    assert_eq!(Moved::decode("moved.out", 1, &payload).unwrap(), Moved::Out(4));
    assert_eq!(Moved::decode("moved.in", 1, &payload).unwrap(), Moved::In(4));
}

#[test]
fn only_the_content_is_stored() {
    let check = |event: OrderEvent, json: &str| {
        assert_eq!(event.encode().unwrap(), Payload::from_json(json).unwrap());
    };
    check(OrderEvent::Placed { customer: "c".to_owned(), lines: vec![] }, r#"{"customer":"c","lines":[]}"#);
    check(OrderEvent::Paid(9), "9");
    check(OrderEvent::Moved(1, 2), "[1,2]");
    check(OrderEvent::Final {}, "{}");
}

#[test]
fn names_as_long_as_the_store_allows_are_accepted() {
    #[derive(Event, Serialize, Deserialize)]
    #[event(
        name = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
    )]
    struct Long;
    assert_eq!(Long::SHAPES[0].name.len(), MAX_NAME_BYTES);
}

/// Names and versions may come through a `macro_rules!` variable, which the compiler wraps in invisible groups.
#[test]
fn labels_may_come_from_a_macro() {
    macro_rules! declare {
        ($rust:ident, $name:literal, $version:literal) => {
            #[derive(Event, Serialize, Deserialize)]
            #[event(name = $name, version = $version)]
            struct $rust;
        };
    }
    declare!(Rung, "bell.rung", 4);
    assert_eq!(Rung.shape(), &EventShape { name: "bell.rung", version: 4, rust_name: "Rung" });
}

#[test]
fn a_wrapping_enum_has_the_names_of_what_it_wraps_at_every_depth() {
    assert_eq!(ShopEvent::SHAPES, [OrderEvent::SHAPES, StockCounted::SHAPES, StockMarked::SHAPES].concat());
    for event in every_order_event() {
        let (shape, payload) = (event.shape(), event.encode().unwrap());
        let wrapped = ShopEvent::Order(event);
        assert_eq!((wrapped.shape(), wrapped.encode().unwrap().as_str()), (shape, payload.as_str()));
        check_round_trip(&wrapped);
    }
    check_round_trip(&ShopEvent::Stock(StockEvent::Counted(StockCounted { amount: 7 })));
    check_round_trip(&ShopEvent::Stock(StockEvent::Marked(StockMarked)));
}

#[test]
fn a_wrapping_enum_refuses_what_none_of_its_types_can_read() {
    let payload = StockCounted { amount: 7 }.encode().unwrap();
    match ShopEvent::decode("stock.counted", 9, &payload) {
        Err(DecodeError::UnknownSchemaVersion { found: 9, known: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    match ShopEvent::decode("stock.lost", 1, &payload) {
        Err(DecodeError::UnknownName { known, .. }) => {
            assert!(known.contains("order.placed") && known.contains("stock.marked"), "{known}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(ShopEvent::decode("order.paid", 1, &payload), Err(DecodeError::Payload { .. })));
}

mod of_an_aggregate {
    use annals_eventstore::{Event, EventsOf};
    use annals_macros::Event;
    use serde::{Deserialize, Serialize};

    #[derive(Event, Serialize, Deserialize)]
    #[event(of = "order")]
    enum OrderEvent {
        #[event(name = "closed")]
        Closed,
    }

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "counted", of = "stock")]
    struct Counted;

    #[derive(Event)]
    enum ShopEvent {
        #[event(transparent)]
        Order(OrderEvent),
        #[event(transparent)]
        Stock(Counted),
    }

    #[test]
    fn a_type_says_of_which_aggregate_its_events_are_and_one_that_wraps_others_says_the_same() {
        let order = EventsOf { aggregate_type: "order", events: OrderEvent::READS };
        assert_eq!(OrderEvent::OF, [order]);
        assert_eq!(ShopEvent::OF, [order, EventsOf { aggregate_type: "stock", events: Counted::READS }]);
        let _ = (ShopEvent::Order(OrderEvent::Closed), ShopEvent::Stock(Counted));
    }
}
