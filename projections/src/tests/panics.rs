//! Panics of a user's own code that writes or reads columns: each costs its projection or its stream alone, and the event is named.

use annals_eventstore::Recorded;
use annals_macros::{Event, ReadModel};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::accounts::AccountEvent;
use super::fixture::{Counts, Fixture, not_running, said};
use crate::testing::{GivenEvent, given_events};
use crate::{
    Column, ColumnError, ColumnType, ColumnValue, Projection, ProjectionError, Rows, StreamProjection, StreamRow,
};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum MarkEvent {
    #[event(name = "mark.set")]
    Set(String),
    #[event(name = "mark.looked_at")]
    LookedAt,
    #[event(name = "mark.removed")]
    Removed(String),
}

/// Text whose conversions panic where the text says so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fragile(String);

impl Column for Fragile {
    const TYPE: ColumnType = ColumnType::Text;

    fn to_column(&self) -> ColumnValue {
        assert!(self.0 != "unwritable", "no column for it");
        self.0.to_column()
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        let text = String::from_column(value)?;
        assert!(text != "unreadable", "no value for it");
        Ok(Self(text))
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        assert!(self.0 != "abnormal" && self.0 != "unwritable", "no normal form for it");
        Ok(())
    }
}

/// The same by serde.
#[derive(Clone, Debug)]
struct Note(String);

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != "unserializable", "no JSON for it");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        assert!(text != "undeserializable", "no note for it");
        Ok(Self(text))
    }
}

#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "marks", key = "id")]
struct Mark {
    id: String,
    text: Fragile,
    #[column(json)]
    note: Note,
}

struct Marks;

impl StreamProjection for Marks {
    type Event = MarkEvent;
    type Row = Mark;
    const AGGREGATES: &'static [&'static str] = &["account"];

    fn apply(&self, event: &Recorded<MarkEvent>, row: &mut StreamRow<'_, Mark>) -> Result<(), ProjectionError> {
        let id = row.key().clone();
        match &event.event {
            MarkEvent::Set(text) => row.insert(Mark { id, text: Fragile(text.clone()), note: Note(text.clone()) }),
            MarkEvent::LookedAt => drop(row.get()),
            MarkEvent::Removed(_) => row.remove(),
        }
        Ok(())
    }
}

/// Rows under keys whose conversion panics.
#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "marks_by_text", key("text", "id"))]
struct MarkByText {
    text: Fragile,
    id: String,
}

struct MarksByText;

impl Projection for MarksByText {
    type Event = MarkEvent;
    type Row = MarkByText;

    fn apply(&self, event: &Recorded<MarkEvent>, rows: &mut Rows<MarkByText>) -> Result<(), ProjectionError> {
        let id = event.stream.aggregate_id().to_owned();
        match &event.event {
            MarkEvent::Set(text) => {
                rows.get(&(Fragile(text.clone()), id))?;
            }
            MarkEvent::LookedAt => rows.upsert(MarkByText { text: Fragile("unwritable".into()), id }),
            MarkEvent::Removed(text) => rows.remove(&(Fragile(text.clone()), id)),
        }
        Ok(())
    }
}

fn set(text: &str) -> MarkEvent {
    MarkEvent::Set(text.to_owned())
}

#[test]
fn a_conversion_that_panics_is_the_fault_of_the_event_that_made_the_row() {
    for text in ["unwritable", "abnormal", "unserializable", "undeserializable"] {
        for then in [MarkEvent::LookedAt, set("fine"), MarkEvent::Removed(String::new())] {
            let events = [("a", set("fine")), ("b", set(text)), ("b", then), ("c", set("fine"))];
            given_events(events.map(|(id, event)| GivenEvent::of("account", id, event)))
                .with(Marks)
                .then_stops_before(2, "of `marks` panicked: no ");
        }
    }
}

#[test]
fn a_key_that_panics_is_the_fault_of_the_event_that_names_it() {
    for event in [set("unwritable"), MarkEvent::LookedAt, MarkEvent::Removed("unwritable".into())] {
        given_events([("a", set("fine")), ("b", event), ("c", set("fine"))])
            .with(MarksByText)
            .then_stops_before(2, "of `marks_by_text` panicked: no column for it");
    }
}

pub(super) async fn a_stored_row_whose_reading_panics_costs_its_projection_or_its_stream(shop: Fixture) {
    let views = shop.projections().with(Marks).with(Counts).start().await.unwrap();
    let set_up = shop.append_any("b", [set("unreadable")]).await;
    views.wait_for(set_up, shop.soon()).await.expect("it can be written");
    let held = shop.models.hold_commits().await;
    let fine = shop.append_any("a", [set("fine")]).await;
    shop.append_any("b", [MarkEvent::LookedAt]).await;
    let last = shop.append("c", [AccountEvent::Paid(1)]).await;
    drop(held);
    let stopped = tokio::time::timeout(shop.soon(), views.stopped()).await.expect("it stops").unwrap_err();
    let text = said(&stopped);
    assert!(text.contains("before event `mark.looked_at` at position 3 (`default/account/b`, version 2)"), "{text}");
    assert!(text.contains("of `marks` panicked: no value for it"), "{text}");
    views.wait_for_one::<Counts>(last, shop.soon()).await.expect("the other projection goes on");
    assert_eq!(not_running(&views), ["marks".to_owned()].into());
    assert_eq!(shop.position::<Marks>().await, fine.get(), "the events before it are applied");
    views.close().await;

    let views = shop.projections().with(Marks.dead_letter()).start().await.unwrap();
    let later = shop.append_any("a", [set("later")]).await;
    views.wait_for(later, shop.soon()).await.expect("only one stream is parked");
    let letters = views.dead_letters::<Marks>().await.unwrap();
    let found: Vec<_> = letters.iter().map(|letter| (letter.event.stream.aggregate_id(), &*letter.reason)).collect();
    assert_eq!(
        found,
        [("b", "a conversion of a row of `marks` panicked: no value for it; fix how its columns are written and read")]
    );
}

#[derive(Debug)]
struct Speechless;

impl std::fmt::Display for Speechless {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no text for it")
    }
}

impl std::error::Error for Speechless {}

/// Else the log's line about one projection would end all of them.
#[test]
fn an_error_that_panics_when_it_is_shown_is_said_to_do_so() {
    let cause = crate::StopCause::from(ProjectionError::from(Speechless));
    assert!(said(&cause).ends_with(": an error whose `Display` panicked"), "{}", said(&cause));
}
