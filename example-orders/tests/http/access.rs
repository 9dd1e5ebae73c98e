//! Who may do what. The routes come from the document of the service, so that a new one is walked without a word here.

use serde_json::json;

use crate::document;
use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, BETA, BOB, OPERATOR, Server, Store, order};

/// Method and path of every route.
async fn routes(server: &Server) -> Vec<(String, String)> {
    let document = document::document(server).await;
    document::operations(document).map(|(path, method, _)| (method.to_uppercase(), path.to_owned())).collect()
}

/// The golden file has each route with what each key is answered: a new route is a line there, which somebody has to look at.
#[tokio::test]
async fn every_route_answers_every_key_as_agreed() {
    let server = Server::on(Store::file()).await;
    let checkout = server.post("/checkouts", ALICE, "checkout", &order("alice", 1, 100)).await;
    assert_eq!((checkout.status, &checkout.json()["answer"]), (200, &json!("completed")), "{}", checkout.text);
    let checkout = checkout.json()["order"].as_str().expect("an id").to_owned();
    let mut table = String::new();
    for (method, path) in routes(&server).await {
        let mut line = format!("{method:<4} {path:<34}");
        for (name, key) in [
            ("none", None),
            ("wrong", Some("alpha-admin.other")),
            ("alice", Some(ALICE)),
            ("bob", Some(BOB)),
            ("admin", Some(ADMIN)),
            ("beta", Some(BETA)),
            ("alpha-operator", Some(ALPHA_OPERATOR)),
            ("operator", Some(OPERATOR)),
        ] {
            // An order, a checkout and a customer of alice in the shop alpha.
            let order = if path.contains("/checkout") { &*checkout } else { "o-1003" };
            let path =
                path.replace("{order}", order).replace("{customer}", "alice").replace("{toggle}", "recommendations");
            let mut request = server.request(&method, &path, key.unwrap_or_default());
            if key.is_none() {
                request = server
                    .client
                    .request(method.parse().expect("a method"), format!("http://{}{path}", server.address));
            }
            // A body that is none: who is let in is told so, and nothing is changed.
            let once = format!("{name}-{method}-{path}");
            let request = request.header("idempotency-key", once).header("content-type", "application/json");
            let request = if method == "GET" { request } else { request.body("{}") };
            let answer = server.documented(&method, &path, request).await;
            line += &format!(" {name} {}", answer.status);
            if answer.status >= 400 {
                answer.problem();
            }
        }
        table += &format!("{line}\n");
    }
    insta::assert_snapshot!("routes_by_key", table);
}

#[tokio::test]
async fn two_shops_with_the_same_order_numbers_see_nothing_of_each_other_on_both_databases() {
    for store in Store::each().await {
        let mut server = Server::on(store).await;
        let reads =
            ["/orders/o-1001", "/orders/o-1001/history", "/orders?limit=100", "/analytics/days", "/customers/carol"];
        let mut before = Vec::new();
        for path in reads {
            before.push(server.get(path, BETA).await);
        }
        // Both have an order o-1003 that is not shipped; alpha's is cancelled, and so refunded.
        let cancelled = server.post("/orders/o-1003/cancel", ADMIN, "k", &json!({ "reason": "late" })).await;
        assert_eq!((cancelled.status, cancelled.json()["status"].as_str()), (200, Some("cancelled")));
        let seen = cancelled.header("x-position").to_owned();
        for _ in 0..2 {
            server.get(&format!("/orders?at_least={seen}"), BETA).await;
            for (path, before) in reads.iter().zip(&before) {
                let after = server.get(path, BETA).await;
                assert_eq!((after.status, &after.text), (200, &before.text), "{path}");
            }
            let of_beta = server.get("/orders/o-1003", BETA).await.json();
            assert_eq!((&of_beta["status"], &of_beta["customer"]), (&json!("placed"), &json!("carol")));
            assert_eq!(server.get("/orders/o-1003", ADMIN).await.json()["status"], "cancelled");
            // What is read again from the log is the same.
            server.crash();
        }
        let at =
            server.get("/orders/o-1003/history", ADMIN).await.json()["events"][2]["at"].as_str().map(str::to_owned);
        let then = server.get(&format!("/orders/o-1003?as_of={}", at.expect("a time")), BETA).await.json();
        assert_eq!(then["status"], "placed");
        // The same key of another tenant is another key.
        let of_beta = server.post("/orders/o-1003/cancel", BETA, "k", &json!({ "reason": "late" })).await;
        assert_eq!((of_beta.status, of_beta.header("idempotent-replayed")), (200, ""));
        // What another shop has is not there, for reads and for writes.
        assert_eq!(server.get("/customers/alice", BETA).await.problem(), (404, "not-found".to_owned()));
        let other = server.post("/orders/o-1007/cancel", BETA, "k-2", &json!({ "reason": "late" })).await;
        assert_eq!(other.problem(), (404, "not-found".to_owned()));
        let of_alice = server.post("/orders/o-1003/cancel", BOB, "k-3", &json!({ "reason": "late" })).await;
        assert_eq!(of_alice.problem(), (404, "not-found".to_owned()), "a customer does not see that there is one");
    }
}

#[tokio::test]
async fn a_tenant_that_asks_too_much_is_told_when_to_come_back_and_others_are_not_slowed() {
    let limits = [("ORDERS_LIMITS__CALLS", "60"), ("ORDERS_LIMITS__PER", "1h"), ("ORDERS_LIMITS__BURST", "3")];
    let server = Server::with(Store::file(), &limits).await;
    for left in ["2", "1", "0"] {
        let answer = server.get("/orders", ADMIN).await;
        assert_eq!((answer.status, answer.header("ratelimit-limit")), (200, "3"));
        assert_eq!(answer.header("ratelimit-remaining"), left);
    }
    let refused = server.get("/orders", ALICE).await;
    assert_eq!(refused.problem(), (429, "rate-limited".to_owned()), "the quota is the tenant's");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=60).contains(&wait)));
    assert_eq!(server.get("/orders", BETA).await.status, 200);
    assert_eq!(server.get("/health/ready", ALICE).await.status, 200, "health is asked without a limit");
}
