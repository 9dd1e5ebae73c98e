//! What tests see of spans and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Notes the fields of the spans of one name, and how many have ended.
#[derive(Clone)]
pub(crate) struct Spans(&'static str, Arc<Mutex<Vec<String>>>, Arc<AtomicU64>);

impl Spans {
    pub(crate) fn called(name: &'static str) -> Self {
        Self(name, Arc::default(), Arc::default())
    }

    pub(crate) fn fields(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }

    pub(crate) fn ended(&self) -> u64 {
        self.2.load(Ordering::SeqCst)
    }

    fn note(&self, what: String) {
        self.1.lock().unwrap().push(what);
    }
}

struct Fields<'a>(&'a Spans);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.note(format!("{field}={value:?}"));
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == self.0
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Fields(self));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Fields(self));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}

    fn try_close(&self, _: tracing::span::Id) -> bool {
        self.2.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// The messages of warnings, with their fields.
#[derive(Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let fields = Spans::called("");
        event.record(&mut Fields(&fields));
        self.0.lock().unwrap().push(fields.fields().join(" "));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Metrics by name and labels: the sum of a counter, the last value of a gauge, how many values a histogram has.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Mutex<BTreeMap<String, Value>>>);

enum Value {
    Whole(Arc<AtomicU64>),
    Float(Arc<AtomicU64>),
}

struct Count(Arc<AtomicU64>);

impl HistogramFn for Count {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Metrics {
    fn of(&self, key: &Key, of: fn(Arc<AtomicU64>) -> Value) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        let mut all = self.0.lock().unwrap();
        let (Value::Whole(value) | Value::Float(value)) = all.entry(name).or_insert_with(|| of(Arc::default()));
        Arc::clone(value)
    }

    /// A line for each whose name begins so.
    pub(crate) fn text(&self, begins: &str) -> String {
        let all = self.0.lock().unwrap();
        let line = |(name, value): (&String, &Value)| match value {
            Value::Whole(count) => format!("{name} {}\n", count.load(Ordering::SeqCst)),
            Value::Float(bits) => format!("{name} {}\n", f64::from_bits(bits.load(Ordering::SeqCst))),
        };
        all.iter().filter(|(name, _)| name.starts_with(begins)).map(line).collect()
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key, Value::Whole))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key, Value::Float))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Count(self.of(key, Value::Whole))))
    }
}
