//! The service as its supervisor and its clients' libraries see it: start, health, documents, limits, and end.

use std::time::{Duration, Instant};

use example_orders::services::{Faults, Kind, Server as Service};
use serde_json::json;
use sqlx::{Connection, PgConnection};

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
        ["database", "cache", "idempotency-keys", "payment", "projections"]
            .iter()
            .all(|name| checks[name]["status"] == "up"),
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
        (
            "too-dear",
            r#"{"customer": "alice", "lines": [{"product": "p", "quantity": 1, "price": {"minor": 9223372036854775807, "currency": "EUR"}}]}"#,
            422,
            "order-total",
        ),
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

/// A start that waited for its read models would take as long as they do, and never end where they need more than a minute.
#[tokio::test]
async fn a_service_whose_read_models_are_behind_serves_at_once_and_says_how_far_they_are_on_both_databases() {
    for store in Store::each().await {
        // The leases of a dead process keep them from going on.
        let settings = [("ORDERS_LEASE_MS", "120000"), ("ORDERS_MOST_LAG_MS", "1")];
        let mut server = Server::with(store, &settings).await;
        server.crash();
        let (id, position) = server.place(ADMIN, "k", "alice", 100).await;
        let begun = Instant::now();
        server.crash();
        assert_eq!(server.get(&format!("/orders/{id}/history"), ADMIN).await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(20), "the start took {:?}", begun.elapsed());

        let open = |path: &str| Answer::of(server.client.get(format!("http://{}{path}", server.address)));
        assert_eq!(open("/health/startup").await.json()["status"], "up");
        let ready = open("/health/ready").await;
        assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")), "{}", ready.text);
        let said = ready.json()["checks"]["projections"]["error"].to_string();
        for name in ["order_detail", "order_list"] {
            assert!(said.contains(&format!("`{name}` is too far behind: ")), "{said}");
        }
        let list = server.get("/orders?limit=100", ADMIN).await;
        assert!(list.status == 200 && !list.text.contains(&id), "{}", list.text);
        let number = |token: &str| token.split_once('-').and_then(|(number, _)| number.parse::<i64>().ok());
        assert!(number(list.header("x-position")) < number(&position), "{} {position}", list.header("x-position"));
        let waits = server.get(&format!("/orders?at_least={position}"), ADMIN).await;
        assert_eq!(waits.problem(), (503, "position-not-reached".to_owned()));
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_checkout_when_the_service_ends_is_told_where_to_look_and_it_goes_on_after_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let payment = Service::start(Kind::Payment, folder.path(), 0).await.expect("it starts");
    let mut server = Server::with(Store::file(), &[("ORDERS_SERVICES__PAYMENT", &payment.url)]).await;
    payment.faults.set(Faults { latency_ms: 60_000, ..Faults::default() });
    let request = server.request("POST", "/checkouts", ALICE).header("idempotency-key", "k");
    let waiting = tokio::spawn(Answer::of(request.json(&order("alice", 1, 4_900))));
    // The seed has four orders of hers; the fifth waits for its payment.
    server.until("/orders", ALICE, |list| list.json()["orders"].as_array().is_some_and(|all| all.len() == 5)).await;
    let begun = Instant::now();
    let (status, errors) = tokio::task::block_in_place(|| server.terminate());
    assert!(status.success(), "{errors}");
    assert!(begun.elapsed() < Duration::from_secs(9), "nobody waits for the end of the checkout");
    let answer = waiting.await.expect("it was answered");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (202, Some("running")), "{}", answer.text);
    payment.faults.set(Faults::default());
    server.crash();
    let completed = |answer: &Answer| answer.json()["standing"]["answer"] == "completed";
    server.until(answer.header("location"), ALICE, completed).await;
    payment.stop().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_longer_than_the_service_waits_is_answered_before_its_connection_is_closed() {
    let mut server = Server::with(Store::postgres().await, &[("ORDERS_DRAIN_SECONDS", "1")]).await;
    let Store::Postgres(database) = &server.store else { unreachable!("it was made above") };
    let mut lock = PgConnection::connect(database.url()).await.expect("it answers");
    let locked = "BEGIN; LOCK TABLE shop_sales IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(locked).execute(&mut lock).await.expect("locked");
    let waiting = tokio::spawn(Answer::of(server.request("GET", "/analytics/days", ADMIN)));
    let blocked = "SELECT count(*) FROM pg_locks WHERE relation = 'shop_sales'::regclass AND NOT granted";
    while sqlx::query_scalar::<_, i64>(blocked).fetch_one(&mut lock).await.expect("it answers") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = tokio::task::spawn_blocking(move || server.terminate());
    assert_eq!(waiting.await.expect("it was answered").problem(), (503, "stopping".to_owned()));
    lock.close().await.expect("closed");
    let (status, errors) = ended.await.expect("it ended");
    assert!(status.success(), "{errors}");
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
    // A name such as shops have, and all that needs care in TOML.
    let output =
        app.args(["new-key", "--tenant", "caf\u{e9}.de \"x\"", "--role", "admin"]).output().expect("it starts");
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
    let refused = server.get("/orders", ADMIN).await;
    assert_eq!(refused.problem(), (401, "key".to_owned()));
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    assert_eq!(server.get("/orders", &format!("{}x", &key[..key.len() - 1])).await.status, 401);
}
