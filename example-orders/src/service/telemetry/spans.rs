//! Spans and traces: a request is a span, and so is each append, each event that a read model applies, and each step of a checkout
//! that the request led to, also when it is done after a restart. All have the trace id of the request.
//!
//! Within the process a span has a parent. Beyond that, the crates keep the trace context with the events and give it to the spans
//! of what follows from them, as the field `trace_parent`. The span of a request is named by its field `span_context`, as the answer
//! and the events have it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use annals::engine::{Clock, SystemClock};
use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use super::lines::{Line, Lines};
use super::otlp::Otlp;

/// The field of the span of a request: its own trace context.
const OWN: &str = "span_context";
/// The field of a span: the trace context of what led to it.
const PARENT: &str = "trace_parent";

/// There is one of each of these spans for each event, so they are lines of the level `debug`.
const MANY: [&str; 3] = ["append", "project", "react"];
/// Those of them in which nothing is said. They are not begun where nobody sees them.
const SILENT: [&str; 2] = ["append", "project"];

/// Makes lines of the log of spans and events, and sends spans to a collector.
pub struct Spans {
    levels: Targets,
    lines: Lines,
    otlp: Option<Otlp>,
}

/// A span that has ended, as part of a trace.
pub struct Ended {
    pub name: &'static str,
    pub target: &'static str,
    pub place: Place,
    pub fields: Vec<(&'static str, Value)>,
    pub begun: Timestamp,
    pub took: Duration,
}

/// Where a span is in a trace.
#[derive(Clone, Copy)]
pub struct Place {
    pub trace: u128,
    pub span: u64,
    /// The span above; 0 for none.
    pub parent: u64,
    /// Whether that is one of another process, or of an earlier time of this one.
    pub is_remote: bool,
    /// Whether the trace is kept.
    pub is_kept: bool,
}

impl Place {
    /// Reads `00-TRACE-SPAN-FLAGS`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-').skip(1);
        let trace = u128::from_str_radix(parts.next()?, 16).ok()?;
        let span = u64::from_str_radix(parts.next()?, 16).ok()?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        let is_valid = trace != 0 && span != 0 && parts.next().is_none();
        is_valid.then_some(Self { trace, span, parent: 0, is_remote: false, is_kept: flags & 1 == 1 })
    }

    /// A new span below this one.
    fn below(self, is_remote: bool) -> Self {
        Self { span: fastrand::u64(1..), parent: self.span, is_remote, ..self }
    }

    fn ids(self) -> (String, String) {
        (format!("{:032x}", self.trace), format!("{:016x}", self.span))
    }
}

/// What is kept of a span until it ends.
struct Open {
    place: Option<Place>,
    fields: Fields,
    begun: Timestamp,
    started: Instant,
}

impl Open {
    /// Finds the place of the span. A parent in the process is nearer than what the fields say of the same trace.
    fn find(&mut self, above: Option<Place>) {
        let of = |field| self.fields.text(field).and_then(Place::parse);
        let (own, led) = (of(OWN), of(PARENT));
        self.place = match (own, led, above) {
            (Some(own), led, _) => Some(Place { parent: led.map_or(0, |led| led.span), is_remote: true, ..own }),
            (None, Some(led), Some(above)) if led.trace == above.trace => Some(above.below(false)),
            (None, Some(led), _) => Some(led.below(true)),
            (None, None, above) => above.map(|above| above.below(false)),
        };
    }
}

impl Spans {
    pub fn new(levels: Targets, lines: Lines, otlp: Option<Otlp>) -> Self {
        Self { levels, lines, otlp }
    }

    /// Whether a line is made of the end of a span.
    fn is_line(&self, span: &Metadata<'_>) -> bool {
        let level = if MANY.contains(&span.name()) { Level::DEBUG } else { *span.level() };
        self.levels.would_enable(span.target(), &level)
    }

    fn is_wanted(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_event() {
            return self.levels.would_enable(metadata.target(), metadata.level());
        }
        // The lines of what happens in a span have its trace, whether or not there is a line of itself.
        *metadata.level() <= Level::INFO
            && (!SILENT.contains(&metadata.name()) || self.otlp.is_some() || self.is_line(metadata))
    }
}

/// The place of the next span that has one: this one, or one above it.
fn place_of<'a, S: Subscriber + for<'s> LookupSpan<'s>>(span: Option<SpanRef<'a, S>>) -> Option<Place> {
    span?.scope().find_map(|span| {
        let extensions = span.extensions();
        extensions.get::<Open>().and_then(|open| open.place)
    })
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Spans {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Spans are needed where no line of that level is.
        Some(Layer::<S>::max_level_hint(&self.levels).map_or(LevelFilter::TRACE, |level| level.max(LevelFilter::INFO)))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut open =
            Open { place: None, fields: Fields::default(), begun: SystemClock.now(), started: Instant::now() };
        attributes.record(&mut open.fields);
        open.find(place_of(span.parent()));
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let above = place_of(span.parent());
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.fields);
            if open.place.is_none() {
                open.find(above);
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        self.lines.write(Line {
            at: SystemClock.now(),
            level: *metadata.level(),
            target: metadata.target(),
            message: fields.take_message(),
            trace: place_of(context.event_span(event)).map(Place::ids),
            fields: fields.0,
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        // A request is a line also where its trace is not kept.
        let Some(place) = open.place.filter(|place| place.is_kept || open.fields.text(OWN).is_some()) else { return };
        let (metadata, took) = (span.metadata(), open.started.elapsed());
        let mut fields = open.fields.0;
        fields.retain(|(name, _)| ![OWN, PARENT].contains(name));
        if self.is_line(metadata) {
            let mut fields = fields.clone();
            fields.push(("duration_ms", Value::from(took.as_micros() as f64 / 1e3)));
            let level = if MANY.contains(&metadata.name()) { Level::DEBUG } else { *metadata.level() };
            let (at, message, trace) = (SystemClock.now(), metadata.name().to_owned(), Some(place.ids()));
            self.lines.write(Line { at, level, target: metadata.target(), message, trace, fields });
        }
        if let Some(otlp) = self.otlp.as_ref().filter(|_| place.is_kept) {
            let (name, target, begun) = (metadata.name(), metadata.target(), open.begun);
            otlp.send(Ended { name, target, place, fields, begun, took });
        }
    }
}

/// The fields of a span or an event, in their order.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == name)?.1.as_str()
    }

    fn set(&mut self, field: &Field, value: Value) {
        match self.0.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, found)) => *found = value,
            None => self.0.push((field.name(), value)),
        }
    }

    fn take_message(&mut self) -> String {
        let Some(at) = self.0.iter().position(|(name, _)| *name == "message") else { return String::new() };
        match self.0.remove(at).1 {
            Value::String(text) => text,
            value => value.to_string(),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        self.set(field, Value::String(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(fields: &[(&'static str, &str)]) -> Open {
        let fields = Fields(fields.iter().map(|(name, value)| (*name, Value::from(*value))).collect());
        Open { place: None, fields, begun: SystemClock.now(), started: Instant::now() }
    }

    #[test]
    fn a_span_is_below_the_one_that_is_nearest_in_its_trace() {
        let led = "00-0000000000000000000000000000000a-0000000000000001-01";
        let above = Place { trace: 10, span: 7, parent: 0, is_remote: false, is_kept: true };
        for (fields, above, expected) in [
            (&[(PARENT, led)][..], None, Some((10, 1, true))),
            (&[(PARENT, led)], Some(above), Some((10, 7, false))),
            (&[(PARENT, led)], Some(Place { trace: 11, ..above }), Some((10, 1, true))),
            (&[], Some(above), Some((10, 7, false))),
            (&[(PARENT, "00-0-0-01")], None, None),
            (&[(PARENT, "none")], None, None),
            (&[], None, None),
        ] {
            let mut open = open(fields);
            open.find(above);
            assert_eq!(open.place.map(|place| (place.trace, place.parent, place.is_remote)), expected);
            assert!(open.place.is_none_or(|place| place.span != place.parent));
        }
        let mut request = open(&[(OWN, "00-0000000000000000000000000000000a-0000000000000002-00"), (PARENT, led)]);
        request.find(None);
        let place = request.place.expect("a place");
        assert_eq!((place.span, place.parent, place.is_kept), (2, 1, false));
    }
}
