//! What has happened before a projection is looked at.

use std::collections::HashMap;
use std::sync::Arc;

use annals_eventstore::__private::aggregate_types;
use annals_eventstore::{
    Event, EventId, IdSource, Metadata, NewEvent, Payload, Position, RecordedEvent, SeededIds, StreamId, StreamVersion,
    Tenant,
};
use jiff::{SignedDuration, Timestamp};

use crate::projection::Projection;
use crate::testing::ProjectionTest;

/// Begins a test of a projection: these events have happened, in this order.
///
/// An event is given as `(aggregate id, event)`, as a [`GivenEvent`] that says more, or as a [`RecordedEvent`] that some log has
/// stored. Events of several types can be given as [`GivenEvent`]s; the projection reads them back from their stored form. Versions
/// are counted per stream, positions from 1, and the store's clock shows one second more for each event, from
/// 2026-01-01T00:00:01Z.
///
/// # Panics
/// If an event cannot be stored.
///
/// ```
/// # use annals_eventstore::Recorded;
/// # use annals_macros::{Event, ReadModel};
/// # use annals_projections::{Projection, ProjectionError, Rows};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Clone)]
/// # enum OrderEvent {
/// #     #[event(name = "order.placed")]
/// #     Placed { cents: i64 },
/// #     #[event(name = "order.cancelled")]
/// #     Cancelled,
/// # }
/// # #[derive(ReadModel, Clone)]
/// # #[read_model(table = "open_orders", key = "id", per_tenant)]
/// # struct OpenOrder { id: String, cents: i64 }
/// # struct OpenOrders;
/// # impl Projection for OpenOrders {
/// #     type Event = OrderEvent;
/// #     type Row = OpenOrder;
/// #     fn apply(&self, e: &Recorded<OrderEvent>, rows: &mut Rows<OpenOrder>) -> Result<(), ProjectionError> {
/// #         let id = e.stream.aggregate_id().to_owned();
/// #         match e.event {
/// #             OrderEvent::Placed { cents } => rows.upsert(OpenOrder { id, cents }),
/// #             OrderEvent::Cancelled => rows.remove(&id),
/// #         }
/// #         Ok(())
/// #     }
/// # }
/// use annals_projections::testing::given_events;
///
/// let placed = |cents| OrderEvent::Placed { cents };
/// given_events([("o-1", placed(12_00)), ("o-2", placed(7_50)), ("o-1", OrderEvent::Cancelled)])
///     .with(OpenOrders)
///     .then_rows([OpenOrder { id: "o-2".into(), cents: 7_50 }]);
/// ```
#[track_caller]
pub fn given_events(events: impl IntoIterator<Item = impl Into<GivenEvent>>) -> GivenEvents {
    let mut versions: HashMap<StreamId, i64> = HashMap::new();
    let ids = SeededIds::new(7);
    let recorded = (1_i64..)
        .zip(events)
        .map(|(number, given)| {
            let GivenEvent { stream, name, schema_version, payload, recorded_at, metadata } = given.into();
            let version = versions.entry(stream.clone()).or_default();
            *version += 1;
            let id = EventId::new(ids.next_id()).expect("seeded ids are not nil");
            let event = NewEvent::raw(id, &*name, schema_version, payload)
                .unwrap_or_else(|error| panic!("`{name}` cannot be stored: {error}"))
                .with_metadata(metadata);
            RecordedEvent::new(
                event,
                stream,
                StreamVersion::new(*version).expect("counts from 1"),
                Position::new(number).expect("counts from 1"),
                None,
                recorded_at.unwrap_or(BEGINNING + SignedDuration::from_secs(number)),
            )
        })
        .collect();
    GivenEvents { recorded }
}

/// 2026-01-01T00:00:00Z.
const BEGINNING: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// One event that has happened, where `(aggregate id, event)` does not say enough.
///
/// ```
/// # use annals_macros::Event;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Clone, Debug)]
/// # enum OrderEvent {
/// #     #[event(name = "order.cancelled")]
/// #     Cancelled,
/// # }
/// use annals_eventstore::Tenant;
/// use annals_projections::testing::{GivenEvent, given_events};
///
/// let event = GivenEvent::of("order", "o-1", OrderEvent::Cancelled)
///     .tenant(Tenant::new("north")?)
///     .at("2026-03-02T09:30:00Z".parse()?);
/// let given = given_events([event]);
/// assert_eq!(given.recorded()[0].stream.to_string(), "north/order/o-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct GivenEvent {
    stream: StreamId,
    name: Arc<str>,
    schema_version: u32,
    payload: Payload,
    recorded_at: Option<Timestamp>,
    metadata: Metadata,
}

impl GivenEvent {
    /// An event of the aggregate `aggregate_id` of the kind `aggregate_type`.
    ///
    /// # Panics
    /// If no stream could have that name, or the event cannot be stored.
    #[must_use]
    #[track_caller]
    pub fn of<E: Event>(aggregate_type: &str, aggregate_id: &str, event: E) -> Self {
        let shape = event.shape();
        Self {
            stream: StreamId::new(Tenant::default(), aggregate_type, aggregate_id).expect("a valid stream name"),
            name: shape.name.into(),
            schema_version: shape.version,
            payload: event.encode().unwrap_or_else(|error| panic!("`{}` cannot be stored: {error}", shape.name)),
            recorded_at: None,
            metadata: Metadata::default(),
        }
    }

    /// The same event of another tenant.
    ///
    /// # Panics
    /// Never: the stream's other parts were checked before.
    #[must_use]
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.stream = StreamId::new(tenant, self.stream.aggregate_type(), self.stream.aggregate_id())
            .expect("the parts were checked before");
        self
    }

    /// The same event, recorded at another time; order does not follow from it.
    #[must_use]
    pub fn at(mut self, recorded_at: Timestamp) -> Self {
        self.recorded_at = Some(recorded_at);
        self
    }

    /// The same event with metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }
}

/// The aggregate type of events that are given without one.
pub(super) const AGGREGATE: &str = "aggregate";

/// An event of the aggregate type that `#[event(of = "..")]` names; else of the kind `aggregate`, or for a stream projection of one
/// kind, of that.
impl<E: Event> From<(&str, E)> for GivenEvent {
    #[track_caller]
    fn from((aggregate_id, event): (&str, E)) -> Self {
        let aggregate_type = aggregate_types::<E>().and_then(|types| types.first().copied());
        Self::of(aggregate_type.unwrap_or(AGGREGATE), aggregate_id, event)
    }
}

/// An event that a log has stored, at its time. Its position and its version are counted anew.
impl From<RecordedEvent> for GivenEvent {
    fn from(event: RecordedEvent) -> Self {
        let RecordedEvent { stream, name, schema_version, payload, metadata, recorded_at, .. } = event;
        Self { stream, name, schema_version, payload, recorded_at: Some(recorded_at), metadata }
    }
}

/// Events that have happened, for a projection to be looked at.
#[derive(Clone, Debug)]
pub struct GivenEvents {
    recorded: Vec<RecordedEvent>,
}

impl GivenEvents {
    /// The events as a store gives them back.
    #[must_use]
    pub fn recorded(&self) -> &[RecordedEvent] {
        &self.recorded
    }

    /// The same without the events of this stored name, which the projection passes over on purpose.
    ///
    /// # Panics
    /// If none of them has this name.
    #[track_caller]
    pub fn except(mut self, name: &str) -> Self {
        let before = self.recorded.len();
        self.recorded.retain(|event| &*event.name != name);
        assert!(self.recorded.len() < before, "no given event is called `{name}`");
        self
    }

    /// Lets `projection` fold the events.
    ///
    /// # Panics
    /// If it does not read events of a name that is given: the name is wrong somewhere, or the event is not for it. If it wants
    /// the events of one tenant alone, and none of those given is.
    #[must_use]
    #[track_caller]
    pub fn with<P: Projection>(self, projection: P) -> ProjectionTest<P> {
        ProjectionTest::new(projection, self.recorded)
    }
}
