//! A saga for tests, and services that count what they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{EventStore, EventStoreExt, ReadError, StreamId, Tenant};
use annals_resilience::Policy;
use annals_sagas::{Call, Definition, Direction, Saga, SagaEvent, SagaId, StepError, StepRetry};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

/// How often each key was called.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<BTreeMap<String, u32>>>);

impl World {
    pub(crate) fn called(&self, call: &Call) {
        *self.0.lock().expect("nobody panics").entry(call.key().as_str().to_owned()).or_default() += 1;
    }

    /// How often the keys with this end were called.
    pub(crate) fn calls(&self, end: &str) -> Vec<u32> {
        let calls = self.0.lock().expect("nobody panics");
        calls.iter().filter(|(key, _)| key.ends_with(end)).map(|(_, count)| *count).collect()
    }
}

/// Which call is refused, and how long each takes.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct Order {
    pub(crate) refuses: Option<String>,
    pub(crate) takes_ms: u64,
}

impl Order {
    pub(crate) fn refusing(call: &str) -> Self {
        Self { refuses: Some(call.to_owned()), takes_ms: 0 }
    }

    async fn call(&self, world: &World, name: &str, call: &Call) -> Result<(), StepError> {
        world.called(call);
        tokio::time::sleep(Duration::from_millis(self.takes_ms)).await;
        match &self.refuses {
            Some(refused) if refused == name => Err(StepError::refused("not today")),
            _ => Ok(()),
        }
    }
}

/// Charge and reserve, then ship; each call is made once at most.
pub(crate) fn orders(world: &World) -> Definition<Order> {
    orders_with("reserve", world)
}

/// The same, with this name for the second step.
pub(crate) fn orders_with(reserve: &'static str, world: &World) -> Definition<Order> {
    let policy = |name: &str| Policy::fast(name).build().expect("it is sound");
    let once = StepRetry { attempts: 1, ..StepRetry::default() };
    let step = |name: &'static str| {
        let world = world.clone();
        move |order: Arc<Order>, call: Call| {
            let world = world.clone();
            async move { order.call(&world, name, &call).await }
        }
    };
    Saga::<Order>::new("order")
        .remote("charge", &policy("payment"), step("charge"))
        .retry(once)
        .undo(step("refund"))
        .retry_undo(once)
        .remote(reserve, &policy("stock"), step("reserve"))
        .retry(once)
        .undo(step("release"))
        .retry_undo(once)
        .pivot()
        .remote("ship", &policy("shipping"), step("ship"))
        .retry(once)
        .build()
        .expect("it is sound")
}

pub(crate) fn id(name: impl Into<String>) -> SagaId {
    SagaId::new(name.into()).expect("it is an id")
}

/// The stream of an instance, and how many appends made it.
pub(crate) async fn recorded(
    store: &(impl EventStore + Clone),
    id: &SagaId,
) -> Result<(Vec<SagaEvent>, usize), ReadError> {
    let stream = StreamId::new(Tenant::default(), "saga", id)?;
    let stored: Vec<_> = store.load(&stream).try_collect().await?;
    let mut appends: Vec<_> = stored.iter().map(|event| event.append_id).collect();
    appends.dedup_by(|one, other| one.is_some() && one == other);
    let mut events = Vec::new();
    for event in &stored {
        events.extend(event.decode::<SagaEvent>()?);
    }
    Ok((events, appends.len()))
}

/// No step is done after the compensation has begun or undone after the pivot, and each call that was begun has one outcome.
pub(crate) fn keeps_the_laws(events: &[SagaEvent]) {
    let (mut compensating, mut pivot_passed, mut open) = (false, false, BTreeSet::new());
    for event in events {
        match event {
            SagaEvent::CompensationBegun { .. } => compensating = true,
            SagaEvent::PivotPassed => pivot_passed = true,
            SagaEvent::Begun { step, direction, attempt } => {
                let may = match direction {
                    Direction::Do => !compensating,
                    Direction::Undo => compensating && !pivot_passed,
                };
                assert!(may && open.insert((step, *direction, *attempt)), "{event:?} in {events:?}");
            }
            SagaEvent::Succeeded { step, direction, attempt, .. }
            | SagaEvent::Refused { step, direction, attempt, .. }
            | SagaEvent::Failed { step, direction, attempt, .. } => {
                let has_intent = *attempt == 0 || open.remove(&(step, *direction, *attempt));
                assert!(has_intent, "{event:?} in {events:?}");
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?} in {events:?}");
}

pub(crate) const SOON: Duration = Duration::from_secs(10);
