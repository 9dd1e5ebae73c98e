//! One trace id from a request to all that follows from it: in the log, and at a collector of traces.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use example_orders::services::Faults;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;

use crate::checkouts::start_with;
use crate::server::{ADMIN, ALICE, Answer, OPERATOR, Server, Store, order, service};

const LOG: [(&str, &str); 2] = [("ORDERS_LOG__FORMAT", "json"), ("ORDERS_LOG__LEVEL", "info,annals=debug")];

/// The lines of a log, each of which is an object.
fn lines(log: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    log.lines().map(parse).collect()
}

/// What the lines of a trace say.
fn said(log: &str, trace: &str) -> Vec<String> {
    let of = |line: &Value| line["trace_id"] == trace;
    lines(log).iter().filter(|line| of(line)).map(|line| line["message"].as_str().expect("a text").to_owned()).collect()
}

/// Waits until the lines of a trace say all of these.
async fn until_said(server: &Server, trace: &str, wanted: &[&str]) -> Vec<String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let said = said(&server.log(), trace);
        if wanted.iter().all(|wanted| said.iter().any(|said| said == wanted)) {
            return said;
        }
        assert!(Instant::now() < end, "{wanted:?}: {}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_trace_of_a_request_is_found_in_the_log_of_all_that_follows_also_after_a_crash_and_no_payload_is() {
    for store in Store::each().await {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut server, partners) = start_with(store, folder.path(), &LOG).await;
        let traced = |trace: &str, flow: &str| {
            let request = server.request("POST", &format!("/checkouts?flow={flow}"), ALICE);
            let request = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
            request.header("idempotency-key", flow).header("x-deadline-ms", "2000").json(&order("alice", 1, 4_900))
        };
        // The payment is made, and the warehouse does not answer.
        partners.stock.faults.set(Faults { down: true, ..Faults::default() });
        let (saga, flow) = ("4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4737");
        let mut places = Vec::new();
        for (trace, name) in [(saga, "orchestrated"), (flow, "choreographed")] {
            let begun = Answer::of(traced(trace, name)).await;
            assert_eq!(begun.status, 202, "{}", begun.text);
            places.push(begun.header("location").to_owned());
        }
        until_said(&server, saga, &["request", "append", "project", "saga", "step"]).await;
        until_said(&server, flow, &["request", "append", "project", "react"]).await;
        let before = server.log();
        let request = lines(&before).into_iter().find(|line| line["message"] == "request" && line["trace_id"] == saga);
        let request = request.expect("a line")["fields"].clone();
        assert_eq!(
            (&request["http.route"], &request["http.response.status_code"]),
            (&"/checkouts".into(), &202.into())
        );

        server.crash();
        partners.stock.faults.set(Faults::default());
        for place in &places {
            server.until(place, ALICE, |answer| answer.json()["standing"]["answer"] == "completed").await;
        }
        let after = until_said(&server, saga, &["append", "project", "saga", "step"]).await;
        assert!(!after.iter().any(|said| said == "request"), "the request was before: {after:?}");
        until_said(&server, flow, &["append", "project", "react"]).await;

        server.get("/orders?status=nonsense", ADMIN).await;
        for line in lines(&(before + &server.log())) {
            let text = line.to_string();
            for hidden in ["kettle", "EUR", "Alice", "demo", "nonsense"] {
                assert!(!text.contains(hidden), "{hidden}: {text}");
            }
        }
        partners.stop().await;
    }
}

/// People who look for a fault read what is written while there is none first.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_service_that_is_well_has_a_line_for_each_request_and_step_and_no_warning_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, partners) = start_with(Store::file(), folder.path(), &LOG[..1]).await;
    for flow in ["orchestrated", "choreographed"] {
        let done = server.post(&format!("/checkouts?flow={flow}"), ALICE, flow, &order("alice", 1, 4_900)).await;
        assert_eq!(done.status, 200, "{}", done.text);
        let seen = done.header("x-position");
        assert_eq!(server.get(&format!("/orders?at_least={seen}"), ADMIN).await.status, 200);
        assert_eq!(server.get("/metrics", OPERATOR).await.status, 200);
        assert_eq!(server.get("/health/ready", OPERATOR).await.status, 200);
    }
    let (_, mut log) = tokio::task::block_in_place(|| server.terminate());
    server.crash();
    server.get("/orders", ADMIN).await;
    log += &tokio::task::block_in_place(|| server.terminate()).1;
    let all = lines(&log);
    let bad: Vec<_> =
        all.iter().filter(|line| ["WARN", "ERROR"].contains(&line["level"].as_str().unwrap_or("?"))).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let count = |message: &str| all.iter().filter(|line| line["message"] == message).count();
    assert_eq!(["append", "project", "react"].map(count), [0; 3], "there is one of each event: {log}");
    assert!(count("request") == 7 && count("step") >= 4, "{log}");
    partners.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_a_process_of_its_own_logs_what_it_is_asked_in_the_trace_of_the_checkout() {
    let folder = tempfile::tempdir().expect("a folder");
    let (payment, url) = service("payment", folder.path(), &LOG[..1]);
    let server = Server::with(Store::file(), &[("ORDERS_SERVICES__PAYMENT", &*url)]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = server.request("POST", "/checkouts", ALICE).header("idempotency-key", "k");
    let request = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let done = Answer::of(request.json(&order("alice", 1, 4_900))).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let end = Instant::now() + Duration::from_secs(60);
    while !said(&payment.log(), trace).iter().any(|said| said == "request") {
        assert!(Instant::now() < end, "{}", payment.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A collector, and what it was sent.
async fn collector() -> (String, Arc<Mutex<Vec<(String, Span)>>>) {
    let sent = Arc::<Mutex<Vec<(String, Span)>>>::default();
    let into = Arc::clone(&sent);
    let take = move |body: Bytes| {
        let batch = ExportTraceServiceRequest::decode(body).expect("OTLP");
        for resource in batch.resource_spans {
            let attributes = resource.resource.expect("a resource").attributes;
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name").expect("a name");
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let service = format!("{:?}", service.value);
            into.lock().expect("no panic").extend(spans.map(|span| (service.clone(), span)));
        }
        async { StatusCode::OK }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(axum::serve(listener, Router::new().route("/v1/traces", post(take))).into_future());
    (address, sent)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_sent_the_spans_of_the_traces_that_are_kept_also_the_last_ones() {
    let (address, sent) = collector().await;
    let settings = [("ORDERS_TRACES__OTLP", &*address), ("ORDERS_TRACES__SERVICE", "shop-of-the-test")];
    let mut server = Server::with(Store::file(), &settings).await;
    let (kept, dropped) = ("4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4737");
    let mut parents = Vec::new();
    for (trace, flags) in [(kept, "01"), (dropped, "00")] {
        let request = server.request("POST", "/checkouts", ALICE).header("idempotency-key", trace);
        let request = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-{flags}"));
        let done = Answer::of(request.json(&order("alice", 1, 100))).await;
        assert_eq!(done.status, 200, "{}", done.text);
        server.get(&format!("/orders?at_least={}", done.header("x-position")), ADMIN).await;
        parents.push(done.header("traceparent").split('-').nth(2).expect("a span").to_owned());
    }
    let (status, log) = tokio::task::block_in_place(|| server.terminate());
    assert!(status.success(), "{log}");

    let sent = sent.lock().expect("no panic");
    assert!(sent.iter().all(|(service, _)| service.contains("shop-of-the-test")));
    assert!(!sent.iter().any(|(_, span)| hex(&span.trace_id) == dropped), "its caller does not keep it");
    let of_trace: Vec<_> = sent.iter().map(|(_, span)| span).filter(|span| hex(&span.trace_id) == kept).collect();
    let request = of_trace.iter().find(|span| span.name == "POST /checkouts").expect("a request");
    assert_eq!(
        (hex(&request.span_id), hex(&request.parent_span_id)),
        (parents[0].clone(), "00f067aa0ba902b7".to_owned())
    );
    for name in ["append", "project", "saga", "step"] {
        let span = of_trace.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {of_trace:?}"));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        // Each span is below one of the trace.
        assert!(of_trace.iter().any(|above| above.span_id == span.parent_span_id), "{span:?}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_costs_no_request_its_time_and_is_one_line_of_the_log() {
    // One that takes no connection, and one that takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = (format!("http://{}", silent.local_addr().expect("an address")), Some(silent));
    for (address, listener) in [("http://127.0.0.1:1".to_owned(), None), silent] {
        let settings = [("ORDERS_TRACES__OTLP", &*address), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
        let mut server = Server::with(Store::file(), &settings).await;
        let begun = Instant::now();
        for number in 0..50 {
            server.place(ALICE, &format!("k-{number}"), "alice", 100).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!(server.get("/metrics", OPERATOR).await.status, 200);
        let begun = Instant::now();
        let (status, log) = tokio::task::block_in_place(|| server.terminate());
        assert!(status.success() && begun.elapsed() < Duration::from_secs(10), "{:?} {log}", begun.elapsed());
        let complaints = log.lines().filter(|line| line.contains("collector")).count();
        // The one that is silent may be waited for until the end.
        let expected = if listener.is_none() { 1..=1 } else { 0..=1 };
        assert!(expected.contains(&complaints), "{log}");
    }
}
