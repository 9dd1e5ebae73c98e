//! Metrics, as Prometheus reads them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annals::projections::PositionToken;

use crate::server::{ADMIN, ALICE, OPERATOR, Server, Store, order};

/// The values of the text format, by name and labels. Panics at what Prometheus would refuse.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let (mut values, mut types) = (BTreeMap::new(), BTreeMap::new());
    let is_name = |name: &str| {
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            assert!(matches!(words[0], "HELP" | "TYPE") && is_name(words[1]), "{line}");
            if words[0] == "TYPE" {
                assert!(["counter", "gauge", "histogram"].contains(&words[2]), "{line}");
                assert!(types.insert(words[1].to_owned(), words[2].to_owned()).is_none(), "twice: {line}");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(
            is_name(name) && (types.contains_key(name) || of_histogram.is_some_and(|n| types.contains_key(n))),
            "{line}"
        );
        assert!(series == name || series.ends_with('}'), "{line}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(values.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    values
}

#[tokio::test]
async fn metrics_count_what_was_done_and_have_no_label_that_a_caller_makes_up() {
    let server = Server::on(Store::file()).await;
    let before = parsed(&server.get("/metrics", OPERATOR).await.text);
    let (id, position) = server.place(ALICE, "k-1", "alice", 100).await;
    server.place(ALICE, "k-2", "alice", 100).await;
    server.place(ALICE, "k-1", "alice", 100).await;
    server.get(&format!("/orders/{id}?at_least={position}"), ALICE).await;
    server.get("/orders/o-9", ALICE).await;
    server.get("/orders", "nobody.demo").await;
    server.get("/made-up/by-a-caller", ALICE).await;
    server.request("MADEUP", "/orders", ALICE).send().await.expect("an answer");
    let done = server.post("/checkouts", ALICE, "checkout", &order("alice", 1, 100)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let seen = done.header("x-position").to_owned();
    server.get(&format!("/orders?at_least={seen}"), ADMIN).await;

    let answer = server.get("/metrics", OPERATOR).await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let after = parsed(&answer.text);
    let more =
        |series: &str| after.get(series).copied().unwrap_or_default() - before.get(series).copied().unwrap_or_default();
    for (series, expected) in [
        (r#"http_requests_total{method="POST",route="/orders",status="2xx"}"#, 3.0),
        (r#"http_requests_total{method="GET",route="/orders/{order}",status="2xx"}"#, 1.0),
        (r#"http_requests_total{method="GET",route="/orders/{order}",status="4xx"}"#, 1.0),
        (r#"http_requests_total{method="GET",route="/orders",status="4xx"}"#, 1.0),
        (r#"http_requests_total{method="GET",route="none",status="4xx"}"#, 1.0),
        (r#"http_requests_total{method="other",route="/orders",status="4xx"}"#, 1.0),
        (r#"http_requests_total{method="GET",route="/metrics",status="2xx"}"#, 1.0),
        (r#"http_request_duration_seconds_count{method="POST",route="/orders"}"#, 3.0),
        (r#"http_request_duration_seconds_bucket{method="POST",route="/orders",le="+Inf"}"#, 3.0),
        (r#"http_idempotent_replays_total{route="/orders"}"#, 1.0),
        ("http_idempotency_keys", 3.0),
        ("http_requests_in_flight", 0.0),
        (r#"annals_sagas_total{saga="checkout",event="started"}"#, 1.0),
        (r#"annals_sagas_total{saga="checkout",event="completed"}"#, 1.0),
        (r#"resilience_attempts_total{policy="payment",class="success"}"#, 1.0),
    ] {
        assert_eq!(more(series), expected, "{series}\n{}", answer.text);
    }
    assert!(more(r#"annals_appends_total{result="stored"}"#) >= 3.0 + 8.0, "{}", answer.text);
    assert_eq!(after["http_requests_in_flight"], 1.0, "this one");
    for (series, expected) in [
        (r#"health_check_up{check="database"}"#, 1.0),
        ("annals_sagas_stuck", 0.0),
        (r#"resilience_breaker_state{policy="payment"}"#, 0.0),
        (r#"resilience_bulkhead_in_use{policy="stock"}"#, 0.0),
        (r#"resilience_bulkhead_in_use{policy="notification"}"#, 0.0),
        (r#"resilience_bulkhead_waiting{policy="notification"}"#, 0.0),
        (r#"resilience_bulkhead_in_use{policy="query"}"#, 0.0),
        (r#"resilience_bulkhead_in_use{policy="command"}"#, 0.0),
        (r#"resilience_bulkhead_in_use{policy="reporting"}"#, 0.0),
        ("log_lines_dropped_total", 0.0),
        (r#"annals_runner_failed{kind="projection",name="order_list"}"#, 0.0),
    ] {
        assert_eq!(after.get(series), Some(&expected), "{series}\n{}", answer.text);
    }
    let reached = seen.parse::<PositionToken>().expect("a position").position.get() as f64;
    // The gauges of read models and reactors are those of the last five seconds.
    let end = Instant::now() + Duration::from_secs(30);
    for one in [r#"kind="projection",name="order_list""#, r#"kind="reactor",name="payments""#] {
        while parsed(&server.get("/metrics", OPERATOR).await.text)[&format!("annals_runner_position{{{one}}}")]
            < reached
        {
            assert!(Instant::now() < end, "{one} is not at {reached}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(after[&format!("annals_runner_lag_seconds{{{one}}}")] >= 0.0);
    }
    // Shops are named by the settings, and nowhere but where each has a policy of its own.
    let text = answer.text.replace("policy=\"query alpha\"", "");
    for made_up in ["alpha", "alice", &id, "by-a-caller", "MADEUP", "nobody", "k-1"] {
        assert!(!text.contains(made_up), "{made_up}: {text}");
    }
}
