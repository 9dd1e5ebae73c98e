//! Keys, families of errors, parts of an event, and the span of a handler.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{
    BackendError, DecodeError, Event, EventId, EventShape, EventStore, ExpectedVersion, Invalid, Metadata, NewEvent,
    Parts, Payload, ReadError, Recorded, StreamId, Tenant, TraceParent,
};
use uuid::Uuid;

use super::mailer::{Act, Mailer, start, until_at};
use crate::tests::accounts::AccountEvent;
use crate::tests::fixture::Fixture;
use crate::tests::observed::Spans;
use crate::{EffectKey, Reactor, ReactorError};

/// Receivers store keys: they must never become others.
#[test]
fn the_key_of_an_event_is_as_agreed() {
    let event = EventId::new(Uuid::from_u128(7)).unwrap();
    let key = EffectKey::new("mailer", event, 0);
    insta::assert_snapshot!(key, @"d968833c-3e5b-5330-a192-af1915604208");
    assert_eq!(key.to_string(), key.as_uuid().to_string());
    let other = EventId::new(Uuid::from_u128(8)).unwrap();
    let keys = [
        key,
        EffectKey::new("mailer", event, 1),
        EffectKey::new("mailer", other, 0),
        EffectKey::new("mailer2", event, 0),
        key.effect("copy"),
        key.effect("receipt"),
    ];
    assert_eq!(std::collections::HashSet::from(keys).len(), 6);
}

#[test]
fn an_error_that_knows_its_family_decides_and_any_other_is_transient() {
    #[derive(Debug, thiserror::Error)]
    #[error("the command failed")]
    struct Wrapped(#[source] ReadError);

    let down = || ReadError::Unavailable { source: BackendError::new("no server") };
    let invalid = || ReadError::from(Invalid::new("limit", "is 0", "give 1"));
    let text = "x".parse::<u8>().unwrap_err();
    for (error, permanent) in [
        (ReactorError::from(down()), false),
        (ReactorError::from(invalid()), true),
        (ReactorError::from(Wrapped(down())), false),
        (ReactorError::from(Wrapped(invalid())), true),
        (ReactorError::from(text), false),
        (ReactorError::permanent("no"), true),
        (ReactorError::transient(invalid()), false),
    ] {
        assert_eq!(error.is_permanent(), permanent, "{error}");
    }
}

/// An event that an upcaster splits.
#[derive(Clone)]
struct Half;

impl Event for Half {
    const SHAPES: &'static [EventShape] = &[EventShape { name: "halves", version: 1, rust_name: "Half" }];

    fn shape(&self) -> &'static EventShape {
        &Self::SHAPES[0]
    }

    fn encode(&self) -> Result<Payload, Invalid> {
        Payload::of(&())
    }

    fn decode(_: &str, _: u32, _: &Payload) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn read(_: &str, _: u32, payload: &Payload) -> Result<Parts<Self>, DecodeError> {
        let parts = payload.as_str().trim_matches('"').parse().unwrap_or(1);
        Ok(vec![Self; parts].into())
    }
}

#[derive(Clone, Default)]
struct Halves(Arc<Mutex<Vec<(u32, EffectKey)>>>);

impl Reactor for Halves {
    type Event = Half;
    const NAME: &'static str = "halves";

    async fn react(&self, event: &Recorded<Half>, key: &EffectKey) -> Result<(), ReactorError> {
        let mut calls = self.0.lock().unwrap();
        calls.push((event.part, *key));
        let tries = calls.iter().filter(|(part, _)| *part == event.part).count();
        if event.part == 1 && tries == 1 { Err(ReactorError::transient("not yet")) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn each_part_of_an_event_has_its_own_key_and_a_try_begins_with_the_part_that_failed() {
    let shop = Fixture::new();
    let halves = Halves::default();
    let views = shop.projections().react(halves.clone()).start().await.unwrap();
    let last = shop.append_raw("a", "halves", "\"3\"").await;
    until_at(&views, last).await;
    // One that is dropped is handled at once.
    let none = shop.append_raw("a", "halves", "\"0\"").await;
    until_at(&views, none).await;
    views.close().await;
    let calls = halves.0.lock().unwrap().clone();
    assert_eq!(calls.iter().map(|(part, _)| *part).collect::<Vec<_>>(), [0, 1, 1, 2]);
    assert_eq!(calls[1].1, calls[2].1);
    assert_eq!(calls.iter().map(|(_, key)| *key).collect::<std::collections::HashSet<_>>().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_handler_names_the_event_and_the_trace_it_was_recorded_under() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let shop = Fixture::new();
    let spans = Spans::called("react");
    let views = start(&shop, &Mailer::new(|_| Act::Slow(Duration::from_millis(1)))).await;
    let _guard = tracing::subscriber::set_default(spans.clone());
    tracing::callsite::rebuild_interest_cache();
    let mut metadata = Metadata::default();
    metadata.trace_parent = Some(TraceParent::new(TRACE).unwrap());
    let event = NewEvent::of(EventId::new(Uuid::from_u128(9)).unwrap(), &AccountEvent::Opened).unwrap();
    let stream = StreamId::new(Tenant::default(), "account", "a").unwrap();
    let append = shop.store.append(&stream, ExpectedVersion::Any, vec![event.with_metadata(metadata)]);
    until_at(&views, append.await.unwrap().position).await;
    views.close().await;
    let mut fields = spans.fields();
    fields.retain(|field| !field.starts_with("event="));
    assert_eq!(
        fields,
        ["reactor=\"mailer\"", "position=1", "stream=default/account/a", &format!("trace_parent=\"{TRACE}\"")]
    );
}
