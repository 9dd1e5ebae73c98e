//! The history of an aggregate: each event, the state after it, and what it changed.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::cache::Known;
use super::handle::Repository;
use super::reading::Reading;
use crate::aggregate::Evolve;
use crate::error::{Invalid, ReadError};
use crate::event::RecordedEvent;
use crate::stream::StreamId;

/// One event of an aggregate's history, returned by [`Repository::history`](crate::Repository::history).
#[non_exhaustive]
pub struct HistoryStep<A> {
    /// The event as it is stored, with its version, position, time and metadata.
    pub event: RecordedEvent,
    /// The state after it.
    pub state: Arc<A>,
    /// The fields of the state that it changed, ordered by name.
    pub changed: Vec<FieldChange>,
}

impl<A> Clone for HistoryStep<A> {
    fn clone(&self) -> Self {
        Self { event: self.event.clone(), state: self.state.clone(), changed: self.changed.clone() }
    }
}

impl<A: fmt::Debug> fmt::Debug for HistoryStep<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HistoryStep");
        shown.field("event", &self.event).field("state", &self.state).field("changed", &self.changed).finish()
    }
}

/// A field of a state that an event changed, as JSON. Its text is `field: before -> after`, in which `-` stands for a field that
/// is not there.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FieldChange {
    /// The name of the field at the top level of the state's JSON; empty if the state is not an object.
    pub field: String,
    /// Its value before the event; `None` if it was not there.
    pub before: Option<Value>,
    /// Its value after the event; `None` if it is not there any more.
    pub after: Option<Value>,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} -> {}", shown(&self.before), shown(&self.after))
    }
}

impl<A: Evolve + Serialize> Repository<A> {
    /// The whole history of an aggregate: each event in the order of versions, the state after it, and the fields that it
    /// changed. Empty if there is none.
    ///
    /// What changed is found by comparing the JSON of the states, field by field at the top level. All states are in memory
    /// at once.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, MemoryStore};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let orders = MemoryStore::new().aggregate::<Order>();
    /// let id = OrderId::new("o-17")?;
    /// orders.execute(&id, |order| order.place(12_00)).await?;
    /// orders.execute(&id, |order| order.pay(12_00)).await?;
    ///
    /// let history = orders.history(&id).await?;
    /// assert_eq!(history[1].event.version.get(), 2);
    /// assert_eq!(history[1].changed[0].to_string(), "paid: false -> true");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Invalid`] with the field `state` if the state cannot be written as JSON; others as of
    /// [`Repository::load`], whose deadline it has.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn history(&self, id: &A::Id) -> Result<Vec<HistoryStep<A>>, ReadError> {
        let stream = self.stream(id)?;
        self.read_in_time(self.history_of(&stream)).await
    }

    async fn history_of(&self, stream: &StreamId) -> Result<Vec<HistoryStep<A>>, ReadError> {
        let mut steps: Vec<HistoryStep<A>> = Vec::new();
        let mut reading = Reading::on(Known::<A>::start());
        let mut before = json_of(&*reading.known.state)?;
        loop {
            let (after, limit) = reading.next_page();
            let page = self.store().load_page(stream, after, limit).await?;
            let end = reading.take_each(stream, page, |event, state| {
                if event.version.get() == 1 {
                    // The stream is read from its beginning, perhaps again as another history.
                    steps.clear();
                    before = json_of(&A::default())?;
                }
                let after = json_of(&**state)?;
                let changed = changes(&before, &after);
                before = after;
                steps.push(HistoryStep { event: event.clone(), state: Arc::clone(state), changed });
                Ok(())
            })?;
            if end {
                return Ok(steps);
            }
        }
    }
}

fn json_of<A: Serialize>(state: &A) -> Result<Value, ReadError> {
    serde_json::to_value(state).map_err(|e| {
        let problem = format!("cannot be written as JSON: {e}");
        Invalid::new("state", problem, "implement `Serialize` so that it can, with texts as the keys of maps").into()
    })
}

/// The fields that differ; the whole under an empty name if one of the two is not an object.
fn changes(before: &Value, after: &Value) -> Vec<FieldChange> {
    let change = |field: &str, before: Option<&Value>, after: Option<&Value>| {
        (before != after).then(|| FieldChange {
            field: field.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        })
    };
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return change("", Some(before), Some(after)).into_iter().collect();
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))).collect();
    names.sort_unstable();
    names.into_iter().filter_map(|name| change(name, old.get(name), new.get(name))).collect()
}
