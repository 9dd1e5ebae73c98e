//! Which request it is: an id for people who look into a log, and the trace context of W3C for machines.
//!
//! The request is a span of the trace, and a line of the log when it is answered. Both are taken over from the caller where they are well formed, else made. They are stored with the events of a command, and so
//! lead from an event to the request that it came from.

use annals::engine::{IdSource, TimeOrderedIds, TraceParent};
use annals::{CorrelationId, Invalid};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use crate::checkout::flow::FLOW;
use crate::checkout::handle::SAGA;
use crate::service::access::to_hex;
use crate::service::telemetry::{method_of, route_of};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Which request it is.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The caller's id of it, or ours.
    pub request_id: String,
    /// `00-TRACE-SPAN-FLAGS`: the caller's trace, and a span of ours in it.
    pub parent: String,
    /// What the caller sent, if it was well formed.
    above: Option<String>,
}

/// How requests are named.
#[derive(Clone)]
pub struct Tracing {
    /// Makes the ids.
    pub ids: TimeOrderedIds,
    /// The share of the traces that begin here which is kept.
    pub kept: f64,
}

impl Trace {
    fn of(headers: &HeaderMap, ids: &impl IdSource, is_kept: bool) -> Self {
        let one = |name| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let request_id = one(REQUEST_ID).filter(|id| is_request_id(id));
        let request_id = request_id.map_or_else(|| ids.next_id().to_string(), str::to_owned);
        let span = to_hex(&ids.next_id().as_bytes()[8..]);
        let above = one(TRACE_PARENT).filter(|header| trace_and_flags(header).is_some());
        let parent = match above.and_then(trace_and_flags) {
            Some((trace, flags)) => format!("00-{trace}-{span}-{flags}"),
            None => format!("00-{}-{span}-0{}", ids.next_id().simple(), u8::from(is_kept)),
        };
        Self { request_id, parent, above: above.map(str::to_owned) }
    }

    /// As it is stored with events.
    pub fn correlation(&self) -> Result<CorrelationId, Invalid> {
        CorrelationId::new(&self.request_id)
    }

    /// As it is stored with events.
    pub fn trace_parent(&self) -> Result<TraceParent, Invalid> {
        TraceParent::new(&self.parent)
    }
}

/// Names the request, for the handlers and in the answer.
pub async fn trace(State(tracing): State<Tracing>, mut request: Request, next: Next) -> Response {
    let trace = Trace::of(request.headers(), &tracing.ids, fastrand::f64() < tracing.kept);
    // Neither path nor query: they say what the request is about.
    let span = info_span!(
        "request",
        "http.request.method" = method_of(request.method()),
        "http.route" = route_of(&request),
        "http.response.status_code" = Empty,
        request_id = trace.request_id,
        span_context = trace.parent,
        trace_parent = trace.above,
    );
    request.extensions_mut().insert(trace.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    // Both are visible ASCII.
    if let (Ok(id), Ok(parent)) = (trace.request_id.parse(), trace.parent.parse()) {
        response.headers_mut().insert(REQUEST_ID, id);
        response.headers_mut().insert(TRACE_PARENT, parent);
    }
    response
}

/// What can be stored with an event, and printed in a log without a doubt where it ends. A checkout is known by its correlation
/// id, so a caller who could choose that of a choreographed one could have any order of the shop paid.
fn is_request_id(id: &str) -> bool {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/');
    (1..=100).contains(&id.len())
        && id.bytes().all(is_fine)
        && !id.starts_with("__")
        && ![FLOW, SAGA].iter().any(|begin| id.starts_with(begin))
}

/// The trace and the flags of a `traceparent` of version 00. The zeros that stand for nothing are refused, as the standard has it.
fn trace_and_flags(header: &str) -> Option<(&str, &str)> {
    let mut parts = header.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |text: &str, digits| text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_one = |text: &str| text.bytes().any(|b| b != b'0');
    let is_valid = version == "00" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    (is_valid && is_one(trace) && is_one(span) && parts.next().is_none()).then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use annals::engine::SeededIds;

    use super::*;

    fn of(headers: &[(&HeaderName, &str)]) -> Trace {
        let headers = headers.iter().map(|(name, value)| ((*name).clone(), value.parse().expect("a value")));
        Trace::of(&headers.collect(), &SeededIds::new(1), true)
    }

    #[test]
    fn a_trace_is_gone_on_with_under_a_span_of_ours_and_a_malformed_one_is_begun_anew() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let went_on = of(&[(&TRACE_PARENT, &format!("00-{trace}-00f067aa0ba902b7-00"))]).parent;
        assert!(went_on.starts_with(&format!("00-{trace}-")) && went_on.ends_with("-00"), "{went_on}");
        assert!(!went_on.contains("00f067aa0ba902b7"), "the span is the caller's: {went_on}");
        for bad in [
            format!("00-{trace}-0000000000000000-01"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("01-{trace}-00f067aa0ba902b7-01"),
            format!("00-{trace}-00f067aa0ba902b7-01-x"),
            String::new(),
        ] {
            let begun = of(&[(&TRACE_PARENT, &bad)]).parent;
            assert!(!begun.contains(trace) && trace_and_flags(&begun).is_some(), "{bad}: {begun}");
        }
    }

    #[test]
    fn a_request_keeps_its_id_unless_it_could_not_be_stored_or_printed() {
        assert_eq!(of(&[(&REQUEST_ID, "web-17")]).request_id, "web-17");
        for bad in ["", "__x", "a b", "a\tb", "flow-o-1", "checkout-o-1", &"x".repeat(101)] {
            let made = of(&[(&REQUEST_ID, bad)]).request_id;
            assert!(made != bad && is_request_id(&made), "{bad}: {made}");
        }
        let twice = of(&[(&REQUEST_ID, "one"), (&REQUEST_ID, "two")]).request_id;
        assert_eq!(twice.len(), 36, "one of two is nobody's: {twice}");
    }
}
