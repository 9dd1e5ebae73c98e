//! What the lock file says if it is right: the lines of today's code and corpus.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::corpus::{Content, Stored, StoredEvent};
use super::line::Line;
use super::schema_lock::{AggregateType, Encoded, EventType, SchemaLock};
use crate::event::EventShape;
use crate::request::Fingerprint;

#[derive(Default)]
pub(super) struct Now {
    pub(super) lines: BTreeSet<Line>,
    /// Which of what is written today a file is an example of.
    pub(super) written: BTreeMap<String, EventShape>,
    /// Everything that is written today, as `order.placed.v3`.
    pub(super) present: BTreeSet<String>,
    /// The aggregates with their folds.
    pub(super) folds: BTreeMap<&'static str, u32>,
}

impl Now {
    /// # Errors
    /// What in the corpus cannot be read, or is missing there.
    pub(super) fn of(lock: &SchemaLock, corpus: &[Stored]) -> Result<Self, Vec<String>> {
        let mut now = Self::default();
        let mut wrong = BTreeSet::new();
        now.present.extend(lock.events.iter().flat_map(|events| events.writes).map(stored_as));
        now.folds.extend(lock.aggregates.iter().map(|aggregate| (aggregate.name, aggregate.fold)));
        for stored in corpus {
            now.lines.insert(Line::Payload { file: stored.file.clone(), digest: digest(&stored.text()) });
            let read = stored.events().iter().try_for_each(|event| check_readable(&lock.events, event));
            if let Err(what) = read.and_then(|()| now.add(lock, stored)) {
                wrong.insert(format!("{}: {what}", lock.corpus.join(&stored.file).display()));
            }
        }
        wrong.extend(lock.events.iter().flat_map(|events| missing(lock, events, corpus)));
        if wrong.is_empty() { Ok(now) } else { Err(wrong.into_iter().collect()) }
    }

    /// Adds the lines of one file, whose events can be read.
    fn add(&mut self, lock: &SchemaLock, stored: &Stored) -> Result<(), String> {
        let file = &stored.file;
        if let Content::Event(event) = &stored.content {
            for events in &lock.events {
                if let Some(shape) = find(events.writes, event) {
                    self.written.insert(file.clone(), *shape);
                    self.add_shape(file, &(events.again)(event)?)?;
                } else if find(events.reads, event).is_some() {
                    self.add_reading(file, &(events.again)(event)?);
                }
            }
        }
        let reads_all = |of: &&AggregateType| stored.events().iter().all(|event| find(of.reads, event).is_some());
        for AggregateType { name, fold, states, .. } in lock.aggregates.iter().filter(reads_all) {
            let (aggregate, fold, states) = ((*name).to_owned(), *fold, states(stored.events())?);
            for state in states.lines() {
                let value = serde_json::from_str(state).map_err(|error| error.to_string())?;
                walk("$", &value, &mut |path, kind| {
                    let (aggregate, path, kind) = (aggregate.clone(), path.to_owned(), kind.to_owned());
                    self.lines.insert(Line::State { aggregate, fold, path, kind });
                });
            }
            self.lines.insert(Line::Fold { aggregate, fold, file: file.clone(), digest: digest(&states) });
        }
        Ok(())
    }

    fn add_shape(&mut self, file: &str, encoded: &[Encoded]) -> Result<(), String> {
        for (_, payload) in encoded {
            let value = payload.read().map_err(|error| error.to_string())?;
            let mut add = |path: &str, kind: &str| {
                self.lines.insert(Line::Shape { file: file.to_owned(), path: path.to_owned(), kind: kind.to_owned() });
            };
            walk("$", &value, &mut add);
        }
        Ok(())
    }

    fn add_reading(&mut self, file: &str, encoded: &[Encoded]) {
        let into: BTreeSet<String> = encoded.iter().map(|(shape, _)| stored_as(shape)).collect();
        let line = |(shape, payload): &Encoded| format!("{} {}\n", stored_as(shape), payload.as_str());
        let digest = digest(&encoded.iter().map(line).collect::<String>());
        self.lines.insert(Line::Reading { file: file.to_owned(), digest, into: into.into_iter().collect() });
    }
}

/// As files of the corpus are named: `order.placed.v3`.
fn stored_as(EventShape { name, version, .. }: &EventShape) -> String {
    format!("{name}.v{version}")
}

fn find(shapes: &'static [EventShape], event: &StoredEvent) -> Option<&'static EventShape> {
    shapes.iter().find(|shape| shape.version == event.version && shape.name == event.name)
}

/// A stored event is read by one of the types at least, and by each that names it.
fn check_readable(types: &[EventType], event: &StoredEvent) -> Result<(), String> {
    let StoredEvent { name, version, .. } = event;
    let mut readers = types.iter().filter(|events| find(events.reads, event).is_some()).peekable();
    if readers.peek().is_none() {
        return Err(format!(
            "`{name}` version {version} is read by none of the types; stores hold such events, so add a step from it to its \
             type, or the type to the list"
        ));
    }
    let written = types.iter().find_map(|events| find(events.writes, event));
    readers.try_for_each(|events| (events.again)(event).map(drop)).map_err(|why| {
        let fix = match written {
            Some(shape) => format!("if the change is meant, {}; otherwise correct the type", raise(shape)),
            None => "correct the type or its steps".to_owned(),
        };
        format!("`{name}` version {version} cannot be read any more: {why}; stores hold such payloads: {fix}")
    })
}

/// The remedy for another shape.
pub(super) fn raise(EventShape { name, version, rust_name }: &EventShape) -> String {
    let next = version.saturating_add(1);
    format!(
        "raise the version of {rust_name} (`{name}`) to {next}, and add an upcast from version {version}: a type in \
         `upcast(..)`, or a step on JSON"
    )
}

/// The names and versions without a payload in the corpus.
fn missing(lock: &SchemaLock, events: &EventType, corpus: &[Stored]) -> Vec<String> {
    let of_corpus = || corpus.iter().flat_map(Stored::events);
    let has = |shape: &EventShape| of_corpus().any(|event| event.version == shape.version && event.name == shape.name);
    let line = |shape: &EventShape| {
        let EventShape { name, version, rust_name } = shape;
        let file = lock.corpus.join(format!("{name}.v{version}.json"));
        let mut again = of_corpus().filter_map(|event| (events.again)(event).ok()).flatten();
        let example = again
            .find(|(of, _)| *of == shape)
            .map_or_else(String::new, |(_, payload)| format!(", for example {}", payload.as_str()));
        format!(
            "{}: is missing; put a payload of `{name}` version {version} ({rust_name}) there{example}",
            file.display()
        )
    };
    events.reads.iter().filter(|shape| !has(shape)).map(line).collect()
}

/// Every place in a JSON value, with the type of what is there. All elements of an array have one place.
fn walk(path: &str, value: &Value, add: &mut impl FnMut(&str, &str)) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    add(path, kind);
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| walk(&format!("{path}[]"), element, add)),
        Value::Object(fields) => {
            for (name, field) in fields {
                let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
                let quoted = || Value::String(name.clone()).to_string();
                let path = if plain { format!("{path}.{name}") } else { format!("{path}[{}]", quoted()) };
                walk(&path, field, add);
            }
        }
        _ => {}
    }
}

fn digest(text: &str) -> String {
    Fingerprint::of_bytes(text.as_bytes()).get().simple().to_string()
}
