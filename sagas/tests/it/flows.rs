//! Flows that reactors make, and that a tracker follows.

use std::time::Duration;

use annals_eventstore::{
    AggregateStore, Context, CorrelationId, Decide, EventStore, EventStoreExt, Evolve, MemoryStore, Recorded,
    Repository, SqliteDatabase, Tenant,
};
use annals_macros::{Aggregate, Event};
use annals_projections::{EffectKey, ProjectionsExt, Reactor, ReactorError};
use annals_sagas::{Flow, FlowSteps, SagaEvent, SagaId, SagaStatus, Sagas, SagasExt, Status, timeline};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::stores::{Place, on_every_store};
use super::world::{SOON, id};

on_every_store!(
    flows_are_completed_whatever_the_order_of_their_events_and_repeated_ones_change_nothing,
    a_flow_that_fails_is_compensating_until_each_step_that_was_seen_is_undone,
    a_flow_that_takes_too_long_is_reported_once_and_reactors_can_undo_it,
    a_flow_goes_on_where_it_was_when_its_tracker_is_started_again,
);

#[derive(Event, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(crate) enum ShopEvent {
    #[event(name = "order.created")]
    Created,
    #[event(name = "order.cancelled")]
    Cancelled,
    #[event(name = "payment.completed")]
    Paid,
    #[event(name = "payment.refunded")]
    Refunded,
    #[event(name = "inventory.reserved")]
    Reserved,
    #[event(name = "reservation.failed")]
    NotReserved,
    #[event(name = "shipment.created")]
    Shipped,
}
use ShopEvent::{Cancelled, Created, NotReserved, Paid, Refunded, Reserved, Shipped};

annals_eventstore::text_id! {
    struct ShopId;
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "shop", id = ShopId, event = ShopEvent)]
struct Shop;

impl Evolve for Shop {
    fn evolve(&mut self, _: &ShopEvent) {}
}

#[derive(Serialize)]
struct Cancel;

impl Decide<Cancel> for Shop {
    type Rejection = std::convert::Infallible;

    fn decide(&self, _: &Cancel) -> Result<Vec<ShopEvent>, std::convert::Infallible> {
        Ok(vec![Cancelled])
    }
}

pub(crate) struct Checkout;

impl Flow for Checkout {
    type Event = ShopEvent;
    const NAME: &'static str = "checkout";

    fn steps() -> FlowSteps {
        FlowSteps::begin("order.created")
            .undone_by("order.cancelled")
            .step("payment.completed")
            .undone_by("payment.refunded")
            .step("inventory.reserved")
            .fails("reservation.failed")
            .step("shipment.created")
    }
}

/// As `Checkout`, for impatient customers.
struct Quick;

impl Flow for Quick {
    type Event = ShopEvent;
    const NAME: &'static str = "quick";

    fn steps() -> FlowSteps {
        Checkout::steps().timeout(Duration::from_millis(300)).compensation_within(Duration::from_secs(2))
    }
}

/// As `Checkout`, for some correlations only.
struct Online;

impl Flow for Online {
    type Event = ShopEvent;
    const NAME: &'static str = "online";

    fn follows(correlation: &CorrelationId) -> bool {
        correlation.as_str().starts_with("online-")
    }

    fn steps() -> FlowSteps {
        Checkout::steps()
    }
}

/// Records an event of a flow, in a stream of its kind.
pub(crate) async fn emit(store: &(impl EventStore + Clone), flow: &str, event: ShopEvent) {
    let shop: Repository<Shop> = store.aggregate();
    let context = Context::default().with_correlation(CorrelationId::new(flow).expect("it is an id"));
    let stream = ShopId::new(format!("{flow}-{event:?}")).expect("it is an id");
    shop.with(context).execute(&stream, |_| Ok::<_, std::convert::Infallible>(event)).await.expect("it is stored");
}

/// Waits until a flow is as wanted.
async fn until(sagas: &Sagas, flow: &str, wanted: impl Fn(&SagaStatus) -> bool) -> SagaStatus {
    let wait = async {
        loop {
            match sagas.status(&id(flow)).await {
                Ok(status) if wanted(&status) => return status,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{flow} does not become as wanted"))
}

async fn until_is(sagas: &Sagas, flow: &str, status: Status) -> SagaStatus {
    until(sagas, flow, |is| is.status == status).await
}

/// The signals and ends in the timeline of a flow.
async fn told(store: &(impl EventStore + Clone), flow: &str) -> Vec<String> {
    let events = timeline(store, &Tenant::default(), &id(flow)).await.expect("it is read");
    let told = events.into_iter().filter_map(|event| match event.event {
        SagaEvent::SignalReceived { payload, .. } => Some(payload["name"].as_str().expect("a name").to_owned()),
        SagaEvent::CompensationBegun { .. } => Some("undo".to_owned()),
        _ => None,
    });
    told.collect()
}

/// Waits until the tracker has handled everything.
pub(crate) async fn handled(store: &impl EventStore, sagas: &Sagas) {
    let head = store.head().await.expect("it is read").position;
    let wait = async {
        while sagas.projections().reactors().iter().any(|reactor| reactor.position < head) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it is handled");
}

async fn flows_are_completed_whatever_the_order_of_their_events_and_repeated_ones_change_nothing(place: impl Place) {
    let store = place.open().await;
    let sagas = store.sagas().track(Checkout).expect("it is sound").start().await.expect("it starts");
    let (a, b) = ([Created, Paid, Reserved, Shipped], [Created, Shipped, Shipped, Reserved]);
    for (of_a, of_b) in a.into_iter().zip(b) {
        emit(&store, "a", of_a).await;
        emit(&store, "b", of_b).await;
    }
    // Without a beginning there is no flow.
    emit(&store, "c", Cancelled).await;
    until_is(&sagas, "a", Status::Completed).await;
    let waits = until(&sagas, "b", |status| status.done.len() == 3).await;
    assert_eq!(waits.status, Status::Running);
    emit(&store, "b", Paid).await;
    let done = until_is(&sagas, "b", Status::Completed).await.done;
    emit(&store, "b", Cancelled).await;
    handled(&store, &sagas).await;
    let names = ["order.created", "shipment.created", "inventory.reserved", "payment.completed"];
    assert!(done.len() == 4 && names.iter().all(|name| done.iter().any(|done| done == name)), "{done:?}");
    assert_eq!(told(&store, "b").await, names, "in the order in which they were seen, each once");
    sagas.projections().caught_up(SOON).await.expect("it reads the log");
    let row = async |flow: &str| sagas.find(&id(flow)).await.expect("it is asked");
    let row_of_a = row("a").await.expect("it has one");
    assert_eq!((&*row_of_a.saga_type, row_of_a.status), ("checkout", Status::Completed));
    assert_eq!(row_of_a.correlation_id.as_deref(), Some("a"));
    assert!(row("c").await.is_none());
    sagas.close().await;
}

async fn a_flow_that_fails_is_compensating_until_each_step_that_was_seen_is_undone(place: impl Place) {
    let store = place.open().await;
    let sagas = store.sagas().track(Checkout).expect("it is sound").start().await.expect("it starts");
    for event in [Created, Paid, NotReserved, NotReserved] {
        emit(&store, "a", event).await;
    }
    let status = until_is(&sagas, "a", Status::Compensating).await;
    assert!(status.reason.expect("it has one").starts_with("`reservation.failed` at position "));
    emit(&store, "a", Cancelled).await;
    handled(&store, &sagas).await;
    assert_eq!(sagas.status(&id("a")).await.expect("it is there").status, Status::Compensating, "it was paid");
    emit(&store, "a", Refunded).await;
    until_is(&sagas, "a", Status::Compensated).await;
    // What is done although the flow has failed is to be undone too.
    for event in [Created, NotReserved, Paid, Cancelled] {
        emit(&store, "b", event).await;
    }
    let status = until(&sagas, "b", |status| status.done.len() == 2).await;
    assert_eq!(status.status, Status::Compensating);
    emit(&store, "b", Refunded).await;
    until_is(&sagas, "b", Status::Compensated).await;
    assert_eq!(told(&store, "a").await.iter().filter(|told| *told == "undo").count(), 1);
    sagas.close().await;
}

/// Cancels what a flow has created when it takes too long.
struct Canceller(Repository<Shop>);

impl Reactor for Canceller {
    type Event = SagaEvent;
    const NAME: &'static str = "canceller";

    async fn react(&self, event: &Recorded<SagaEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        let flow: SagaId = event.aggregate_id().map_err(ReactorError::permanent)?;
        if !matches!(event.event, SagaEvent::CompensationBegun { .. }) || flow.as_str() != "a" {
            return Ok(());
        }
        let order = ShopId::new(format!("{flow}-order")).map_err(ReactorError::permanent)?;
        for _ in 0..2 {
            let orders = self.0.with(Context::caused_by(event));
            orders.send_once(&order, key.to_string(), Cancel).await.map_err(ReactorError::transient)?;
        }
        Ok(())
    }
}

async fn a_flow_that_takes_too_long_is_reported_once_and_reactors_can_undo_it(place: impl Place) {
    let store = place.open().await;
    let sagas = store.sagas().track(Quick).expect("it is sound").start().await.expect("it starts");
    let reactors = store.projections().react(Canceller(store.aggregate())).start().await.expect("it starts");
    emit(&store, "a", Created).await;
    emit(&store, "b", Created).await;
    until_is(&sagas, "a", Status::Compensated).await;
    let events = timeline(&store, &Tenant::default(), &id("a")).await.expect("it is read");
    let begun: Vec<_> =
        events.iter().filter(|event| matches!(event.event, SagaEvent::CompensationBegun { .. })).collect();
    assert_eq!(begun.len(), 1);
    assert!(
        matches!(&begun[0].event, SagaEvent::CompensationBegun { reason, .. } if reason == "its deadline has passed")
    );
    // What the reactor did is of the flow, and caused by that event; its repetition had no effect.
    let orders = store.aggregate::<Shop>();
    let stream = orders.stream(&ShopId::new("a-order").expect("it is an id")).expect("it is an id");
    let page: Vec<_> = store.load(&stream).try_collect().await.expect("it is read");
    assert_eq!(page.len(), 1);
    let metadata = &page[0].metadata;
    assert_eq!(metadata.correlation_id, Some(CorrelationId::new("a").expect("it is an id")));
    assert_eq!(metadata.causation_id, Some(begun[0].event_id.into()));
    // Nobody undoes the other one.
    let stuck = until_is(&sagas, "b", Status::Stuck).await;
    assert_eq!(stuck.stuck_at.as_deref(), Some("order.created"));
    reactors.close().await;
    sagas.close().await;
}

async fn a_flow_goes_on_where_it_was_when_its_tracker_is_started_again(place: impl Place) {
    let store = place.open().await;
    let start = async || store.sagas().track(Checkout).expect("it is sound").start().await.expect("it starts");
    let sagas = start().await;
    emit(&store, "a", Created).await;
    emit(&store, "a", Paid).await;
    until(&sagas, "a", |status| status.done.len() == 2).await;
    sagas.close().await;
    for event in [Reserved, Shipped] {
        emit(&store, "a", event).await;
    }
    let sagas = start().await;
    until_is(&sagas, "a", Status::Completed).await;
    assert_eq!(told(&store, "a").await.len(), 4);
    sagas.close().await;
}

#[tokio::test]
async fn events_of_correlations_that_a_flow_does_not_follow_begin_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals_eventstore::sqlite(folder.path().join("shop.db")).await.expect("a store");
    let sagas = store.sagas().track(Online).expect("it is one").start().await.expect("it starts");
    for event in [Created, Paid] {
        emit(&store, "request-1", event).await;
        emit(&store, "online-1", event).await;
    }
    handled(&store, &sagas).await;
    assert_eq!(told(&store, "online-1").await, ["order.created", "payment.completed"]);
    assert_eq!(told(&store, "request-1").await, [""; 0]);
    sagas.close().await;
    store.close().await;
}

#[tokio::test]
async fn flows_in_memory_have_their_table_in_another_database() {
    let folder = tempfile::tempdir().expect("there is room");
    let (store, database) = (MemoryStore::new(), SqliteDatabase::open(folder.path().join("views.db")).await);
    let sagas = Sagas::of(&store, &database.expect("it opens")).track(Checkout).expect("it is sound");
    let sagas = sagas.start().await.expect("it starts");
    for event in [Created, Paid, Reserved, Shipped] {
        emit(&store, "a", event).await;
    }
    until_is(&sagas, "a", Status::Completed).await;
    sagas.close().await;
}

#[test]
fn a_flow_whose_events_are_unknown_or_say_two_things_is_refused_with_the_event() {
    struct Unknown;
    impl Flow for Unknown {
        type Event = ShopEvent;
        const NAME: &'static str = "unknown";
        fn steps() -> FlowSteps {
            FlowSteps::begin("order.created").step("order.creatd")
        }
    }
    struct Twice;
    impl Flow for Twice {
        type Event = ShopEvent;
        const NAME: &'static str = "twice";
        fn steps() -> FlowSteps {
            FlowSteps::begin("order.created").fails("order.created")
        }
    }
    super::stores::block_on(async {
        let folder = tempfile::tempdir().expect("there is room");
        let store = annals_eventstore::sqlite(folder.path().join("log.db")).await.expect("it opens");
        for (refused, problem) in [
            (store.sagas().track(Unknown).err(), "`order.creatd` of flow `unknown` is not one"),
            (store.sagas().track(Twice).err(), "`order.created` of flow `twice` is declared twice"),
        ] {
            let refused = refused.expect("it is refused");
            assert_eq!(refused.field, "event");
            assert!(refused.to_string().contains(problem), "{refused}");
        }
        // Which of both had a row was a matter of luck, and the other one was nowhere to be seen.
        let both = store.sagas().track(Checkout).expect("it is sound").track(Quick);
        let refused = both.err().expect("a correlation is one flow").to_string();
        assert!(refused.starts_with("`event` `order.created` begins the flows `checkout` and `quick`"), "{refused}");
        store.close().await;
    });
}
