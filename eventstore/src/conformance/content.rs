//! Loaded events equal the appended ones.

use serde_json::{Value, json};

use super::case::{Case, seed};
use crate::append::Append;
use crate::event::{NewEvent, RecordedEvent};
use crate::filter::Filter;
use crate::metadata::{Actor, CausationId, CorrelationId, Metadata, TraceParent};
use crate::payload::Payload;
use crate::position::After;
use crate::stream::{ExpectedVersion, StreamVersion};

/// Appends the events and checks that a load and the log give every one of them back.
async fn returns_equal(case: &Case, events: Vec<NewEvent>) {
    case.store.append(&case.stream("a"), ExpectedVersion::NoStream, events.clone()).await.unwrap();
    let loaded = case.store.load_page(&case.stream("a"), StreamVersion::NONE, 1_000).await.unwrap().events;
    let log = case.store.read_page(After::START, &Filter::all(), 1_000).await.unwrap().events;
    for stored in [loaded, log] {
        assert_eq!(stored.len(), events.len());
        for (stored, event) in stored.iter().zip(&events) {
            is(stored, event);
        }
    }
}

fn is(stored: &RecordedEvent, event: &NewEvent) {
    assert_eq!(stored.event_id, event.event_id);
    assert_eq!(stored.name, event.name);
    assert_eq!(stored.schema_version, event.schema_version);
    assert_eq!(stored.payload, event.payload);
    // The text too: an event must be decoded from the same text before and after the append.
    assert_eq!(stored.payload.as_str(), event.payload.as_str());
    assert_eq!(stored.metadata, event.metadata);
}

fn payloads(case: &Case, values: &[Value]) -> Vec<NewEvent> {
    values.iter().map(|value| case.holding("n", Payload::of(value).unwrap())).collect()
}

pub(super) async fn payloads_of_every_json_type_are_returned_equal(case: Case) {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(""),
        json!([]),
        json!({}),
        json!([null, [], {}, ""]),
        json!({ "": { "": [1, 2.5, "x", null] }, "a b": false }),
    ];
    returns_equal(&case, payloads(&case, &values)).await;
}

pub(super) async fn integers_are_returned_exact(case: Case) {
    let values = [
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!((1_u64 << 53) + 1),
        json!(-((1_i64 << 53) + 1)),
        json!(9_007_199_254_740_993_u64),
    ];
    returns_equal(&case, payloads(&case, &values)).await;
    let back: u64 = case.load(&case.stream("a")).await[2].payload.read().unwrap();
    assert_eq!(back, u64::MAX);
}

pub(super) async fn integers_beyond_64_bits_are_returned_exact(case: Case) {
    let events = vec![
        case.holding("n", Payload::of(&[i128::MIN, i128::MAX]).unwrap()),
        case.holding("n", Payload::of(&[u128::MAX, u128::from(u64::MAX) + 1]).unwrap()),
    ];
    case.store.append(&case.stream("a"), ExpectedVersion::Any, events).await.unwrap();
    let stored = case.load(&case.stream("a")).await;
    assert_eq!(stored[0].payload.read::<[i128; 2]>().unwrap(), [i128::MIN, i128::MAX]);
    assert_eq!(stored[1].payload.read::<[u128; 2]>().unwrap(), [u128::MAX, u128::from(u64::MAX) + 1]);
}

/// The sign of zero is the only part of a number that a store need not keep; a duplicate append must still be recognized.
pub(super) async fn minus_zero_is_returned_as_zero(case: Case) {
    let append = Append::to(
        case.stream("a"),
        ExpectedVersion::NoStream,
        vec![case.holding("n", Payload::of(&-0.0_f64).unwrap()), case.holding("n", Payload::from_json("-0").unwrap())],
    );
    case.store.append_many(append.clone()).await.unwrap();
    for event in case.load(&case.stream("a")).await {
        assert_eq!(event.payload.read::<f64>().unwrap(), 0.0);
    }
    assert!(case.store.append_many(append).await.unwrap().repeated);
}

pub(super) async fn doubles_are_returned_to_the_bit(case: Case) {
    let mut values = vec![0.1 + 0.2, 5e-324, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e21, 1e-7, 1.0, 123_456.789];
    let mut random = fastrand::Rng::with_seed(seed());
    while values.len() < 500 {
        let value = f64::from_bits(random.u64(..));
        if value.is_finite() && value != 0.0 {
            values.push(value);
        }
    }
    let event = case.holding("n", Payload::of(&values).unwrap());
    case.store.append(&case.stream("a"), ExpectedVersion::Any, vec![event]).await.unwrap();
    let back: Vec<f64> = case.load(&case.stream("a")).await[0].payload.read().unwrap();
    for (back, value) in back.iter().zip(&values) {
        assert_eq!(back.to_bits(), value.to_bits(), "{value:e}");
    }
    assert_eq!(back.len(), values.len());
}

pub(super) async fn texts_are_returned_byte_for_byte(case: Case) {
    let texts = [
        "\u{e9} e\u{301}",
        "\u{1f600}\u{200d}\u{10ffff}",
        "\u{202e}right to left",
        "line\nbreak\r\ttab\u{8}\u{c}\u{1}\u{1f}\u{7f}",
        "quote \" backslash \\ slash / apostrophe '",
        "'); DROP TABLE events; --",
        "$1 ?1 :name @name %s {}",
        "\\u0041 \\x00",
        "\u{feff}\u{fffe}\u{ffff}",
        " leading and trailing ",
    ];
    let values: Vec<_> = texts.iter().map(|text| json!({ *text: text })).collect();
    returns_equal(&case, payloads(&case, &values)).await;
}

pub(super) async fn random_payloads_are_returned_equal(case: Case) {
    fn value(random: &mut fastrand::Rng, depth: usize) -> Value {
        match random.u8(if depth == 0 { 0..6 } else { 0..8 }) {
            0 => Value::Null,
            1 => json!(random.bool()),
            2 => json!(random.i64(..)),
            3 => json!(random.u64(..)),
            4 => json!(random.f64() * 1e6),
            5 => json!((0..random.usize(..12)).map(|_| random.char('\u{1}'..'\u{10ffff}')).collect::<String>()),
            6 => (0..random.usize(..5)).map(|_| value(random, depth - 1)).collect(),
            _ => Value::Object((0..random.usize(..5)).map(|n| (format!("k{n}"), value(random, depth - 1))).collect()),
        }
    }
    let mut random = fastrand::Rng::with_seed(seed());
    let values: Vec<_> = (0..200).map(|_| value(&mut random, 4)).collect();
    returns_equal(&case, payloads(&case, &values)).await;
}

pub(super) async fn metadata_is_returned_equal(case: Case) {
    let mut full = Metadata {
        correlation_id: Some(CorrelationId::new("correlation '1'").unwrap()),
        causation_id: Some(CausationId::new("\u{e9}\u{1f600}").unwrap()),
        actor: Some(Actor::new("user \"7\"").unwrap()),
        trace_parent: Some(TraceParent::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap()),
        ..Metadata::default()
    };
    full.extra.insert("note".to_owned(), "line\nbreak \\ \" '".to_owned());
    full.extra.insert("empty".to_owned(), String::new());
    let only_actor = Metadata { actor: full.actor.clone(), ..Metadata::default() };
    let only_correlation = Metadata { correlation_id: full.correlation_id.clone(), ..Metadata::default() };
    let only_causation = Metadata { causation_id: full.causation_id.clone(), ..Metadata::default() };
    let only_extra = Metadata { extra: full.extra.clone(), ..Metadata::default() };
    let all = [Metadata::default(), full, only_actor, only_correlation, only_causation, only_extra];
    returns_equal(&case, all.map(|metadata| case.event().with_metadata(metadata)).to_vec()).await;
}

pub(super) async fn an_event_can_be_the_cause_of_another(case: Case) {
    let first = case.event();
    let metadata = Metadata { causation_id: Some(first.event_id.into()), ..Metadata::default() };
    returns_equal(&case, vec![first, case.event().with_metadata(metadata)]).await;
}

pub(super) async fn names_and_schema_versions_are_returned_equal(case: Case) {
    let mut events = Vec::new();
    for name in ["n", "order.placed", "Order Placed", "\u{e9}\u{1f600}", "a'b\"c\\d", "007", &"x".repeat(200)] {
        for schema_version in [1, 2, u32::MAX] {
            events.push(NewEvent::raw(case.id(), name, schema_version, Payload::of(&1).unwrap()).unwrap());
        }
    }
    returns_equal(&case, events).await;
}

pub(super) async fn equal_contents_under_two_ids_are_two_events(case: Case) {
    let payload = Payload::of(&json!({ "n": 1 })).unwrap();
    returns_equal(&case, (0..3).map(|_| case.holding("n", payload.clone())).collect()).await;
}

pub(super) async fn recorded_events_never_change(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    let before = case.log().await;
    for n in 0..10 {
        case.append("a", ExpectedVersion::Any, 1 + n % 3).await;
        let conflict = case.store.append(&case.stream("a"), ExpectedVersion::NoStream, case.events(1)).await;
        assert!(conflict.is_err());
    }
    assert_eq!(case.log().await[..3], before);
}
