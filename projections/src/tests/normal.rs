//! A row in memory is the row as its table gives it back: which events share a batch does not matter.

use annals_eventstore::{EventStore, Recorded};
use annals_macros::{Event, ReadModel};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::accounts::{AccountEvent, Accounts};
use super::fixture::{Fixture, pairs, said};
use crate::testing::given_events;
use crate::{Projection, ProjectionError, Rows};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum MeterEvent {
    #[event(name = "meter.read")]
    Read { nanosecond: i32 },
}

/// What no database keeps as it is: a time in nanoseconds, a zero below zero, a number of JSON with an exponent.
#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "meters", key = "id")]
struct Meter {
    id: String,
    /// 100 for each time that is later than the last one, 10 for each level found below zero, 1 for each whole number found.
    cents: i64,
    last: Timestamp,
    level: f64,
    #[column(json)]
    size: Value,
}

struct Meters;

impl Projection for Meters {
    type Event = MeterEvent;
    type Row = Meter;

    fn apply(&self, event: &Recorded<MeterEvent>, rows: &mut Rows<Meter>) -> Result<(), ProjectionError> {
        let MeterEvent::Read { nanosecond } = event.event;
        let id = event.stream.aggregate_id().to_owned();
        let new =
            || Meter { id: id.clone(), cents: 0, last: Timestamp::UNIX_EPOCH, level: 0.0, size: Value::Bool(false) };
        let row = rows.get_or_insert_with(&id, new)?;
        let at = Timestamp::new(1_700_000_000, nanosecond)?;
        if at > row.last {
            row.cents += 100;
            row.last = at;
        }
        if row.level.is_sign_negative() {
            row.cents += 10;
        }
        row.level = -0.0;
        if row.size.is_u64() {
            row.cents += 1;
        }
        row.size = Value::from(1e16);
        Ok(())
    }
}

/// Three times within a microsecond, each before the other.
const NANOSECONDS: [i32; 3] = [900, 500, 100];

#[test]
fn the_test_kit_finds_rows_that_differ_from_those_of_their_table() {
    let read = |nanosecond| ("m", MeterEvent::Read { nanosecond });
    let row = Meter {
        id: "m".to_owned(),
        cents: 302,
        last: Timestamp::new(1_700_000_000, 0).unwrap(),
        level: 0.0,
        size: Value::from(10_000_000_000_000_000_u64),
    };
    given_events(NANOSECONDS.map(read)).with(Meters).across_tenants().then_rows([row]);
}

pub(super) async fn events_at_once_and_one_by_one_give_the_same_row(shop: Fixture) {
    let views = shop.projections().with(Meters).start().await.unwrap();
    let read = |nanosecond| MeterEvent::Read { nanosecond };
    let last = shop.append_any("at once", NANOSECONDS.map(read)).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    for nanosecond in NANOSECONDS {
        let last = shop.append_any("one by one", [read(nanosecond)]).await;
        views.wait_for(last, shop.soon()).await.unwrap();
    }
    assert_eq!(shop.rows::<Meters>().await, pairs(&[("at once", 302), ("one by one", 302)]));
    views.close().await;
}

#[test]
fn a_row_that_no_table_can_hold_stops_before_its_event_though_the_next_replaces_it() {
    let made_and = |then| given_events([("a", AccountEvent::Opened), ("b", AccountEvent::NotANumber), ("b", then)]);
    for then in [AccountEvent::Opened, AccountEvent::Closed, AccountEvent::Paid(1)] {
        made_and(then).with(Accounts).then_stops_before(2, "is NaN");
    }
    let rekeyed = |id: &str| AccountEvent::Rekeyed(id.to_owned());
    given_events([("a", AccountEvent::Opened), ("a", rekeyed("b")), ("a", rekeyed("a"))])
        .with(Accounts)
        .then_stops_before(2, "was given another key");
}

#[derive(Serialize, Deserialize, Clone, Debug)]
struct Note {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "Option::deserialize")]
    text: Option<String>,
}

#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "notes", key = "id")]
struct NoteRow {
    id: String,
    #[column(json)]
    note: Note,
}

struct Notes;

impl Projection for Notes {
    type Event = MeterEvent;
    type Row = NoteRow;

    fn apply(&self, event: &Recorded<MeterEvent>, rows: &mut Rows<NoteRow>) -> Result<(), ProjectionError> {
        let MeterEvent::Read { nanosecond } = event.event;
        let text = (nanosecond > 0).then(|| nanosecond.to_string());
        rows.upsert(NoteRow { id: event.stream.aggregate_id().to_owned(), note: Note { text } });
        Ok(())
    }
}

/// Else the row would be stored, and stop the next event that looks it up, and every build after it.
#[test]
fn a_row_that_could_not_be_read_back_is_never_stored() {
    let read = |nanosecond| ("n", MeterEvent::Read { nanosecond });
    given_events([read(1), read(0), read(2)]).with(Notes).then_stops_before(
        2,
        "a row of `notes`: column `note` could not be read back: it should be JSON that serde takes",
    );
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum TagEvent {
    #[event(name = "tag.set")]
    Set { label: String, unit: String, cents: i64 },
    #[event(name = "tag.removed")]
    Removed,
}

/// What is indexed here is as long as a test wants it.
#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "tags", key("id", "cents"), index = "label", index("cents", "unit"))]
struct Tag {
    id: String,
    cents: i64,
    label: Option<String>,
    unit: String,
    free: String,
}

struct Tags;

impl Projection for Tags {
    type Event = TagEvent;
    type Row = Tag;

    fn apply(&self, event: &Recorded<TagEvent>, rows: &mut Rows<Tag>) -> Result<(), ProjectionError> {
        let id = event.stream.aggregate_id().to_owned();
        match event.event.clone() {
            TagEvent::Set { label, unit, cents } => {
                let free = "long".repeat(10_000);
                let id = if cents < 0 { id.repeat(usize::try_from(-cents)?) } else { id };
                rows.upsert(Tag { id, cents, label: Some(label), unit, free });
            }
            TagEvent::Removed => rows.remove(&(id, 0)),
        }
        Ok(())
    }
}

fn tag(label: usize, unit: usize, cents: i64) -> TagEvent {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut text = |len| std::iter::repeat_with(|| rng.alphanumeric()).take(len).collect::<String>();
    TagEvent::Set { label: text(label), unit: text(unit), cents }
}

/// Too long for PostgreSQL's indexes, each with what the message says.
fn too_long() -> [(TagEvent, &'static str); 3] {
    [
        (tag(2_601, 0, 0), "column `label` is too long for the index on `label`, which has 2601 bytes"),
        (tag(10, 2_577, 0), "column `unit` is too long for the index on `cents`, `unit`, which has 2601 bytes"),
        (tag(0, 0, -2_577), "column `id` is too long for the key on `id`, `cents`, which has 2601 bytes"),
    ]
}

#[test]
fn a_row_too_long_for_an_index_stops_before_its_event_though_the_next_replaces_it() {
    for (long, why) in too_long() {
        for then in [tag(1, 1, 0), TagEvent::Removed] {
            given_events([("t", tag(2_600, 0, 0)), ("t", long.clone()), ("t", long.clone()), ("t", then)])
                .with(Tags)
                .then_stops_before(2, why);
        }
    }
}

pub(super) async fn a_row_too_long_for_an_index_stops_its_projection_and_the_event_is_named(shop: Fixture) {
    let views = shop.projections().with(Tags).start().await.unwrap();
    let last = shop.append_any("t", [tag(2_600, 0, 0), tag(10, 2_576, 1), tag(0, 0, -2_576)]).await;
    views.wait_for(last, shop.soon()).await.expect("these fit");
    views.close().await;
    for (n, (long, why)) in too_long().into_iter().enumerate() {
        let last = shop.append_any("t", [long, TagEvent::Removed]).await;
        let views = shop.projections().with(Tags).start().await.unwrap();
        let stopped = tokio::time::timeout(shop.soon(), views.stopped()).await.expect("it stops").unwrap_err();
        assert!(said(&stopped).contains(why), "{n}: {}", said(&stopped));
        assert_eq!(stopped.event.as_ref().map(|event| event.position.get()), Some(last.get() - 1), "{stopped:?}");
        assert!(said(&stopped).len() < 1_000, "the message is short: {}", said(&stopped));
        views.close().await;
        let passed = shop.store.head().await.unwrap();
        shop.set_checkpoint::<Tags>(Some(passed)).await;
    }
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "nulls", key = "id")]
struct NullRow {
    id: String,
    #[column(json)]
    value: serde_json::Value,
    #[column(json)]
    twice: Option<Option<i64>>,
}

struct Nulls;

impl Projection for Nulls {
    type Event = MeterEvent;
    type Row = NullRow;

    fn apply(&self, event: &Recorded<MeterEvent>, rows: &mut Rows<NullRow>) -> Result<(), ProjectionError> {
        let id = event.stream.aggregate_id().to_owned();
        let new = NullRow { id: id.clone(), value: serde_json::Value::Null, twice: Some(None) };
        match rows.get(&id)? {
            Some(row) if *row != new => Err(ProjectionError::new(format!("it came back as {row:?}"))),
            _ => {
                rows.upsert(new);
                Ok(())
            }
        }
    }
}

pub(super) async fn a_null_of_json_comes_back_as_it_was(shop: Fixture) {
    for _ in 0..2 {
        let views = shop.projections().with(Nulls).start().await.unwrap();
        let last = shop.append_any("n", [MeterEvent::Read { nanosecond: 0 }, MeterEvent::Read { nanosecond: 1 }]).await;
        views.wait_for(last, shop.soon()).await.unwrap();
        views.close().await;
    }
}
