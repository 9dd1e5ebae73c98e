use std::collections::HashMap;

use super::{Facts, Head, Plan};
use crate::append::{Append, CheckedAppend};
use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::AppendError;
use crate::event::{EventId, NewEvent};
use crate::limits::Limits;
use crate::payload::Payload;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

const ANY: i64 = -1;
const EXISTS: i64 = -2;

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

fn append(id: &str, expected: i64, events: usize) -> CheckedAppend {
    let expected = match expected {
        ANY => ExpectedVersion::Any,
        EXISTS => ExpectedVersion::StreamExists,
        version => ExpectedVersion::Exact(StreamVersion::new(version).unwrap()),
    };
    let event = || {
        let id = EventId::new(TimeOrderedIds.next_id()).unwrap();
        NewEvent::raw(id, "placed", 1, Payload::from_json("{}").unwrap()).unwrap()
    };
    let events = (0..events).map(|_| event()).collect();
    Append::to(stream(id), expected, events).check(&Limits::default()).unwrap()
}

fn facts(heads: &[(&str, i64)]) -> Facts {
    let head = |version: &i64| Head { version: *version, last_event: None };
    let heads: HashMap<_, _> = heads.iter().map(|(id, version)| (stream(id), head(version))).collect();
    Facts { heads, ..Facts::default() }
}

/// The result of appends to the named streams, as text: `head+above` of each row that is stored (`?` for an unknown head),
/// `!actual` for a conflict, `later` for a postponed append.
fn check(appends: &[(&str, i64, usize)], known: Option<&[(&str, i64)]>) -> Vec<String> {
    let appends: Vec<_> = appends.iter().map(|(id, expected, events)| append(id, *expected, *events)).collect();
    let places: Vec<_> = (0..appends.len()).collect();
    let mut facts = known.map(facts);
    let plan = Plan::of(&appends, &places, facts.as_mut());
    let mut became = vec![String::new(); appends.len()];
    for carried in &plan.carried {
        let rows = plan.rows[carried.first_row..=carried.last_row].iter().map(|row| {
            let slot = &plan.slots[row.slot];
            assert_eq!(*slot.stream, appends[carried.place].parts[0].stream);
            let head = slot.head.map_or("?".to_owned(), |head| head.to_string());
            format!("{head}+{}", row.above)
        });
        became[carried.place] = rows.collect::<Vec<_>>().join(" ");
    }
    for (place, answer) in &plan.answered {
        became[*place] = match answer.as_ref().unwrap_err() {
            AppendError::WrongExpectedVersion { actual, .. } => format!("!{}", actual.get()),
            AppendError::StreamFull { .. } => "full".to_owned(),
            other => panic!("{other}"),
        };
    }
    for place in &plan.deferred {
        became[*place] = "later".to_owned();
    }
    became
}

/// That a stream exists is read, unless the group itself has added to it before.
#[test]
fn a_stream_must_exist_before_the_append_that_expects_it() {
    assert_eq!(check(&[("a", EXISTS, 1), ("b", ANY, 1), ("b", EXISTS, 2)], None), ["later", "?+1", "?+2 ?+3"]);
    let known: &[_] = &[("a", 4), ("b", 0)];
    assert_eq!(check(&[("a", EXISTS, 1), ("b", EXISTS, 1)], Some(known)), ["4+1", "!0"]);
    assert_eq!(check(&[("b", EXISTS, 1), ("b", ANY, 1), ("b", EXISTS, 1)], Some(known)), ["!0", "0+1", "0+2"]);
}

#[test]
fn without_facts_every_expected_version_is_assumed_to_hold() {
    assert_eq!(check(&[("a", 0, 2), ("b", 7, 1), ("c", ANY, 1)], None), ["0+1 0+2", "7+1", "?+1"]);
}

#[test]
fn appends_to_one_stream_are_each_decided_after_the_previous_one() {
    assert_eq!(check(&[("a", 3, 2), ("a", 5, 1), ("a", ANY, 1)], None), ["3+1 3+2", "3+3", "3+4"]);
    assert_eq!(check(&[("a", ANY, 2), ("a", ANY, 1)], None), ["?+1 ?+2", "?+3"]);
}

#[test]
fn no_append_is_refused_without_facts() {
    assert_eq!(check(&[("a", 3, 1), ("a", 3, 1), ("a", 9, 1)], None), ["3+1", "later", "later"]);
    assert_eq!(check(&[("a", ANY, 1), ("a", 1, 1)], None), ["?+1", "later"]);
}

#[test]
fn with_facts_the_first_in_the_queue_wins_and_the_others_conflict() {
    let heads = [("a", 3), ("b", 8)];
    let appends = [("a", 3, 1), ("a", 3, 1), ("a", 4, 1), ("b", 7, 1), ("c", 0, 1), ("c", 0, 1)];
    assert_eq!(check(&appends, Some(&heads)), ["3+1", "!4", "3+2", "!8", "0+1", "!1"]);
}

#[test]
fn any_version_continues_from_the_current_version() {
    assert_eq!(check(&[("a", ANY, 1), ("a", ANY, 2)], Some(&[("a", 3)])), ["?+1", "?+2 ?+3"]);
    assert_eq!(check(&[("a", 3, 1), ("a", ANY, 1)], Some(&[("a", 3)])), ["3+1", "3+2"]);
}

#[test]
fn the_last_event_is_compared_with_the_facts_or_else_by_the_statement() {
    let first = append("a", 3, 2);
    let last = first.parts[0].events[1].event_id;
    let other = append("b", 0, 1).parts[0].events[0].event_id;
    let behind = |version: i64, event_id| {
        let mut append = append("a", version, 1);
        let version = StreamVersion::new(version).unwrap();
        append.parts[0].expected = ExpectedVersion::LastEvent { version, event_id };
        append
    };
    let became = |appends: &[CheckedAppend], known: Option<Head>| {
        let mut facts = known.map(|head| Facts { heads: [(stream("a"), head)].into(), ..Facts::default() });
        let places: Vec<_> = (0..appends.len()).collect();
        let plan = Plan::of(appends, &places, facts.as_mut());
        let rows: Vec<_> = plan.rows.iter().map(|row| row.last_event).collect();
        (rows, plan.answered.len(), plan.deferred)
    };
    // Unknown: the statement checks the first row's predecessor, and only that.
    assert_eq!(became(&[behind(5, last)], None), (vec![Some(last)], 0, vec![]));
    // In the same group: after the rows of the group, or postponed.
    assert_eq!(became(&[first.clone(), behind(5, last)], None), (vec![None; 3], 0, vec![]));
    assert_eq!(became(&[first.clone(), behind(5, other)], None), (vec![None; 2], 0, vec![1]));
    // Known: the statement checks it again, as the server may have failed over since.
    let known = Head { version: 5, last_event: Some(last) };
    assert_eq!(became(&[behind(5, last)], Some(known)), (vec![Some(last)], 0, vec![]));
    assert_eq!(became(&[behind(5, other)], Some(known)), (vec![], 1, vec![]));
    assert_eq!(became(&[behind(4, last)], Some(known)), (vec![], 1, vec![]));
}

#[test]
fn a_stream_that_cannot_hold_more_is_full() {
    let appends = [("a", i64::MAX - 1, 2), ("a", i64::MAX - 1, 1)];
    assert_eq!(check(&appends, Some(&[("a", i64::MAX - 1)])), ["full", "9223372036854775806+1"]);
    // For a stream that may not exist, `full` would differ from the answer that the append gets alone.
    assert_eq!(check(&appends, None), ["later", "later"]);
    assert_eq!(check(&appends, Some(&[])), ["!0", "!0"]);
}

#[test]
fn a_duplicate_is_answered_and_takes_no_version() {
    let appends = [append("a", 0, 1), append("a", 1, 1)];
    let mut facts = facts(&[("a", 1)]);
    let event = &appends[0].parts[0].events[0];
    let stored = crate::duplicate::StoredEvent {
        stream: stream("a"),
        version: StreamVersion::stored(1),
        position: crate::position::Position::stored(10),
        name: event.name.clone(),
        schema_version: 1,
        payload: event.payload.clone(),
        append_id: None,
        recorded_at: jiff::Timestamp::UNIX_EPOCH,
    };
    facts.stored.insert(event.event_id, stored);
    let plan = Plan::of(&appends, &[0, 1], Some(&mut facts));
    let (place, answer) = &plan.answered[0];
    let answer = answer.as_ref().unwrap();
    assert_eq!((*place, answer.repeated, answer.position.get()), (0, true, 10));
    assert_eq!((plan.carried[0].place, plan.slots[0].head, plan.rows[0].above), (1, Some(1), 1));
}
