//! What a runner says in the log, and when it looks.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use annals_eventstore::TraceParent;
use annals_eventstore::testing::{Fault, FaultyStore};
use annals_resilience::Policy;
use annals_sagas::{Call, Saga, Sagas, SagasExt, Status};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use super::stores::{File, Place};
use super::world::{Order, SOON, World, id, orders};

/// Notes the warnings, each with the trace of the span that it is in.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    /// The trace of each span.
    spans: Vec<Option<String>>,
    entered: Vec<u64>,
    warnings: Vec<(String, Option<String>)>,
}

impl Log {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().expect("nobody panics")
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Noted {
    fn trace(&self) -> Option<String> {
        let span = self.entered.last()?;
        self.spans[usize::try_from(*span).expect("few spans") - 1].clone()
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let (mut fields, mut noted) = (Fields::default(), self.noted());
        span.record(&mut fields);
        let trace = fields.0.remove("trace_parent").or_else(|| noted.trace());
        noted.spans.push(trace);
        Id::from_u64(noted.spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if *event.metadata().level() <= tracing::Level::WARN {
            let mut noted = self.noted();
            let trace = noted.trace();
            noted.warnings.push((fields.0.remove("message").unwrap_or_default(), trace));
        }
    }

    fn enter(&self, span: &Id) {
        self.noted().entered.push(span.into_u64());
    }

    fn exit(&self, span: &Id) {
        let mut noted = self.noted();
        if let Some(at) = noted.entered.iter().rposition(|entered| *entered == span.into_u64()) {
            noted.entered.remove(at);
        }
    }
}

/// Who looked for the trace of a request did not find that its saga could not go on.
#[tokio::test]
async fn a_run_that_fails_is_reported_in_the_trace_of_its_instance() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let place = File::new().await;
    let store = place.open().await;
    let faulty = FaultyStore::new(store.clone());
    let fails = faulty.clone();
    let ship = move |_: Arc<u32>, _: Call| {
        // What it gives cannot be recorded.
        fails.fail_next(20, Fault::Before);
        async { Ok(()) }
    };
    let policy = Policy::fast("shipping").build().expect("it is sound");
    let saga = Saga::<u32>::new("order").pivot().remote("ship", &policy, ship).build().expect("it is sound");
    let sagas = Sagas::of(&faulty, store.database()).with(saga).start().await.expect("it starts");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = TraceParent::new(trace).expect("it is one");
    sagas.in_trace(request).start(&id("a"), 1_u32).await.expect("it is new");
    let said = || {
        let noted = log.noted();
        let of_run = noted.warnings.iter().find(|(message, _)| message.contains("could not be run"));
        of_run.map(|(_, trace)| trace.clone())
    };
    let failed = async {
        loop {
            match said() {
                Some(trace) => return trace,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, failed).await.expect("it fails").as_deref(), Some(trace));
    sagas.close().await;
}

#[tokio::test]
async fn who_waits_for_an_instance_that_runs_here_looks_when_its_run_ends_and_not_in_between() {
    let place = File::new().await;
    let store = place.open().await;
    let sagas = store.sagas().with(orders(&World::default())).start().await.expect("it starts");
    while sagas.runner().slots.len() < 16 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let looks = AtomicU32::new(0);
    let order = Order { takes_ms: 400, ..Order::default() };
    sagas.start(&id("a"), order).await.expect("it is new");
    let is_completed = |status: &annals_sagas::SagaStatus| {
        looks.fetch_add(1, Ordering::SeqCst);
        status.status == Status::Completed
    };
    let status = sagas.wait_until(&id("a"), SOON, is_completed).await.expect("it ends");
    assert_eq!((status.done.len(), looks.into_inner()), (3, 2), "{status:?}");
    sagas.close().await;
}
