//! Events as they are stored, for checks and for people.

use std::error::Error;
use std::fmt::Write;

use crate::event::Event;

/// The width of a column when two texts are shown side by side.
const COLUMN: usize = 56;

/// Every stored name and schema version of an event type, a line each in the order of declaration, with its place in
/// the code: for a golden file, in which a changed name shows in review.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::testing::shapes_of;
///
/// assert_eq!(
///     shapes_of::<OrderEvent>(),
///     "order.placed v1  OrderEvent::Placed\n\
///      order.paid v1  OrderEvent::Paid\n"
/// );
/// ```
#[must_use]
pub fn shapes_of<E: Event>() -> String {
    E::SHAPES.iter().fold(String::new(), |mut text, shape| {
        // Lines are not aligned, so that a new event changes no other line of the golden file.
        text.push_str(&format!("{} v{}  {}\n", shape.name, shape.version, shape.rust_name));
        text
    })
}

/// The event as a store returns it.
#[track_caller]
pub(super) fn read_back<E: Event>(what: &str, event: &E) -> E {
    let shape = event.shape();
    let named = format!("{what}, `{}` v{} ({}),", shape.name, shape.version, shape.rust_name);
    let payload = event.encode().unwrap_or_else(|e| panic!("{named} cannot be stored: {e}"));
    let parts = E::read(shape.name, shape.version, &payload)
        .unwrap_or_else(|e| panic!("{named} cannot be read back from {}: {}", payload.as_str(), chain(&e)));
    let count = parts.as_slice().len();
    let (Some(back), 1) = (parts.into_iter().next(), count) else {
        panic!("{named} is read back as {count} events");
    };
    let again = back.encode().unwrap_or_else(|e| panic!("{named} cannot be stored again: {e}"));
    assert!(
        back.shape() == shape && again == payload,
        "{named} is another one after it was stored\n{}",
        side_by_side(("stored", &[show(event)]), ("read back", &[show(&back)]))
    );
    back
}

/// The event in one line: `order.paid v1 {"amount": 5}`. Equal lines are equal events.
#[track_caller]
pub(super) fn show<E: Event>(event: &E) -> String {
    let shape = event.shape();
    let payload = event.encode().unwrap_or_else(|e| panic!("`{}` cannot be stored: {e}", shape.name));
    format!("{} v{} {}", shape.name, shape.version, payload.as_str())
}

/// Two lists side by side, with a mark where they differ.
pub(super) fn side_by_side(left: (&str, &[String]), right: (&str, &[String])) -> String {
    let mut text = String::new();
    let mut row = |mark: char, left: &str, right: &str| {
        let (left, right) = (cut(left), cut(right));
        for at in 0..left.len().max(right.len()) {
            let cell = |cells: &[String]| cells.get(at).cloned().unwrap_or_default();
            let line = format!("  {mark} {:COLUMN$} | {}", cell(&left), cell(&right));
            writeln!(text, "{}", line.trim_end()).expect("writing to a string");
        }
    };
    row(' ', left.0, right.0);
    row(' ', &"-".repeat(COLUMN), &"-".repeat(COLUMN));
    let nothing = "(nothing)".to_owned();
    for at in 0..left.1.len().max(right.1.len()).max(1) {
        let absent = if at == 0 { nothing.as_str() } else { "" };
        let of = |side: &[String]| side.get(at).map_or(absent, String::as_str).to_owned();
        let mark = if left.1.get(at) == right.1.get(at) { ' ' } else { '!' };
        row(mark, &of(left.1), &of(right.1));
    }
    text
}

/// The text in pieces that fit a column.
fn cut(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = chars.chunks(COLUMN).map(|piece| piece.iter().collect()).collect();
    if pieces.is_empty() { vec![String::new()] } else { pieces }
}

/// An error with all its sources.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
