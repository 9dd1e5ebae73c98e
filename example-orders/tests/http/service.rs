//! The service as its supervisor and its clients' libraries see it: start, health, documents, limits, and end.

use std::time::Duration;

use serde_json::json;

use crate::server::{ADMIN, ALICE, Answer, Server, Store, order};

#[tokio::test]
async fn health_documents_traces_and_limits_are_as_promised() {
    let server = Server::with(Store::file(), &[("ORDERS_LONGEST_DEADLINE", "5s")]).await;
    let open = |path: &str| Answer::of(server.client.get(format!("http://{}{path}", server.address)));
    for path in ["/health/live", "/health/ready", "/health/startup"] {
        let answer = open(path).await;
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("up")), "{path}: {}", answer.text);
    }
    let checks = open("/health/ready").await.json()["checks"].clone();
    assert!(
        ["database", "idempotency-keys", "projections"].iter().all(|name| checks[name]["status"] == "up"),
        "{checks}"
    );

    let page = open("/docs/").await;
    assert!(page.status == 200 && page.text.contains("swagger-ui"), "{}", page.text);
    assert!(!page.text.contains("https://"), "it needs no network: {}", page.text);
    assert_eq!(open("/docs/swagger-ui-bundle.js").await.status, 200);
    assert_eq!(open("/openapi.json").await.json()["openapi"], "3.1.0");

    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = server.request("POST", "/orders", ALICE).header("idempotency-key", "k").json(&order("alice", 1, 100));
    let request =
        request.header("x-request-id", "web-17").header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let placed = Answer::of(request).await;
    assert_eq!((placed.status, placed.header("x-request-id")), (201, "web-17"));
    assert!(placed.header("traceparent").starts_with(&format!("00-{trace}-")));
    let history = server.get(&format!("{}/history", placed.header("location")), ALICE).await;
    assert_eq!(history.json()["events"][0]["request_id"], "web-17", "an event leads to its request");
    assert_eq!(history.header("x-request-id").len(), 36);

    let long = json!({ "reason": "x".repeat(70_000) });
    let refused = server.post("/orders/o-1003/cancel", ADMIN, "long", &long).await;
    assert_eq!(refused.problem(), (413, "body-too-large".to_owned()));
    let over = server.request("GET", "/orders", ADMIN).header("x-deadline-ms", "0");
    assert_eq!(Answer::of(over).await.problem(), (504, "deadline-exceeded".to_owned()));
    let bad = server.request("GET", "/orders", ADMIN).header("x-deadline-ms", "soon");
    assert_eq!(Answer::of(bad).await.problem(), (400, "deadline-invalid".to_owned()));
    assert_eq!(server.get("/nowhere", ADMIN).await.problem(), (404, "route".to_owned()));
    assert_eq!(server.write("DELETE", "/orders", ADMIN, "d", &json!({})).await.problem(), (405, "method".to_owned()));
    for (key, body, status, code) in [
        ("no-json", "{", 400, "body-invalid"),
        ("no-lines", r#"{"customer": "alice"}"#, 422, "body-invalid"),
        ("no-line", r#"{"customer": "alice", "lines": []}"#, 422, "order-empty"),
        ("a-typo", r#"{"customer": "alice", "lines": [], "line": []}"#, 422, "body-invalid"),
        ("no-customer", r#"{"lines": []}"#, 422, "customer-missing"),
    ] {
        let request = server.request("POST", "/orders", ADMIN).header("idempotency-key", key);
        let answer = Answer::of(request.header("content-type", "application/json").body(body)).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{body}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_finished_when_the_service_is_asked_to_end_and_their_orders_are_there_after_the_next_start()
 {
    let mut server = Server::on(Store::file()).await;
    let requests: Vec<_> = (0..50)
        .map(|number| {
            let request = server.request("POST", "/orders", ADMIN).header("idempotency-key", format!("k-{number}"));
            tokio::spawn(request.timeout(Duration::from_secs(20)).json(&order("erin", 1, 100)).send())
        })
        .collect();
    // Some are answered, some run, and some are not sent yet.
    while requests.iter().filter(|request| request.is_finished()).count() < 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (status, errors) = tokio::task::block_in_place(|| server.terminate());
    assert!(status.success(), "{errors}");
    let mut placed = 0;
    for request in requests {
        // One that was not taken has no answer, and one that was taken has a whole one.
        match request.await.expect("sent") {
            Ok(answer) => {
                assert_eq!(answer.status(), 201);
                placed += 1;
            }
            Err(error) => assert!(error.is_request() || error.is_connect(), "{error:?}"),
        }
    }
    assert!(placed >= 10);
    server.crash();
    let list = server.get("/orders?customer=erin&limit=100", ADMIN).await.json();
    assert!(list["orders"].as_array().is_some_and(|orders| orders.len() >= placed));
}

#[tokio::test]
async fn keys_of_the_demonstration_are_not_served_to_other_machines() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut app = std::process::Command::new(env!("CARGO_BIN_EXE_example-orders"));
    app.args(["--listen", "0.0.0.0:0", "--db"]).arg(folder.path().join("orders.db")).env_remove("DATABASE_URL");
    let output = app.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("new-key"), "{errors}");
}

#[tokio::test]
async fn a_new_key_is_valid_with_the_lines_that_come_with_it_and_its_secret_is_not_in_them() {
    let mut app = std::process::Command::new(env!("CARGO_BIN_EXE_example-orders"));
    let output = app.args(["new-key", "--tenant", "gamma", "--role", "admin"]).output().expect("it starts");
    let printed = String::from_utf8(output.stdout).expect("text");
    let (first, lines) = printed.split_once('\n').expect("lines");
    let key = first.rsplit(' ').next().expect("a key");
    let (_, secret) = key.split_once('.').expect("a secret");
    assert!(secret.len() >= 56 && !lines.contains(secret));
    // The table of a file, as a value on one line.
    let values: Vec<&str> = lines.lines().filter(|line| line.contains(" = ")).collect();
    let keys = format!("[{{ {} }}]", values.join(", "));
    let server = Server::with(Store::file(), &[("ORDERS_KEYS", &keys)]).await;
    assert_eq!(server.get("/orders", key).await.json()["orders"], json!([]), "no demonstration is made for own keys");
    assert_eq!(server.get("/orders", ADMIN).await.problem(), (401, "key".to_owned()));
    assert_eq!(server.get("/orders", &format!("{}x", &key[..key.len() - 1])).await.status, 401);
}
