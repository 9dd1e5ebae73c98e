//! Input that no store may accept: refused with the field and the fix, and nothing is stored.

use super::case::{Case, names_the_field};
use crate::append::Append;
use crate::error::Invalid;
use crate::event::{EventId, NewEvent};
use crate::filter::{Filter, StreamFilter};
use crate::metadata::{Actor, CausationId, CorrelationId, Metadata, TraceParent};
use crate::payload::{MAX_DEPTH, Payload};
use crate::request::{Fingerprint, RequestKey};
use crate::stream::{ExpectedVersion, StreamId, Tenant};

/// Texts that are no names.
fn bad_names() -> Vec<String> {
    let mut bad: Vec<String> =
        ["", "\0", "a\0b", "a\nb", "\u{7f}", "\u{85}", "$all", "$", "__internal", "__"].map(String::from).to_vec();
    bad.push("x".repeat(201));
    bad.push("\u{e9}".repeat(101));
    bad
}

/// Checks that each bad name is refused with `field`, and that the store is unchanged.
async fn refuses_bad_names<T: std::fmt::Debug>(case: &Case, field: &str, make: impl Fn(String) -> Result<T, Invalid>) {
    case.append("a", ExpectedVersion::Any, 1).await;
    let before = case.everything().await;
    for bad in bad_names() {
        match make(bad.clone()) {
            Err(invalid) => names_the_field(&invalid, field),
            Ok(made) => panic!("{bad:?} was taken: {made:?}"),
        }
    }
    assert_eq!(case.everything().await, before);
}

pub(super) async fn a_bad_tenant_is_refused(case: Case) {
    refuses_bad_names(&case, "tenant", Tenant::new).await;
}

pub(super) async fn a_bad_aggregate_type_is_refused(case: Case) {
    refuses_bad_names(&case, "aggregate_type", |bad| StreamId::new(Tenant::default(), bad, "1")).await;
    refuses_bad_names(&case, "aggregate_type", |bad| Filter::all().aggregate_type(bad)).await;
    refuses_bad_names(&case, "aggregate_type", |bad| StreamFilter::all().aggregate_type(bad)).await;
}

pub(super) async fn a_bad_aggregate_id_is_refused(case: Case) {
    refuses_bad_names(&case, "aggregate_id", |bad| StreamId::new(Tenant::default(), "order", bad)).await;
}

pub(super) async fn a_bad_event_name_is_refused(case: Case) {
    let payload = Payload::of(&0).unwrap();
    let id = case.id();
    refuses_bad_names(&case, "event_type", |bad| NewEvent::raw(id, bad, 1, payload.clone())).await;
    refuses_bad_names(&case, "event_type", |bad| Filter::all().event_name(bad)).await;
}

pub(super) async fn a_bad_metadata_id_is_refused(case: Case) {
    refuses_bad_names(&case, "correlation_id", CorrelationId::new).await;
    refuses_bad_names(&case, "causation_id", CausationId::new).await;
    refuses_bad_names(&case, "actor", Actor::new).await;
    refuses_bad_names(&case, "trace_parent", TraceParent::new).await;
}

pub(super) async fn a_bad_request_key_is_refused(case: Case) {
    refuses_bad_names(&case, "request_key", |bad| RequestKey::new(bad, Fingerprint::of_bytes(b""))).await;
}

pub(super) async fn the_nil_event_id_is_refused(case: Case) {
    names_the_field(&EventId::new(uuid::Uuid::nil()).unwrap_err(), "event_id");
    assert_eq!(case.log().await, []);
}

pub(super) async fn schema_version_zero_is_refused(case: Case) {
    let made = NewEvent::raw(case.id(), "n", 0, Payload::of(&0).unwrap());
    names_the_field(&made.unwrap_err(), "schema_version");
    assert_eq!(case.log().await, []);
}

/// The fields of an event are open, so a store checks them again.
pub(super) async fn an_event_that_was_changed_after_its_check_is_refused(case: Case) {
    for bad in bad_names() {
        let mut event = case.event();
        event.name = bad.into();
        let append = Append::to(case.stream("a"), ExpectedVersion::Any, vec![case.event(), event]);
        case.invalid_without_trace(append, "event_type").await;
    }
    let mut event = case.event();
    event.schema_version = 0;
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, vec![case.event(), event]);
    case.invalid_without_trace(append, "schema_version").await;
}

pub(super) async fn a_reserved_metadata_name_is_refused(case: Case) {
    for bad in ["$actor", "__x", "", "a\nb"] {
        let mut metadata = Metadata::default();
        metadata.extra.insert(bad.to_owned(), "value".to_owned());
        let events = vec![case.event(), case.event().with_metadata(metadata)];
        let append = Append::to(case.stream("a"), ExpectedVersion::Any, events);
        case.invalid_without_trace(append, &format!("metadata.{}", bad.escape_debug())).await;
    }
}

pub(super) async fn a_metadata_value_with_nul_is_refused(case: Case) {
    let mut metadata = Metadata::default();
    metadata.extra.insert("note".to_owned(), "a\0b".to_owned());
    let events = vec![case.event(), case.event().with_metadata(metadata)];
    case.invalid_without_trace(Append::to(case.stream("a"), ExpectedVersion::Any, events), "metadata.note").await;
}

/// Checks that a payload is refused, that its error names the place and the fix, and that the store is unchanged.
async fn refuses_payload(case: &Case, what: &str, made: Result<Payload, Invalid>) {
    match made {
        Err(invalid) => {
            assert!(invalid.field.starts_with("payload"), "{what}: {invalid}");
            assert!(!invalid.problem.is_empty() && !invalid.fix.is_empty(), "{what}: {invalid:?}");
        }
        Ok(payload) => panic!("{what} was taken: {payload:?}"),
    }
    assert_eq!(case.log().await, []);
}

pub(super) async fn numbers_that_json_has_not_are_refused(case: Case) {
    #[derive(serde::Serialize)]
    struct Holder {
        amount: f64,
    }
    for amount in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refuses_payload(&case, "a number", Payload::of(&Holder { amount })).await;
        refuses_payload(&case, "a number", Payload::of(&vec![Some(amount)])).await;
    }
    refuses_payload(&case, "a small number", Payload::of(&f32::NAN)).await;
}

pub(super) async fn numbers_beyond_doubles_are_refused(case: Case) {
    for text in ["1e400", "-1e400", "1e131071", "{\"a\":[1e309]}", "123456789e999999999999"] {
        refuses_payload(&case, text, Payload::from_json(text)).await;
    }
}

pub(super) async fn the_character_nul_is_refused(case: Case) {
    refuses_payload(&case, "a text", Payload::of("a\0b")).await;
    refuses_payload(&case, "an escape", Payload::from_json(r#"{"a":"\u0000"}"#)).await;
    refuses_payload(&case, "a key", Payload::from_json(r#"{"a\u0000":1}"#)).await;
}

pub(super) async fn lone_surrogates_are_refused(case: Case) {
    for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800x""#, r#""\ud800\ud800""#, r#"{"\udfff":1}"#] {
        refuses_payload(&case, text, Payload::from_json(text)).await;
    }
}

pub(super) async fn a_key_twice_in_one_object_is_refused(case: Case) {
    for text in [r#"{"a":1,"a":1}"#, r#"{"b":{"a":1,"c":2,"a":3}}"#, r#"{"a":1,"\u0061":2}"#] {
        refuses_payload(&case, text, Payload::from_json(text)).await;
    }
}

pub(super) async fn text_that_is_no_json_is_refused(case: Case) {
    let texts = ["", " ", "{", "[1,]", "{\"a\":}", "nul", "1 2", "{} x", "'a'", "\u{feff}{}", "01", "NaN", "\"a\nb\""];
    for text in texts {
        refuses_payload(&case, text, Payload::from_json(text)).await;
    }
}

pub(super) async fn a_payload_may_be_as_deep_as_the_limit_and_no_deeper(case: Case) {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for depth in [MAX_DEPTH + 1, 128, 100_000] {
        refuses_payload(&case, "a deep payload", Payload::from_json(&nested(depth))).await;
    }
    let event = case.holding("n", Payload::from_json(&nested(MAX_DEPTH)).unwrap());
    case.store.append(&case.stream("a"), ExpectedVersion::Any, vec![event]).await.unwrap();
    assert_eq!(case.log().await[0].payload.as_str(), nested(MAX_DEPTH));
}
