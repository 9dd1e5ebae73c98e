//! Spans are sent to a collector by OTLP over HTTP, a batch at a time.
//!
//! The SDK of OpenTelemetry queues them, and drops what the collector does not take in time, so no request waits for it. That the
//! collector cannot be reached is said once, and that it is there again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor};
use serde_json::Value;
use tokio::runtime::Handle;

use super::spans::Ended;
use crate::Fault;

/// The longest that the collector may take for a batch.
const LONGEST: Duration = Duration::from_secs(5);

/// The way to a collector; a clone is the same.
#[derive(Clone)]
pub struct Otlp(Arc<BatchSpanProcessor>);

impl Otlp {
    /// Begins to send, to the collector at this address.
    ///
    /// # Errors
    /// The address is none.
    pub fn start(address: &str, service: &str) -> Result<Self, Fault> {
        // The address may hold a password, so it is not printed.
        let wrong = || Fault::from("`traces.otlp` is no address, as http://127.0.0.1:4318 is");
        let url = reqwest::Url::parse(address).map_err(|_| wrong())?;
        if url.scheme() != "http" {
            return Err(wrong());
        }
        let http = reqwest::Client::builder().timeout(LONGEST).no_proxy().build()?;
        let client = Client { http, runtime: Handle::current(), fails: Arc::default() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", address.trim_end_matches('/')))
            .with_timeout(LONGEST)
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|_| wrong())?;
        let mut batches = BatchSpanProcessor::builder(exporter).build();
        batches.set_resource(&Resource::builder().with_service_name(service.to_owned()).build());
        Ok(Self(Arc::new(batches)))
    }

    /// Sends a span with one of the next batches.
    pub fn send(&self, span: Ended) {
        self.0.on_end(data(span));
    }

    /// Sends what is left, for at most so long.
    pub async fn close(self, limit: Duration) {
        // It blocks its thread, and is over by itself. What was not sent is lost, as it is when a process is killed.
        let _ = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(limit)).await;
    }
}

/// The span as OpenTelemetry has it.
fn data(Ended { name, target, place, fields, begun, took }: Ended) -> SpanData {
    let text = |name: &str| fields.iter().find(|(found, _)| *found == name).and_then(|(_, value)| value.as_str());
    let (kind, name) = match (text("http.request.method"), text("http.route")) {
        (Some(method), Some(route)) => (SpanKind::Server, format!("{method} {route}").into()),
        _ => (SpanKind::Internal, name.into()),
    };
    let failed = fields.iter().any(|(name, value)| {
        *name == "http.response.status_code" && value.as_u64().is_some_and(|status| status >= 500)
            || *name == "outcome" && value == "failed"
    });
    let attributes = fields.into_iter().map(|(name, value)| match value {
        Value::String(text) => KeyValue::new(name, text),
        Value::Bool(is) => KeyValue::new(name, is),
        value => match (value.as_i64(), value.as_f64()) {
            (Some(whole), _) => KeyValue::new(name, whole),
            (None, Some(number)) => KeyValue::new(name, number),
            (None, None) => KeyValue::new(name, value.to_string()),
        },
    });
    let begun = UNIX_EPOCH + Duration::from_micros(begun.as_microsecond().try_into().unwrap_or_default());
    let (trace, span) = (TraceId::from_bytes(place.trace.to_be_bytes()), SpanId::from_bytes(place.span.to_be_bytes()));
    SpanData {
        span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: SpanId::from_bytes(place.parent.to_be_bytes()),
        parent_span_is_remote: place.is_remote,
        span_kind: kind,
        name,
        start_time: begun,
        end_time: begun + took,
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: if failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder(target).build(),
    }
}

/// The HTTP client that the service has anyway. The SDK waits in a thread of its own, where it could not run.
#[derive(Clone, Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let answer = http.execute(request.try_into()?).await?;
            let status = answer.status();
            Ok::<_, HttpError>(Response::builder().status(status).body(answer.bytes().await?)?)
        });
        let sent = match sending.await {
            Ok(sent) => sent,
            Err(stopped) => Err(stopped.into()),
        };
        let fails = !sent.as_ref().is_ok_and(|answer| answer.status().is_success());
        match (self.fails.swap(fails, Ordering::Relaxed), fails) {
            (false, true) => tracing::warn!("the collector of traces takes no spans; they are dropped until it does"),
            (true, false) => tracing::info!("the collector of traces takes spans again"),
            _ => {}
        }
        sent
    }
}
