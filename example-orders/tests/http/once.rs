//! A write is done once, whatever is sent again, by whom, and when.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use sha2::{Digest, Sha256};

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
    let paid = server.post(&format!("/orders/{first}/pay"), ADMIN, "k", &pay).await;
    assert_eq!(paid.status, 200);
    for (method, path) in [
        ("POST", format!("/orders/{second}/pay")),
        ("POST", format!("/orders/{first}/cancel")),
        ("POST", format!("/orders/{first}/pay?dry_run=1")),
        ("PUT", format!("/orders/{first}/pay")),
    ] {
        let other = server.write(method, &path, ADMIN, "k", &pay).await;
        assert_eq!(other.problem(), (422, "idempotency-key-reused".to_owned()), "{method} {path}");
    }
    let again = server.post(&format!("/orders/{first}/pay"), ADMIN, "k", &pay).await;
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

/// Ten customers of one shop filled the memory of all, and no shop could place an order for a day; and two shops whose names were
/// written alike shared their keys, so that one was given the order of the other.
#[tokio::test]
async fn the_keys_of_a_shop_are_no_other_shops_and_its_share_of_the_memory_is_its_own() {
    let digest = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = |id: &str, tenant: &str| {
        let sha256 = digest(&format!("{id}.s"));
        format!("{{ id = '{id}', sha256 = '{sha256}', tenant = '{tenant}', role = 'admin' }}")
    };
    let keys = [("ann", "big"), ("bob", "big"), ("cem", "small"), ("b/c", "a"), ("c", "a/b")];
    let keys = format!("[{}]", keys.map(|(id, tenant)| key(id, tenant)).join(", "));
    // Of twelve, four tenants have three each.
    let settings = [
        ("ORDERS_KEYS", &*keys),
        ("ORDERS_IDEMPOTENCY__KEYS", "12"),
        ("ORDERS_IDEMPOTENCY__KEYS_OF_A_CALLER", "2"),
        ("ORDERS_IDEMPOTENCY__RETENTION", "1h"),
    ];
    let server = Server::with(Store::file(), &settings).await;
    for number in 0..20 {
        let (once, body) = (format!("none-{number}"), json!({ "reason": "x" }));
        let refused = server.post("/orders/none/cancel", "ann.s", &once, &body).await;
        assert_eq!(refused.problem(), (404, "not-found".to_owned()));
    }
    for (who, once) in [("ann.s", "1"), ("ann.s", "2"), ("bob.s", "1")] {
        server.place(who, once, "erin", 100).await;
    }
    for (who, whose) in [("ann.s", "of this caller"), ("bob.s", "of this caller's group")] {
        let full = server.post("/orders", who, "3", &order("erin", 1, 100)).await;
        assert_eq!(full.problem(), (503, "idempotency-keys-unavailable".to_owned()));
        let wait: u64 = full.header("retry-after").parse().expect("seconds");
        assert!(full.text.contains(&format!("{whose}\"")) && (3_000..=3_600).contains(&wait), "{wait} {}", full.text);
    }
    server.place("cem.s", "3", "erin", 100).await;
    let ready = server.get("/health/ready", "").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("up")), "{}", ready.text);

    let (first, _) = server.place("b/c.s", "same", "erin", 100).await;
    let (second, _) = server.place("c.s", "same", "erin", 100).await;
    assert_ne!(first, second);
    assert_eq!(server.get(&format!("/orders/{second}/history"), "c.s").await.status, 200);
}

/// The process that had refused a request repeated that for a day, while others had done it; and a misuse of a key kept the right
/// request from being repeated.
#[tokio::test]
async fn what_was_refused_is_decided_on_the_order_as_it_is_when_it_is_sent_again() {
    let mut server = Server::on(Store::file()).await;
    let (id, _) = server.place(ADMIN, "one", "alice", 100).await;
    let (other, _) = server.place(ADMIN, "two", "alice", 100).await;
    let (path, body) = (format!("/orders/{id}/reserve"), json!({ "warehouse": "north" }));
    let early = server.post(&path, ADMIN, "k", &body).await;
    assert_eq!(early.problem(), (409, "order-status".to_owned()));
    let pay = json!({ "payment": "p", "amount": { "minor": 100, "currency": "EUR" } });
    assert_eq!(server.post(&format!("/orders/{id}/pay"), ADMIN, "pay", &pay).await.status, 200);
    let done = server.post(&path, ADMIN, "k", &body).await;
    assert_eq!((done.status, done.header("idempotent-replayed")), (200, ""), "{}", done.text);
    let again = server.post(&path, ADMIN, "k", &body).await;
    assert_eq!((&again.text, again.header("idempotent-replayed")), (&done.text, "true"));

    server.crash();
    let misuse = server.post(&format!("/orders/{other}/reserve"), ADMIN, "k", &body).await;
    assert_eq!(misuse.problem(), (422, "idempotency-key-reused".to_owned()));
    let again = server.post(&path, ADMIN, "k", &body).await;
    assert_eq!((again.status, &again.text), (200, &done.text));
}
