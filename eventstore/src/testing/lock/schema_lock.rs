//! The lock as users call it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::compare::compare;
use super::corpus::{StoredEvent, read_corpus};
use super::line::{HEADER, Line, parse};
use super::now::Now;
use crate::aggregate::{Aggregate, Evolve};
use crate::event::{Event, EventShape};
use crate::parts::Parts;
use crate::payload::Payload;
use crate::testing::stored::chain;

/// Set to `1`, it makes the check write what is new into the lock file.
const UPDATE: &str = "ANNALS_UPDATE_LOCK";

/// Compares event types and aggregates with a lock file and a corpus of stored events; [`schema_lock!`](crate::testing::schema_lock)
/// makes one with paths in your crate, and says what is compared.
#[derive(Debug)]
#[must_use = "nothing is compared before `check`"]
pub struct SchemaLock {
    pub(super) file: PathBuf,
    pub(super) corpus: PathBuf,
    pub(super) events: Vec<EventType>,
    pub(super) aggregates: Vec<AggregateType>,
}

/// What is compared of an event type.
#[derive(Debug)]
pub(super) struct EventType {
    pub(super) writes: &'static [EventShape],
    pub(super) reads: &'static [EventShape],
    /// What a stored event is read as, encoded again.
    pub(super) again: fn(&StoredEvent) -> Result<Vec<Encoded>, String>,
}

/// An event that was read and encoded again.
pub(super) type Encoded = (&'static EventShape, Payload);

/// What is compared of an aggregate.
#[derive(Debug)]
pub(super) struct AggregateType {
    pub(super) name: &'static str,
    pub(super) fold: u32,
    pub(super) reads: &'static [EventShape],
    /// The states after each of some stored events.
    pub(super) states: fn(&[StoredEvent]) -> Result<String, String>,
}

impl SchemaLock {
    /// A lock in `file` over the stored events in the folder `corpus`.
    pub fn new(file: impl Into<PathBuf>, corpus: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), corpus: corpus.into(), events: Vec::new(), aggregates: Vec::new() }
    }

    /// The same, and of this event type: its shapes, and that everything it says to read can be read.
    pub fn events<E: Event>(mut self) -> Self {
        self.events.push(EventType { writes: E::SHAPES, reads: E::READS, again: encode_again::<E> });
        self
    }

    /// The same, and of this aggregate: its events, and the states that they lead to.
    ///
    /// States are compared as JSON and not as `Debug` shows them, so that renaming Rust code changes nothing. A collection
    /// without an order, such as a `HashSet`, has no place in a state, as its JSON differs from run to run.
    pub fn aggregate<A: Evolve + Serialize>(self) -> Self {
        let mut with = self.events::<A::Event>();
        let reads = <<A as Aggregate>::Event as Event>::READS;
        with.aggregates.push(AggregateType { name: A::TYPE, fold: A::FOLD, reads, states: states::<A> });
        with
    }

    /// Compares; with the environment variable `ANNALS_UPDATE_LOCK=1` it also writes what is new.
    ///
    /// # Panics
    /// If something changed that must not, with every change, its place and what to do; and without the variable, if
    /// something is new.
    #[track_caller]
    pub fn check(&self) {
        let update = std::env::var_os(UPDATE).is_some_and(|value| value == "1");
        if let Err(problems) = self.compare(update) {
            panic!("the schema lock does not hold:\n  {}", problems.join("\n  "));
        }
    }

    /// What is wrong; nothing is written then.
    pub(super) fn compare(&self, update: bool) -> Result<(), Vec<String>> {
        let file = self.file.display();
        let now = Now::of(self, &read_corpus(&self.corpus)?)?;
        let wanted = text(&now.lines);
        let found = match std::fs::read_to_string(&self.file) {
            // As version control may write it.
            Ok(found) => found.replace("\r\n", "\n"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && update => return self.write(&wanted),
            Err(error) => {
                let fix = format!("take it from version control; if there never was one, run the test with {UPDATE}=1");
                return Err(vec![format!("{file}: cannot be read ({error}); {fix}")]);
            }
        };
        let at_line = |what: &String| format!("{file}:{what}");
        let locked = parse(&found).map_err(|wrong| wrong.iter().map(at_line).collect::<Vec<_>>())?;
        let changes = compare(&locked, &now);
        if !changes.refused.is_empty() {
            return Err(changes.refused.iter().map(at_line).collect());
        }
        if found == wanted {
            return Ok(());
        }
        if update {
            return self.write(&wanted);
        }
        let fix = format!("{file}: is not what it should be, but nothing in it is lost; run the test with {UPDATE}=1");
        Err(changes.allowed.iter().map(at_line).chain([fix]).collect())
    }

    fn write(&self, wanted: &str) -> Result<(), Vec<String>> {
        std::fs::write(&self.file, wanted)
            .map_err(|error| vec![format!("{}: cannot be written ({error})", self.file.display())])
    }
}

fn text(lines: &BTreeSet<Line>) -> String {
    lines.iter().fold(format!("{HEADER}\n"), |mut text, line| {
        writeln!(text, "{line}").expect("writing to a string");
        text
    })
}

fn read<E: Event>(stored: &StoredEvent) -> Result<Parts<E>, String> {
    E::read(&stored.name, stored.version, &stored.payload).map_err(|error| chain(&error))
}

fn encode_again<E: Event>(stored: &StoredEvent) -> Result<Vec<Encoded>, String> {
    let encoded = |event: E| Ok((event.shape(), event.encode().map_err(|error| error.to_string())?));
    read::<E>(stored)?.into_iter().map(encoded).collect()
}

/// The states after each of the stored events, as lines of JSON.
fn states<A: Evolve + Serialize>(events: &[StoredEvent]) -> Result<String, String> {
    let (mut state, mut states) = (A::default(), String::new());
    for stored in events {
        for event in read::<A::Event>(stored)? {
            state.evolve(&event);
        }
        let json = Payload::of(&state).map_err(|error| format!("the state of `{}` is no JSON: {error}", A::TYPE))?;
        states.push_str(json.as_str());
        states.push('\n');
    }
    Ok(states)
}

/// Compares event types and aggregates with a lock file and a corpus of stored events, both in version control. Call it in a test.
///
/// ```no_run
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::OrderEvent;
/// # #[derive(annals_macros::Aggregate, serde::Serialize, Clone, Default)]
/// # #[aggregate(name = "order", id = String, event = OrderEvent)]
/// # struct Order;
/// # impl annals_eventstore::Evolve for Order { fn evolve(&mut self, _: &OrderEvent) {} }
/// use annals_eventstore::testing::schema_lock;
///
/// #[test]
/// fn stored_events_keep_their_shape_and_meaning() {
///     schema_lock!("events.lock", corpus = "tests/corpus", events = [OrderEvent], aggregates = [Order]);
/// }
/// # fn main() {}
/// ```
///
/// Paths are those below your crate's Cargo.toml. An aggregate stands for its event type too; either list may be left out.
///
/// # The corpus
/// One payload per file, as a store has it, named after the event: `order.placed.v1.json`; more examples of it get a word of
/// their own: `order.placed.v1.without-note.json`. `any-words.history.json` has the events of one stream, in order:
/// `[{"name": "order.placed", "version": 1, "payload": {..}}, ..]`; it shows states that need more than one event. Every name and
/// version that a type reads has a payload. Files are added, never changed or removed: they stand for what is stored.
///
/// # What holds
/// - Every payload can be read, by the types' steps where it is old.
/// - What is written today has, in each example, the same JSON types at the same paths as when it was locked. Otherwise the version
///   must be raised, with an upcast from the old one.
/// - What is not written any more is read as the same events as when it was locked, until a version of those is raised. So a
///   step that gives something else than before is noticed, and one that drops what it gave.
/// - An aggregate has the same states after each file as when they were locked, with the same JSON types at the same paths.
///   Otherwise its `fold` must be raised, or its snapshots would be wrong.
///
/// `ANNALS_UPDATE_LOCK=1 cargo test` writes what is new into the lock file: examples, events, versions, aggregates and raised folds.
/// It writes nothing while something has changed that must not. Lines are sorted and independent; after a merge, keep the lines of
/// both sides.
///
/// # Panics
/// As of [`SchemaLock::check`](crate::testing::SchemaLock::check): with every change, its place and what to do.
#[macro_export]
macro_rules! schema_lock {
    (
        $file:literal, corpus = $corpus:literal
        $(, events = [$($event:ty),* $(,)?])?
        $(, aggregates = [$($aggregate:ty),* $(,)?])? $(,)?
    ) => {
        $crate::testing::SchemaLock::new(
            ::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", $file),
            ::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", $corpus),
        )
        $($(.events::<$event>())*)?
        $($(.aggregate::<$aggregate>())*)?
        .check()
    };
}
