use super::{NoEvent, find_shape};
use crate::error::DecodeError;
use crate::event::{Event, EventShape};
use crate::payload::Payload;

const SHAPES: &[EventShape] = &[
    EventShape { name: "order.placed", version: 2, rust_name: "OrderEvent::Placed" },
    EventShape { name: "order.paid", version: 1, rust_name: "OrderEvent::Paid" },
];

fn check(name: &str, schema_version: u32, expected: Result<u32, &str>) {
    let found = find_shape(SHAPES, name, schema_version).map_err(|error| error.to_string());
    assert_eq!(found, expected.map_err(str::to_owned));
}

#[test]
fn a_known_name_and_version_give_the_place_of_the_shape() {
    check("order.placed", 2, Ok(0));
    check("order.paid", 1, Ok(1));
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    check(
        "order.lost",
        1,
        Err("no event is called `order.lost`; known are order.placed, order.paid; deploy a build that knows it"),
    );
    check(
        "order.place",
        2,
        Err("no event is called `order.place`; known are order.placed, order.paid; deploy a build that knows it"),
    );
}

#[test]
fn older_and_newer_versions_are_not_taken_for_the_known_one() {
    for version in [1, 3] {
        let expected = format!(
            "`order.placed` is known in schema version 2, not {version}; deploy a build that knows version {version}"
        );
        check("order.placed", version, Err(&expected));
    }
}

#[test]
fn the_placeholder_event_is_never_decoded() {
    let payload = Payload::of(&()).unwrap();
    assert!(matches!(NoEvent::decode("order.placed", 2, &payload), Err(DecodeError::UnknownName { .. })));
}
