//! A checkout: an order in the store, and services that are called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use annals_eventstore::{AggregateStore, Decide, EventStore, Evolve};
use annals_macros::{Aggregate, Event};
use annals_resilience::Policy;
use serde::{Deserialize, Serialize};

use crate::{Call, Definition, Saga, StepError, StepRetry, command};

annals_eventstore::text_id! {
    pub(crate) struct OrderId;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub(crate) enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
    #[event(name = "order.cancelled")]
    Cancelled,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "order", id = OrderId, event = OrderEvent)]
pub(crate) struct Order {
    pub(crate) placed: u32,
    pub(crate) cancelled: u32,
}

impl Evolve for Order {
    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed => self.placed += 1,
            OrderEvent::Cancelled => self.cancelled += 1,
        }
    }
}

pub(crate) struct Place;
pub(crate) struct Cancel;

impl Decide<Place> for Order {
    type Rejection = &'static str;

    fn decide(&self, _: &Place) -> Result<Vec<OrderEvent>, &'static str> {
        if self.placed > 0 { Err("it is placed already") } else { Ok(vec![OrderEvent::Placed]) }
    }
}

impl Decide<Cancel> for Order {
    type Rejection = &'static str;

    fn decide(&self, _: &Cancel) -> Result<Vec<OrderEvent>, &'static str> {
        Ok(vec![OrderEvent::Cancelled])
    }
}

/// Services that have each effect once under its key, and know what was undone before it was done.
#[derive(Default)]
pub(crate) struct World {
    state: Mutex<Services>,
}

#[derive(Default)]
struct Services {
    /// What is done and not undone, by service.
    effects: BTreeMap<&'static str, BTreeSet<String>>,
    tombstones: BTreeSet<String>,
    calls: Vec<String>,
}

/// The key of a step without its direction.
fn step_of(call: &Call) -> String {
    let (step, _) = call.key().as_str().rsplit_once('/').expect("a key has a direction");
    step.to_owned()
}

impl World {
    pub(crate) fn done(&self, service: &'static str, call: &Call) -> Result<(), StepError> {
        let mut state = self.state.lock().expect("nobody panics");
        state.calls.push(call.key().as_str().to_owned());
        let step = step_of(call);
        if state.tombstones.contains(&step) {
            return Err(StepError::refused("it was undone"));
        }
        state.effects.entry(service).or_default().insert(step);
        Ok(())
    }

    pub(crate) fn undone(&self, service: &'static str, call: &Call) -> Result<(), StepError> {
        let mut state = self.state.lock().expect("nobody panics");
        state.calls.push(call.key().as_str().to_owned());
        let step = step_of(call);
        state.effects.entry(service).or_default().remove(&step);
        state.tombstones.insert(step);
        Ok(())
    }

    pub(crate) fn effects(&self, service: &str) -> usize {
        self.state.lock().expect("nobody panics").effects.get(service).map_or(0, BTreeSet::len)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().expect("nobody panics").calls.clone()
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Checkout {
    pub(crate) order: String,
    pub(crate) payment: Option<u32>,
}

impl Checkout {
    pub(crate) fn new() -> Self {
        Self { order: "o-17".to_owned(), payment: None }
    }

    fn order(&self) -> OrderId {
        OrderId::new(&self.order).expect("it is an id")
    }
}

pub(crate) fn policy(name: &str) -> Policy {
    Policy::fast(name).build().expect("it is sound")
}

/// Place the order, charge, reserve; then ship.
pub(crate) fn checkout(world: &Arc<World>, store: &(impl EventStore + Clone)) -> Definition<Checkout> {
    let orders = store.aggregate::<Order>();
    let cancelled = orders.clone();
    let [charge, refund, reserve, release, ship] = [(); 5].map(|()| world.clone());
    let twice = StepRetry { attempts: 2, ..StepRetry::default() };
    Saga::<Checkout>::new("checkout")
        .local("create", move |checkout| command(&orders, checkout.order(), Place))
        .undo(move |checkout| command(&cancelled, checkout.order(), Cancel))
        .remote("charge", &policy("payment"), move |_, call| {
            let world = charge.clone();
            async move { world.done("payment", &call).map(|()| 4711) }
        })
        .retry(twice)
        .keep(|checkout, payment: u32| checkout.payment = Some(payment))
        .undo(move |_, call| {
            let world = refund.clone();
            async move { world.undone("payment", &call) }
        })
        .retry_undo(twice)
        .remote("reserve", &policy("stock"), move |checkout, call| {
            let world = reserve.clone();
            async move {
                assert_eq!(checkout.payment, Some(4711), "later steps have what earlier ones kept");
                world.done("stock", &call)
            }
        })
        .retry(twice)
        .undo(move |_, call| {
            let world = release.clone();
            async move { world.undone("stock", &call) }
        })
        .retry_undo(twice)
        .pivot()
        .remote("ship", &policy("shipping"), move |_, call| {
            let world = ship.clone();
            async move { world.done("shipping", &call) }
        })
        .retry(twice)
        .build()
        .expect("it is sound")
}
