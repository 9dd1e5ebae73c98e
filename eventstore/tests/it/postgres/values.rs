//! How JSONB changes JSON text, as described in `docs/postgres.md`: values are kept, spelling is not.

use annals_eventstore::{
    Actor, Append, CausationId, CorrelationId, EventId, EventStore, ExpectedVersion, Limits, Metadata, NewEvent,
    Payload, StreamId, StreamVersion, Tenant,
};
use sqlx::Row;

use super::{Fixture, stream};

/// An appended text, and the text that is loaded.
const WRITTEN_AND_READ: [(&str, &str); 22] = [
    ("1", "1"),
    ("1.0", "1.0"),
    ("1.00", "1.00"),
    ("1e2", "100"),
    ("1.5E1", "15"),
    ("1e-2", "0.01"),
    ("-0", "0"),
    ("-0.0", "0.0"),
    ("9007199254740993", "9007199254740993"),
    ("-9223372036854775808", "-9223372036854775808"),
    ("18446744073709551615", "18446744073709551615"),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("19.990", "19.990"),
    ("0.10000000000000000555111512312578270211815", "0.10000000000000000555111512312578270211815"),
    ("1e22", "10000000000000000000000"),
    ("\"\\u00e9\\/\"", "\"é/\""),
    ("\"\\ud83d\\ude00\"", "\"😀\""),
    ("\"\\u001f\\u007f\"", "\"\\u001f\u{7f}\""),
    ("[ 1 ,2 ]", "[1, 2]"),
    ("{\"bb\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2, \"bb\": 1}"),
    ("{\"\":{\"z\":[],\"y\":{}}}", "{\"\": {\"y\": {}, \"z\": []}}"),
    ("\"%s ' \\\" ; -- \\\\\"", "\"%s ' \\\" ; -- \\\\\""),
];

#[tokio::test]
async fn values_are_kept_and_ways_of_writing_are_not() {
    let fixture = Fixture::new().await;
    let event = |text: &str| {
        let id = EventId::new(fixture.store.ids().next_id()).unwrap();
        NewEvent::raw(id, "n", 1, Payload::from_json(text).unwrap()).unwrap()
    };
    let events: Vec<_> = WRITTEN_AND_READ.iter().map(|(written, _)| event(written)).collect();
    fixture.store.append(&stream("a"), ExpectedVersion::NoStream, events.clone()).await.unwrap();
    let loaded = fixture.store.load_page(&stream("a"), StreamVersion::NONE, 100).await.unwrap().events;
    assert_eq!(loaded.len(), events.len());
    for ((event, loaded), (written, read)) in events.iter().zip(&loaded).zip(WRITTEN_AND_READ) {
        assert_eq!(loaded.payload.as_str(), read, "{written}");
        assert_eq!(event.payload.as_str(), read, "{written}");
        assert_eq!(loaded.payload, event.payload, "{written}");
    }
    // The text that was read is the same content, so this is a duplicate.
    let mut again = events;
    for (event, (_, read)) in again.iter_mut().zip(WRITTEN_AND_READ) {
        event.payload = Payload::from_json(read).unwrap();
    }
    assert!(fixture.store.append(&stream("a"), ExpectedVersion::NoStream, again).await.unwrap().repeated);
}

#[tokio::test]
async fn what_jsonb_would_lose_is_refused_with_the_field_before_it_is_sent() {
    let fixture = Fixture::new().await;
    for (text, field) in [
        (r#"{"order":{"note":"a\u0000b"}}"#, "payload.order.note"),
        (r#"{"order":{"no":1,"no":2}}"#, "payload.order.no"),
        (r#"{"amounts":[1,1e400]}"#, "payload.amounts[1]"),
        (r#"{"name":"\ud800"}"#, "payload.name"),
    ] {
        let refused = Payload::from_json(text).unwrap_err();
        assert_eq!(refused.field, field, "{text}: {refused}");
    }
    // Not even in metadata, whose fields are open.
    let mut metadata = Metadata::default();
    metadata.extra.insert("note".to_owned(), "a\0b".to_owned());
    let refused = fixture
        .store
        .append(&stream("a"), ExpectedVersion::Any, vec![fixture.event().with_metadata(metadata)])
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("`metadata.note`"), "{refused}");
    let is_called = sqlx::query("SELECT is_called FROM annals.events_position");
    assert!(
        !is_called.fetch_all(&mut fixture.foreign().await).await.unwrap()[0].get::<bool, _>(0),
        "something was sent"
    );
}

/// Names are bound values, never text of a statement, and are stored unchanged, so a query of the table finds them.
#[tokio::test]
async fn names_are_stored_as_they_were_given() {
    let fixture = Fixture::new().await;
    let names = ["o'brien \"q\"", "100%s %1$I", "😀👩‍👩‍👧‍👦", "\u{200f}\u{202e}שלום\u{202c}", "a$1::text", "\\x41 \\"];
    for name in names {
        let stream = StreamId::new(Tenant::new(name).unwrap(), name, name).unwrap();
        let mut metadata = Metadata::default();
        metadata.correlation_id = Some(CorrelationId::new(name).unwrap());
        metadata.causation_id = Some(CausationId::new(name).unwrap());
        metadata.actor = Some(Actor::new(name).unwrap());
        metadata.extra.insert(name.to_owned(), name.to_owned());
        let id = EventId::new(fixture.store.ids().next_id()).unwrap();
        let payload = Payload::of(&serde_json::json!({ name: name })).unwrap();
        let event = NewEvent::raw(id, name, 1, payload.clone()).unwrap().with_metadata(metadata.clone());
        fixture.store.append(&stream, ExpectedVersion::NoStream, vec![event]).await.unwrap();
        let loaded = fixture.store.load_page(&stream, StreamVersion::NONE, 10).await.unwrap().events;
        assert_eq!((&loaded[0].stream, &*loaded[0].name), (&stream, name));
        assert_eq!((&loaded[0].metadata, &loaded[0].payload), (&metadata, &payload));
        let rows_by_name = "SELECT count(*) FROM annals.events
                       WHERE tenant = $1 AND aggregate_type = $1 AND aggregate_id = $1 AND event_type = $1
                         AND correlation_id = $1 AND causation_id = $1 AND event_data ->> $1 = $1";
        let found = sqlx::query(rows_by_name).bind(name).fetch_all(&mut fixture.foreign().await).await.unwrap();
        assert_eq!(found[0].get::<i64, _>(0), 1, "{name}");
    }
}

/// What the limit counts must not be less than what the server sends, or an event that was taken could not be read.
#[tokio::test]
async fn numbers_are_never_longer_than_they_are_counted() {
    let fixture = Fixture::new().await;
    let mut random = fastrand::Rng::new();
    let mut texts: Vec<String> =
        ["0e10", "0e-10", "-0e-16383", "0.000e5", "1e-16383", "10e-16383", "1e+300"].map(String::from).to_vec();
    while texts.len() < 2_000 {
        let digits = |random: &mut fastrand::Rng, most| (0..random.usize(1..most)).map(|_| random.digit(10)).collect();
        let (before, after): (String, String) = (digits(&mut random, 6), digits(&mut random, 8));
        let before = before.trim_start_matches('0');
        let sign = if random.bool() { "-" } else { "" };
        let point = if random.bool() { format!(".{after}") } else { String::new() };
        let exponent = random.i32(-400..300);
        texts.push(format!("{sign}{}{point}e{exponent}", if before.is_empty() { "0" } else { before }));
    }
    let lengths = "SELECT octet_length(n::jsonb::text) FROM unnest($1) WITH ORDINALITY AS t (n, place) ORDER BY place";
    let lengths = sqlx::query(lengths).bind(&texts).fetch_all(&mut fixture.foreign().await).await.unwrap();
    for (text, length) in texts.iter().zip(lengths) {
        let length = usize::try_from(length.get::<i32, _>(0)).unwrap();
        let id = EventId::new(fixture.store.ids().next_id()).unwrap();
        let event = NewEvent::raw(id, "n", 1, Payload::from_json(text).unwrap()).unwrap();
        let append = Append::to(stream("a"), ExpectedVersion::Any, vec![event]);
        let less = Limits { event_bytes: length - 1, ..Limits::default() };
        assert!(append.clone().check(&less).is_err(), "{text} has {length} bytes");
        let more = Limits { event_bytes: length.max(text.len()) + 310, ..Limits::default() };
        assert!(append.check(&more).is_ok(), "{text} has {length} bytes");
    }
}
