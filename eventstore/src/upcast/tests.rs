use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use super::message::Message;
use super::{JsonUpcaster, StepError, reads};
use crate::event::EventShape;

const fn shape(name: &'static str, version: u32) -> EventShape {
    EventShape { name, version, rust_name: "" }
}

/// What the type writes.
const WRITTEN: &[EventShape] = &[shape("paid", 3), shape("sent", 1)];

fn same(payload: Value) -> Result<Value, StepError> {
    Ok(payload)
}

fn none(_: Value) -> Result<Vec<(&'static str, Value)>, StepError> {
    Ok(Vec::new())
}

const fn change(name: &'static str, version: u32) -> JsonUpcaster {
    JsonUpcaster::change((name, version), same)
}

/// What is read beside what is written, as text, or why the steps are refused.
fn check(typed: &[EventShape], steps: &[JsonUpcaster], expected: Result<&str, &str>) {
    // Room for the longest list below; the compiler counts for users.
    let read = catch_unwind(AssertUnwindSafe(|| match typed.len() + steps.len() {
        0 => reads::<2>(WRITTEN, typed, steps).to_vec(),
        1 => reads::<3>(WRITTEN, typed, steps).to_vec(),
        2 => reads::<4>(WRITTEN, typed, steps).to_vec(),
        3 => reads::<5>(WRITTEN, typed, steps).to_vec(),
        _ => reads::<6>(WRITTEN, typed, steps).to_vec(),
    }));
    let read = read.map(|shapes| {
        let names: Vec<_> = shapes.iter().map(|shape| format!("{} {}", shape.name, shape.version)).collect();
        names[WRITTEN.len()..].join(", ")
    });
    let read = read.map_err(|panic| *panic.downcast::<String>().expect("a message"));
    assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned));
}

#[test]
fn chains_that_lead_to_what_is_written_are_read() {
    check(&[], &[], Ok(""));
    check(&[shape("paid", 1), shape("paid", 2)], &[], Ok("paid 1, paid 2"));
    check(&[], &[change("paid", 2), change("paid", 1)], Ok("paid 2, paid 1"));
    check(&[shape("paid", 2)], &[change("paid", 1)], Ok("paid 2, paid 1"));
    check(&[], &[JsonUpcaster::rename(("taken", 7), ("paid", 3))], Ok("taken 7"));
    // A name that goes on with the number of another has no version 1.
    check(&[], &[JsonUpcaster::rename(("taken", 1), ("paid", 2)), change("paid", 2)], Ok("taken 1, paid 2"));
    check(&[], &[JsonUpcaster::drop(("noted", 1)), JsonUpcaster::drop(("noted", 2))], Ok("noted 1, noted 2"));
    check(
        &[shape("paid", 2)],
        &[JsonUpcaster::split(("paid", 1), &[("paid", 2), ("sent", 1)], none)],
        Ok("paid 2, paid 1"),
    );
}

#[test]
fn a_chain_with_a_hole_is_refused() {
    let gap = "the step from `taken` version 1 gives `taken` version 2, which the type does not write, and no step begins there; add \
               a step from `taken` version 2, or correct the name or version that it gives";
    check(&[], &[change("taken", 1)], Err(gap));
    let sibling = "the step from `paid` version 2 gives `mailed` version 1, which the type does not write, and no step begins there; \
                   add a step from `mailed` version 1, or correct the name or version that it gives";
    check(&[], &[JsonUpcaster::split(("paid", 2), &[("paid", 3), ("mailed", 1)], none)], Err(sibling));
    let hole = |version| {
        format!(
            "no step begins at `paid` version {version}, though steps begin at other old versions; add its type to `upcast(..)`, or \
             a step to the list of steps"
        )
    };
    check(&[], &[change("paid", 2)], Err(&hole(1)));
    check(&[shape("paid", 2)], &[JsonUpcaster::drop(("noted", 1))], Err(&hole(1)));
    check(&[], &[JsonUpcaster::drop(("paid", 1))], Err(&hole(2)));
    let unwritten = hole(2).replace("paid", "noted");
    check(&[], &[JsonUpcaster::drop(("noted", 1)), JsonUpcaster::drop(("noted", 3))], Err(&unwritten));
}

#[test]
fn steps_that_come_back_are_refused() {
    let back = "the steps from `one` version 1 come back to where they begin; remove one of them";
    check(
        &[],
        &[JsonUpcaster::rename(("one", 1), ("two", 1)), JsonUpcaster::rename(("two", 1), ("one", 1))],
        Err(back),
    );
    check(&[], &[JsonUpcaster::rename(("one", 1), ("one", 1))], Err(back));
}

#[test]
fn two_steps_from_one_version_are_refused() {
    let two = "two steps begin at `paid` version 2; keep one of them, in `upcast(..)` or in the list of steps";
    check(&[shape("paid", 2)], &[change("paid", 2)], Err(two));
    check(&[], &[change("paid", 1), change("paid", 2), JsonUpcaster::drop(("paid", 2))], Err(two));
}

#[test]
fn a_step_from_what_is_written_or_from_the_future_is_refused() {
    for version in [3, 4] {
        let message = format!(
            "a step begins at `paid` version {version}, but the type writes `paid` version 3 itself; raise `version` above the \
             step, or remove the step"
        );
        check(&[], &[JsonUpcaster::drop(("paid", version))], Err(&message));
    }
    check(
        &[],
        &[JsonUpcaster::drop(("noted", 0))],
        Err("a step begins at `noted` version 0; schema versions count from 1"),
    );
}

#[test]
fn a_split_that_lists_a_name_twice_is_refused() {
    check(
        &[],
        &[JsonUpcaster::split(("taken", 1), &[("sent", 1), ("sent", 1)], none)],
        Err(
            "the split of `taken` version 1 lists `sent` twice; list each name once, also where it gives several events of it",
        ),
    );
}

#[test]
fn messages_hold_whole_pieces_of_any_text() {
    assert_eq!(Message::new("").stored(("ä", u32::MAX)).number(0).as_str(), "`ä` version 42949672950");
    let long = "ü".repeat(600);
    assert_eq!(Message::new("a").text(&long).text("b").as_str(), "ab");
}
