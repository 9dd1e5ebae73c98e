//! What appends say of themselves.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use super::*;

/// The fields of the spans that are called `append`, in the order in which they were set.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl Visit for Spans {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{field}={value:?}"));
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "append"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The counters by their labels.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Counter::from_arc(Arc::clone(self.0.lock().unwrap().entry(name).or_default()))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn each_append_is_a_span_in_the_trace_of_its_command_and_is_counted_by_its_result() {
    let (spans, counts) = (Spans::default(), Counts::default());
    let _logged = tracing::subscriber::set_default(spans.clone());
    tracing::callsite::rebuild_interest_cache();
    let _recorded = metrics::set_default_local_recorder(&counts);

    let spy = Spy::new();
    let accounts = spy.aggregate::<Account>();
    let traced = request("r-1", "x").with_trace_parent(TraceParent::new("00-trace").unwrap());
    accounts.with(traced).execute(&id(), deposit(1)).await.unwrap();
    assert_eq!(
        std::mem::take(&mut *spans.0.lock().unwrap()),
        ["stream=default/account/a", "trace_parent=\"00-trace\"", "result=\"stored\"", "position=1"]
    );
    // Another writer comes first, and then the append is stored.
    spy.inner.append_many(paid_in(1)).await.unwrap();
    accounts.execute(&id(), deposit(1)).await.unwrap();
    let untraced = spans.0.lock().unwrap().join(" ");
    assert_eq!(
        untraced,
        "stream=default/account/a result=\"conflict\" stream=default/account/a result=\"stored\" position=3"
    );
    let counts: Vec<_> =
        counts.0.lock().unwrap().iter().map(|(name, count)| (name.clone(), count.load(Ordering::SeqCst))).collect();
    let of = |result: &str, count| (format!("annals_appends_total result={result}"), count);
    assert_eq!(counts, [of("conflict", 1), of("stored", 2)]);
}
