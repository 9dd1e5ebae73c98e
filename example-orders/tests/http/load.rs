//! The load: what a run says of a service that keeps its orders, and of services that do not.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{post, put};
use axum::{Json, Router};
use example_orders::checkout::Flow;
use example_orders::load::{Options, Report, measure};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::server::{ADMIN, Server, Store};

fn options(rate: Option<u32>, connections: u32, checkouts: Option<Flow>) -> Options {
    Options { rate, seconds: 1, connections, url: None, key: ADMIN.to_owned(), checkouts }
}

#[tokio::test]
async fn a_short_load_on_a_service_of_its_own_loses_no_order() {
    let mut app = Command::new(env!("CARGO_BIN_EXE_example-orders"));
    app.args(["load", "--rate", "50", "--seconds", "2"]).env_remove("DATABASE_URL");
    let output = tokio::task::spawn_blocking(move || app.output()).await.expect("it ends").expect("it starts");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}{errors}");
    for line in ["100 requests in", "201: 100", "100 acknowledged, 0 lost, 0 duplicated, 0 not acknowledged", "p99.9"] {
        assert!(printed.contains(line), "no `{line}`: {printed}{errors}");
    }
    assert!(errors.contains("   1 s: "), "it says each second how far it is: {errors}");
}

#[tokio::test]
async fn checkouts_under_load_all_end_and_have_one_order_each_in_both_variants() {
    let server = Server::on(Store::file()).await;
    for flow in [Flow::Orchestrated, Flow::Choreographed] {
        let url = format!("http://{}/", server.address);
        let report = measure(&options(None, 8, Some(flow)), &url).await.expect("it is read back");
        let ends = report.checkouts.as_ref().expect("checkouts");
        assert!(report.requests >= 8 && report.problem().is_none(), "{flow:?}: {report}");
        assert_eq!((ends.count("completed"), report.read_back.acknowledged), (report.requests, report.requests));
        assert!(report.repeats.acknowledged >= 1 && ends.backlog <= 8, "{flow:?}: {report}");
    }
}

/// What is wrong with a service.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// Some orders are acknowledged, and not kept.
    Forgets,
    /// Some orders are kept twice.
    KeepsTwice,
    /// A request that is sent again is a new one.
    IgnoresKeys,
    /// Some orders are kept, and the answer is lost.
    LosesAnswers,
    /// Some orders are refused, and kept.
    RefusesAndKeeps,
    /// The first answer takes nearly a second, and in that time there is no other.
    StandsStill,
}

/// Orders and their cents, and the keys that were used.
#[derive(Default)]
struct Kept {
    orders: Vec<(String, i64)>,
    keys: HashMap<String, String>,
}

type Fake = (Wrong, Arc<Mutex<Kept>>);

async fn place(
    State((wrong, kept)): State<Fake>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let key = headers["idempotency-key"].to_str().expect("text").to_owned();
    let cents = body["lines"][0]["price"]["minor"].as_i64().expect("a price");
    if wrong == Wrong::StandsStill && cents == 1 {
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    let mut kept = kept.lock().expect("no panic");
    let before = kept.keys.get(&key).cloned().filter(|_| wrong != Wrong::IgnoresKeys);
    let (is_new, tenth) = (before.is_none(), cents % 10 == 0);
    let order = before.unwrap_or_else(|| format!("o-{}", kept.orders.len()));
    if is_new {
        kept.keys.insert(key, order.clone());
        if !(tenth && wrong == Wrong::Forgets) {
            kept.orders.push((order.clone(), cents));
        }
        if tenth && wrong == Wrong::KeepsTwice {
            kept.orders.push((format!("{order}-again"), cents));
        }
    }
    let status = match wrong {
        Wrong::LosesAnswers if is_new && tenth => StatusCode::BAD_GATEWAY,
        Wrong::RefusesAndKeeps if tenth => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::CREATED,
    };
    (status, Json(json!({ "order_id": order, "status": "placed" })))
}

async fn list(State((_, kept)): State<Fake>) -> Json<Value> {
    let kept = kept.lock().expect("no panic");
    let line =
        |(order, cents): &(String, i64)| json!({ "order_id": order, "total": { "minor": cents, "currency": "EUR" } });
    Json(json!({ "orders": kept.orders.iter().map(line).collect::<Vec<_>>(), "next": null }))
}

/// The report on a second of 100 requests to a service with which this is wrong.
async fn run(wrong: Wrong, connections: u32) -> Report {
    let position = async || [("x-position", "1-abc")];
    let routes = Router::new().route("/orders", post(place).get(list)).route("/customers/{customer}", put(position));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let routes = routes.with_state((wrong, Arc::default()));
    let serving = tokio::spawn(axum::serve(listener, routes).into_future());
    let report = measure(&options(Some(100), connections, None), &url).await.expect("it is read back");
    serving.abort();
    report
}

#[tokio::test]
async fn a_service_that_loses_or_doubles_orders_is_found_out() {
    let runs = [
        (Wrong::Nothing, 0, 0, 0, 0),
        (Wrong::LosesAnswers, 0, 0, 0, 0),
        (Wrong::Forgets, 10, 0, 0, 0),
        (Wrong::KeepsTwice, 0, 10, 0, 0),
        // One in twenty is sent again.
        (Wrong::IgnoresKeys, 0, 5, 0, 5),
        (Wrong::RefusesAndKeeps, 0, 0, 10, 0),
    ];
    let reports = join_all(runs.map(|(wrong, ..)| run(wrong, 16))).await;
    for ((wrong, lost, duplicated, unexpected, another), report) in runs.into_iter().zip(reports) {
        let found = &report.read_back;
        let counts =
            (found.lost.len(), found.duplicated.len(), found.unexpected.len(), report.repeats.another_order.len());
        assert_eq!(counts, (lost, duplicated, unexpected, another), "{report}");
        assert_eq!(report.problem().is_some(), counts != (0, 0, 0, 0), "{report}");
        let unknown = if wrong == Wrong::LosesAnswers { 10 } else { 0 };
        assert_eq!((report.repeats.unknown, report.repeats.unknown_still), (unknown, 0), "{report}");
    }
}

#[tokio::test]
async fn a_service_that_stands_still_has_the_latency_of_all_requests_that_waited_for_it() {
    let report = run(Wrong::StandsStill, 1).await;
    assert_eq!(report.requests, 100, "those that waited are sent, late");
    // Of the requests of one second 90 were to be sent in the 0.9 s that the first took; measured from when each was sent, one was slow.
    let median = report.latencies.in_a_thousand(500);
    assert!(median > Duration::from_millis(300), "{report}");
}
