//! Flows under every order of their events, with events that come twice, and with a process that ends at any append.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use annals_eventstore::{ErrorFamily, MemoryStore, Position};
use annals_macros::Event;
use annals_resilience::IdempotencyKey;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::calls::{Calls, Remote};
use crate::flow::{Flow, FlowEvent, FlowSteps};
use crate::plan::{Due, Outcome};
use crate::testing::{PausedClock, recorded};
use crate::{Engine, SagaError, SagaEvent, SagaId, Status};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum ShopEvent {
    #[event(name = "order.created")]
    Created,
    #[event(name = "order.cancelled")]
    Cancelled,
    #[event(name = "payment.completed")]
    Paid,
    #[event(name = "payment.refunded")]
    Refunded,
    #[event(name = "reservation.failed")]
    NotReserved,
    #[event(name = "shipment.created")]
    Shipped,
}

struct Checkout;

impl Flow for Checkout {
    type Event = ShopEvent;
    const NAME: &'static str = "checkout";

    fn steps() -> FlowSteps {
        FlowSteps::begin("order.created")
            .undone_by("order.cancelled")
            .step("payment.completed")
            .undone_by("payment.refunded")
            .step("shipment.created")
            .fails("reservation.failed")
    }
}

/// Ends the process once, before or after an append: the number of it, from 0, doubled, and one more for after it.
struct Ends {
    at: Mutex<Option<usize>>,
    appends: AtomicUsize,
}

impl Ends {
    fn crash(&self, moment: usize) -> Result<(), SagaError> {
        let mut at = self.at.lock().expect("nobody panics");
        if *at != Some(moment) {
            return Ok(());
        }
        *at = None;
        let source = "the process ended here".into();
        Err(SagaError::Record { id: id(), family: ErrorFamily::Broken, source })
    }
}

impl Calls<()> for Ends {
    fn call<'a>(
        &'a self,
        _: Remote<'a, ()>,
        _: &'a Due,
        _: Arc<()>,
        _: IdempotencyKey,
    ) -> BoxFuture<'a, Result<Outcome, SagaError>> {
        async { unreachable!("a flow calls nobody") }.boxed()
    }

    fn before_append(&self) -> Result<(), SagaError> {
        self.crash(2 * self.appends.load(Ordering::Relaxed))
    }

    fn after_append(&self) -> Result<(), SagaError> {
        self.crash(2 * self.appends.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

fn id() -> SagaId {
    SagaId::new("f-1").expect("it is an id")
}

/// When a runner looks at the flow.
#[derive(Clone, Copy, PartialEq)]
enum Looks {
    AfterEach,
    AtTheEnd,
}

/// Reports these events in this order, each again if the process has ended at it; how the flow ends, and how many appends there were.
async fn run(events: &[&'static str], looks: Looks, ends_at: Option<usize>) -> (Status, Vec<SagaEvent>, usize) {
    let store = MemoryStore::new();
    let (definition, marks) = Checkout::steps().build::<Checkout>().expect("it is sound");
    let ends = Arc::new(Ends { at: Mutex::new(ends_at), appends: AtomicUsize::default() });
    let engine = Engine::new(store.clone(), definition, PausedClock::new());
    let engine = Engine { calls: ends.clone(), ..engine };
    for (number, name) in events.iter().enumerate() {
        let seen = FlowEvent {
            name: (*name).to_owned(),
            event_id: number.to_string(),
            aggregate_type: "shop".to_owned(),
            aggregate_id: "s-1".to_owned(),
            position: Position::new(i64::try_from(number).expect("they are few") + 1).expect("it is one"),
        };
        let begun = (*name == "order.created").then_some(&seen);
        // The tracker is handed an event again until it has handled it.
        while engine.report(&id(), &marks[*name], &seen, begun).await.is_err() {}
        if looks == Looks::AfterEach {
            while engine.run(&id()).await.is_err() {}
        }
    }
    while engine.run(&id()).await.is_err() {}
    let status = engine.status(&id()).await.expect("it is there").status;
    let recorded = recorded(&store, &id()).await.expect("it is read");
    (status, recorded, ends.appends.load(Ordering::Relaxed))
}

/// Every order of these.
fn orders(of: &[&'static str]) -> Vec<Vec<&'static str>> {
    let Some((first, rest)) = of.split_first() else { return vec![Vec::new()] };
    let with_first = |order: Vec<&'static str>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, *first);
            order
        })
    };
    orders(rest).into_iter().flat_map(with_first).collect()
}

/// Nothing is recorded twice, and there is one end, the last event.
fn check(events: &[&str], expected: Status, (status, recorded, _): &(Status, Vec<SagaEvent>, usize)) {
    assert_eq!(*status, expected, "{events:?}: {recorded:?}");
    let mut once = BTreeSet::new();
    for event in recorded {
        let what = match event {
            SagaEvent::SignalReceived { step, .. } => format!("signal {step}"),
            SagaEvent::Succeeded { step, direction, .. } => format!("{direction} {step}"),
            SagaEvent::WaitBegun { .. } => continue,
            SagaEvent::Completed | SagaEvent::Compensated => "end".to_owned(),
            other => format!("{:?}", std::mem::discriminant(other)),
        };
        assert!(once.insert(what), "{events:?}: {recorded:?}");
    }
    assert!(matches!(recorded.last(), Some(SagaEvent::Completed | SagaEvent::Compensated)), "{recorded:?}");
}

const FLOWS: [(&[&str], Status); 2] = [
    (&["payment.completed", "shipment.created", "shipment.created"], Status::Completed),
    (&["payment.completed", "payment.refunded", "reservation.failed", "order.cancelled"], Status::Compensated),
];

#[tokio::test(start_paused = true)]
async fn events_of_a_flow_in_every_order_each_twice_or_late_change_nothing_about_its_end() {
    let mut runs = 0;
    for (events, expected) in FLOWS {
        for order in orders(events) {
            for again in 0..=order.len() {
                // One comes again behind all others, which may be behind the end.
                let mut events = vec!["order.created"];
                events.extend(&order);
                events.push(events[again]);
                for looks in [Looks::AfterEach, Looks::AtTheEnd] {
                    check(&events, expected, &run(&events, looks, None).await);
                    runs += 1;
                }
            }
        }
    }
    assert!(runs > 250, "{runs}");
}

#[tokio::test(start_paused = true)]
async fn a_flow_has_the_same_end_wherever_the_process_that_follows_it_ends() {
    let mut runs = 0;
    for (events, expected) in FLOWS {
        for order in orders(events) {
            let events: Vec<_> = std::iter::once("order.created").chain(order).collect();
            let undisturbed = run(&events, Looks::AfterEach, None).await;
            check(&events, expected, &undisturbed);
            for ends_at in 0..2 * undisturbed.2 {
                check(&events, expected, &run(&events, Looks::AfterEach, Some(ends_at)).await);
                runs += 1;
            }
        }
    }
    assert!(runs > 250, "{runs}");
}
