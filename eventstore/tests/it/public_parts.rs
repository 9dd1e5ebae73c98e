//! Values that implementers and wrappers of stores read and create, by the public API alone.

use annals_eventstore::{
    Actor, Append, CausationId, CheckedEvent, CorrelationId, EventId, ExpectedVersion, Filter, FilterConditions,
    Fingerprint, Limits, Metadata, NewEvent, Payload, Position, RecordedEvent, RequestKey, StreamFilter, StreamId,
    StreamVersion, Tenant,
};
use jiff::Timestamp;
use uuid::Uuid;

/// What an engine that stores bytes would write of an event.
struct Row {
    event_id: Uuid,
    stream: [String; 3],
    version: i64,
    position: i64,
    name: String,
    schema_version: u32,
    payload: String,
    metadata: String,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    append_id: Option<Uuid>,
    recorded_at: i64,
}

impl Row {
    fn of(event: &CheckedEvent, append_id: Option<Uuid>, place: &RecordedEvent) -> Self {
        let metadata = event.metadata();
        Self {
            event_id: event.event_id().get(),
            stream: [place.stream.tenant().as_str(), place.stream.aggregate_type(), place.stream.aggregate_id()]
                .map(str::to_owned),
            version: place.version.get(),
            position: place.position.get(),
            name: event.name().to_owned(),
            schema_version: event.schema_version(),
            payload: event.payload().as_str().to_owned(),
            metadata: event.metadata_json().to_owned(),
            correlation_id: metadata.correlation_id.as_ref().map(|id| id.as_str().to_owned()),
            causation_id: metadata.causation_id.as_ref().map(|id| id.as_str().to_owned()),
            append_id,
            recorded_at: place.recorded_at.as_microsecond(),
        }
    }

    fn read(&self) -> Result<RecordedEvent, Box<dyn std::error::Error>> {
        let mut metadata = Metadata::from_json(&self.metadata)?;
        metadata.correlation_id = self.correlation_id.as_ref().map(CorrelationId::new).transpose()?;
        metadata.causation_id = self.causation_id.as_ref().map(CausationId::new).transpose()?;
        let payload = Payload::from_json(&self.payload)?;
        let event = NewEvent::raw(EventId::new(self.event_id)?, &self.name, self.schema_version, payload)?;
        let [tenant, aggregate_type, aggregate_id] = &self.stream;
        Ok(RecordedEvent::new(
            event.with_metadata(metadata),
            StreamId::new(Tenant::new(tenant)?, aggregate_type, aggregate_id)?,
            StreamVersion::new(self.version)?,
            Position::new(self.position)?,
            self.append_id,
            Timestamp::from_microsecond(self.recorded_at)?,
        ))
    }
}

#[test]
fn what_an_engine_writes_of_an_event_it_can_make_the_event_of_again() {
    let mut metadata = Metadata::default();
    metadata.correlation_id = Some(CorrelationId::new("checkout-7").unwrap());
    metadata.causation_id = Some(CausationId::new("request-1").unwrap());
    metadata.actor = Some(Actor::new("alice").unwrap());
    metadata.extra.insert("channel".to_owned(), "web".to_owned());
    let event = |id| {
        let payload = Payload::from_json(r#"{"total":1200}"#).unwrap();
        let event = NewEvent::raw(EventId::new(Uuid::from_u128(id)).unwrap(), "order.placed", 2, payload).unwrap();
        event.with_metadata(metadata.clone())
    };
    let stream = StreamId::new(Tenant::default(), "order", "o-17").unwrap();
    let append = Append::to(stream.clone(), ExpectedVersion::NoStream, vec![event(1), event(2)]);
    let append = append.check(&Limits::default()).unwrap();
    assert!(append.append_id().is_some());

    let now = "2026-01-02T03:04:05.123456789Z".parse().unwrap();
    let mut version = StreamVersion::NONE;
    for (index, (stream, event)) in (0..).zip(append.events()) {
        version = version.plus(1).unwrap();
        let kept = RecordedEvent::new(
            event.clone().into(),
            stream.clone(),
            version,
            Position::new(40 + index).unwrap(),
            append.append_id(),
            now,
        );
        assert_eq!(kept.metadata, metadata);
        assert_eq!(kept.recorded_at.to_string(), "2026-01-02T03:04:05.123456Z");
        assert_eq!(Row::of(event, append.append_id(), &kept).read().unwrap(), kept);
    }
}

#[test]
fn a_wrapper_of_a_store_sees_the_parts_of_an_append() {
    let stream = |id| StreamId::new(Tenant::default(), "order", id).unwrap();
    let event = |id| {
        let payload = Payload::of(&id).unwrap();
        NewEvent::raw(EventId::new(Uuid::from_u128(id)).unwrap(), "order.placed", 1, payload).unwrap()
    };
    let request = RequestKey::new("r", Fingerprint::of_bytes(b"")).unwrap();
    let deadline = tokio::time::Instant::now();
    let append = Append::to(stream("a"), ExpectedVersion::NoStream, vec![event(1), event(2)])
        .and(stream("b"), ExpectedVersion::Any, vec![event(3)])
        .with_request(request.clone())
        .with_deadline(deadline);
    assert_eq!((append.tenant(), append.request()), (&Tenant::default(), Some(&request)));
    assert_eq!(append.deadline(), Some(deadline));
    let seen: Vec<_> = append.parts().iter().map(|part| (&part.stream, part.expected, part.events.len())).collect();
    assert_eq!(seen, [(&stream("a"), ExpectedVersion::NoStream, 2), (&stream("b"), ExpectedVersion::Any, 1)]);

    let checked = append.check(&Limits::default()).unwrap();
    assert_eq!((checked.event_count(), checked.bytes()), (3, 3 + 3 * "{}".len()));
    assert_eq!((checked.request(), checked.deadline()), (Some(&request), Some(deadline)));
    assert_eq!(checked.first_stream(), stream("a"));
}

#[test]
fn the_conditions_of_a_filter_are_those_it_was_made_of() {
    let (tenant, correlation) = (Tenant::new("north").unwrap(), CorrelationId::new("checkout-7").unwrap());
    let filter = Filter::all().tenant(tenant.clone()).correlation(correlation.clone());
    let filter = filter.aggregate_type("order").unwrap().event_name("order.placed").unwrap();
    let FilterConditions { tenant: of, aggregate_types, event_names, correlation_id } = filter.conditions();
    assert_eq!((of, correlation_id), (Some(&tenant), Some(&correlation)));
    assert_eq!((aggregate_types, event_names), (&["order".to_owned()][..], &["order.placed".to_owned()][..]));
    let streams = StreamFilter::all().tenant(tenant.clone()).aggregate_type("order").unwrap();
    assert_eq!(streams.conditions(), (Some(&tenant), Some("order")));
}
