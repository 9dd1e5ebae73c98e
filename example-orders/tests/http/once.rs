//! A write is done once, whatever is sent again, by whom, and when.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::server::{ADMIN, ALICE, Answer, BOB, Server, Store, order};

/// Orders of a customer. After a crash the read models go on when the leases of the process that is gone have ended.
async fn count(server: &Server, customer: &str) -> usize {
    let head = server.write("PUT", &format!("/customers/{customer}"), ADMIN, "seen", &json!({ "name": "Seen" })).await;
    let path = format!("/orders?customer={customer}&limit=100&at_least={}", head.header("x-position"));
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let list = server.get(&path, ADMIN).await;
        if list.status == 200 {
            return list.json()["orders"].as_array().map_or(0, Vec::len);
        }
        assert_eq!(list.problem(), (503, "position-not-reached".to_owned()));
        assert!(tokio::time::Instant::now() < until, "{}", list.text);
    }
}

#[tokio::test]
async fn a_key_that_is_used_for_another_request_is_refused_and_nothing_happens() {
    let server = Server::on(Store::file()).await;
    let (first, _) = server.place(ALICE, "one", "alice", 100).await;
    let (second, _) = server.place(ALICE, "two", "alice", 100).await;
    let pay = json!({ "payment": "p", "amount": { "minor": 100, "currency": "EUR" } });
    let paid = server.post(&format!("/orders/{first}/pay"), ALICE, "k", &pay).await;
    assert_eq!(paid.status, 200);
    for (method, path) in [
        ("POST", format!("/orders/{second}/pay")),
        ("POST", format!("/orders/{first}/cancel")),
        ("POST", format!("/orders/{first}/pay?dry_run=1")),
        ("PUT", format!("/orders/{first}/pay")),
    ] {
        let other = server.write(method, &path, ALICE, "k", &pay).await;
        assert_eq!(other.problem(), (422, "idempotency-key-reused".to_owned()), "{method} {path}");
    }
    let again = server.post(&format!("/orders/{first}/pay"), ALICE, "k", &pay).await;
    assert_eq!((again.status, &again.text), (200, &paid.text), "the first answer stays");
    assert_eq!(again.header("idempotent-replayed"), "true");
    let history = async |id: String| {
        server.get(&format!("/orders/{id}/history"), ALICE).await.json()["events"].as_array().map(Vec::len)
    };
    assert_eq!((history(first.clone()).await, history(second.clone()).await), (Some(2), Some(1)));
    // Another caller's key of the same name is another key.
    let (of_bob, _) = server.place(BOB, "one", "bob", 100).await;
    assert_ne!(of_bob, first);
    let without = Answer::of(server.request("POST", "/orders", ALICE).json(&order("alice", 1, 100))).await;
    assert_eq!(without.problem(), (400, "idempotency-key-missing".to_owned()));
}

#[tokio::test]
async fn twenty_at_once_and_one_after_a_crash_are_one_order_on_both_databases() {
    for store in Store::each().await {
        let mut server = Server::on(store).await;
        let body = order("erin", 1, 100);
        let short = Answer::of(
            server
                .request("POST", "/orders", ADMIN)
                .header("idempotency-key", "k")
                .header("x-deadline-ms", "1")
                .json(&body),
        );
        let mut all = vec![short.await];
        assert!(matches!(all[0].status, 201 | 504), "{}", all[0].text);
        all.extend(join_all((0..20).map(|_| server.post("/orders", ADMIN, "k", &body))).await);
        for answer in &all[1..] {
            match answer.status {
                201 => {}
                409 => assert!(!answer.header("retry-after").is_empty(), "{}", answer.text),
                status => panic!("{status} {}", answer.text),
            }
        }
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        let first = loop {
            let answer = server.post("/orders", ADMIN, "k", &body).await;
            if answer.status == 201 {
                break answer;
            }
            assert!(answer.status == 409 && tokio::time::Instant::now() < until, "{}", answer.text);
        };
        assert!(all[1..].iter().filter(|answer| answer.status == 201).all(|answer| answer.text == first.text));
        let reordered = r#"{ "lines": [{"quantity": 1, "price": {"currency": "EUR", "minor": 100}, "product": "kettle"}], "customer": "erin" }"#;
        let json = ("content-type", "application/json");
        let request = server.request("POST", "/orders", ADMIN).header("idempotency-key", "k").header(json.0, json.1);
        let again = Answer::of(request.body(reordered)).await;
        assert_eq!((again.status, &again.text), (201, &first.text));
        let two = server.post("/orders", ADMIN, "k", &order("erin", 2, 100)).await;
        assert_eq!(two.problem(), (422, "idempotency-key-reused".to_owned()));

        // The memory of answers ends with the process. The key is also with the event.
        server.crash();
        let again = server.post("/orders", ADMIN, "k", &body).await;
        assert_eq!((again.status, &again.text), (201, &first.text));
        assert_eq!(again.header("x-position"), first.header("x-position"));
        let two = server.post("/orders", ADMIN, "k", &order("erin", 2, 100)).await;
        assert_eq!(two.problem(), (422, "idempotency-key-reused".to_owned()));
        assert_eq!(count(&server, "erin").await, 1);
    }
}
