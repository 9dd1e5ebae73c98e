//! Checkouts through the service. The services that they call are the test's own, so that it can set what goes wrong.

use annals::Tenant;
use example_orders::services::{Faults, Servers};
use serde_json::{Value, json};

use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, Answer, BETA, BOB, OPERATOR, Server, Store, order};

/// A service whose partners run in the test.
pub(crate) async fn start(store: Store, folder: &std::path::Path) -> (Server, Servers) {
    start_with(store, folder, &[]).await
}

/// The same with these settings.
pub(crate) async fn start_with(store: Store, folder: &std::path::Path, settings: &[(&str, &str)]) -> (Server, Servers) {
    let partners = Servers::start(folder).await.expect("they start");
    let addresses = [
        ("ORDERS_SERVICES__PAYMENT", &*partners.payment.url),
        ("ORDERS_SERVICES__STOCK", &*partners.stock.url),
        ("ORDERS_SERVICES__SHIPPING", &*partners.shipping.url),
    ];
    let settings = [settings, &addresses].concat();
    (Server::with(store, &settings).await, partners)
}

/// A choreographed checkout of alice that is completed; gives its order.
pub(crate) async fn choreographed(server: &Server) -> String {
    let body = order("alice", 1, 100);
    let begun = server.post("/checkouts?flow=choreographed", ALICE, "choreographed", &body).await.json();
    let id = begun["order"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
    let completed = |answer: &Answer| answer.status == 200 && answer.json()["standing"]["answer"] == "completed";
    server.until(&format!("/orders/{id}/checkout"), ALICE, completed).await;
    id
}

#[tokio::test]
async fn a_checkout_is_done_once_whatever_is_sent_again_and_seen_by_its_own_shop_and_customer_alone_on_both_databases()
{
    for store in Store::each().await {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut server, partners) = start(store, folder.path()).await;
        let flows = ["orchestrated", "choreographed"];
        let mut orders = Vec::new();
        for flow in flows {
            // The same key in both shops.
            for (key, customer) in [(ALICE, "alice"), (BETA, "carol")] {
                let body = order(customer, 1, 4_900);
                let done = server.post(&format!("/checkouts?flow={flow}"), key, flow, &body).await;
                assert_eq!((done.status, &done.json()["answer"]), (200, &json!("completed")), "{}", done.text);
                let id = done.json()["order"].as_str().expect("an id").to_owned();
                let seen = format!("/orders/{id}?at_least={}", done.header("x-position"));
                assert_eq!(server.get(&seen, key).await.json()["status"], "shipped");
                let path = format!("/orders/{id}/checkout");
                let shown = server.get(&path, key).await.json();
                assert_eq!(shown["standing"]["flow"], flow, "{shown}");
                assert!(shown["timeline"].as_array().is_some_and(|events| events.len() > 3), "{shown}");
                if key == ALICE {
                    let step = if flow == "orchestrated" { "charge" } else { "payment.completed" };
                    let of_step = |moment: &Value| moment["step"] == step && moment["name"].is_string();
                    assert!(shown["timeline"].as_array().is_some_and(|events| events.iter().any(of_step)), "{shown}");
                    let history = server.get(&format!("/orders/{id}/history"), ALICE).await.json();
                    let placed = &history["events"][0];
                    assert_eq!((&placed["event"], &placed["by"]), (&json!("order.placed"), &json!("alpha-alice")));
                    assert!(placed["caused_by"].is_string(), "{history}");
                    for (other, status) in
                        [(ADMIN, 200), (ALPHA_OPERATOR, 200), (BOB, 404), (BETA, 404), (OPERATOR, 404)]
                    {
                        assert_eq!(server.get(&path, other).await.status, status, "{other}");
                    }
                    // One that is not there is answered alike.
                    let none = server.get("/orders/o-9/checkout", BOB).await.text;
                    assert_eq!(server.get(&path, BOB).await.text, none.replace("o-9", &id));
                    orders.push(id);
                }
            }
        }
        // The process forgets the answers, and the log does not.
        server.crash();
        for (flow, id) in flows.into_iter().zip(&orders) {
            let path = format!("/checkouts?flow={flow}");
            let again = server.post(&path, ALICE, flow, &order("alice", 1, 4_900)).await;
            assert_eq!((again.status, &again.json()["order"]), (200, &json!(id)), "{}", again.text);
            server.crash();
            let other = server.post(&path, ALICE, flow, &order("alice", 2, 4_900)).await;
            assert_eq!(other.problem(), (422, "idempotency-key-reused".to_owned()), "{flow}");
        }
        for shop in ["alpha", "beta"] {
            let sums = partners.payment.sums(&Tenant::new(shop).expect("a tenant")).await.expect("read");
            assert_eq!((sums.entries, sums.open()), (2, 2 * 4_900), "{shop}");
        }
        let without = Answer::of(server.request("POST", "/checkouts", ALICE).json(&order("alice", 1, 100))).await;
        assert_eq!(without.problem(), (400, "idempotency-key-missing".to_owned()));
        let of_bob = server.post("/checkouts", ALICE, "of-bob", &order("bob", 1, 100)).await;
        assert_eq!(of_bob.problem(), (404, "not-found".to_owned()));
        let nothing = server.post("/checkouts", ALICE, "nothing", &json!({ "lines": [] })).await;
        assert_eq!(nothing.problem(), (422, "order-empty".to_owned()));
        // Nobody makes an order that is not checked out a part of a checkout by the name of a request.
        let forged = server.request("POST", "/orders", ALICE).header("idempotency-key", "forged");
        let forged = forged.header("x-request-id", "flow-o-1004").json(&order("alice", 1, 100));
        let forged = Answer::of(forged).await;
        assert!(forged.status == 201 && forged.header("x-request-id") != "flow-o-1004", "{}", forged.text);
        partners.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_the_shop_decides_about_a_checkout_that_is_stuck_after_a_dry_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, partners) = start(Store::file(), folder.path()).await;
    // Behind the pivot, the carrier is closed.
    partners.shipping.faults.set(Faults { closed: true, ..Faults::default() });
    let begun = server.post("/checkouts", ALICE, "stuck", &order("alice", 1, 4_900)).await;
    assert_eq!((begun.status, &begun.json()["answer"]), (202, &json!("waits for a person")), "{}", begun.text);
    assert_eq!(begun.json()["reason"], "somebody of the shop has to look at it");
    partners.shipping.faults.set(Faults::default());
    let place = begun.header("location").to_owned();
    let decision = format!("{place}/decision");
    let retry = json!({ "decision": "retry", "reason": "it is open again" });
    for (key, status, code) in [(ALICE, 403, "role"), (ADMIN, 403, "role"), (OPERATOR, 404, "not-found")] {
        assert_eq!(server.post(&decision, key, "d", &retry).await.problem(), (status, code.to_owned()), "{key}");
    }
    let would = server.post(&decision, ALPHA_OPERATOR, "dry", &retry).await;
    assert_eq!((would.status, would.json()["would"].as_array().map(Vec::len)), (200, Some(2)), "{}", would.text);
    let some = |answer: &Answer| answer.json()["checkouts"].as_array().is_some_and(|all| !all.is_empty());
    let stuck = server.until("/checkouts/stuck", ALPHA_OPERATOR, some).await.json();
    assert_eq!(stuck["checkouts"][0]["id"], begun.json()["id"], "a dry run has changed nothing");
    // By that it is decided about.
    assert_eq!(
        (&stuck["checkouts"][0]["order"], &stuck["checkouts"][0]["flow"]),
        (&begun.json()["order"], &json!("orchestrated"))
    );
    assert_eq!(server.get("/checkouts/stuck", OPERATOR).await.json()["checkouts"], json!([]), "of another shop");
    let back = json!({ "decision": "compensate", "reason": "x", "dry_run": false });
    let behind_its_pivot = server.post(&decision, ALPHA_OPERATOR, "back", &back).await;
    assert_eq!(behind_its_pivot.problem(), (409, "checkout-decision".to_owned()));
    let really = json!({ "decision": "retry", "reason": "it is open again", "dry_run": false });
    let decided = server.post(&decision, ALPHA_OPERATOR, "really", &really).await;
    assert_eq!(decided.status, 200, "{}", decided.text);
    server.until(&place, ALICE, |answer| answer.json()["standing"]["answer"] == "completed").await;
    // Customers are shown neither what services have said nor who has decided; the staff is.
    for (key, sees) in [(ALICE, false), (ADMIN, true)] {
        let shown = server.get(&place, key).await;
        assert_eq!(
            (shown.text.contains("HTTP status"), shown.text.contains("alpha-operator")),
            (sees, sees),
            "{key} {}",
            shown.text
        );
        assert_eq!(shown.json()["row"].is_object(), sees, "{key} {}", shown.text);
    }
    // What a person completes is counted as completed.
    partners.shipping.faults.set(Faults { closed: true, ..Faults::default() });
    let by_hand = server.post("/checkouts", ALICE, "by-hand", &order("alice", 1, 4_900)).await;
    let complete = json!({ "decision": "complete", "reason": "it is delivered by hand", "dry_run": false });
    let decided =
        server.post(&format!("{}/decision", by_hand.header("location")), ALPHA_OPERATOR, "hand", &complete).await;
    assert_eq!((decided.status, &decided.json()["standing"]["answer"]), (200, &json!("completed")), "{}", decided.text);
    let metrics = server.get("/metrics", OPERATOR).await.text;
    assert!(metrics.contains(r#"annals_sagas_total{saga="checkout",event="completed"} 2"#), "{metrics}");
    // For another decision it is in the wrong status, and the right ones are given.
    let other = json!({ "decision": "skip", "reason": "x" });
    let late = server.post(&decision, ALPHA_OPERATOR, "late", &other).await;
    assert_eq!(late.problem(), (409, "checkout-status".to_owned()));
    assert_eq!((&late.json()["expected"], &late.json()["actual"]), (&json!(["stuck"]), &json!("completed")));
    // The same after a crash is no second decision, which would be refused now.
    server.crash();
    assert_eq!(server.post(&decision, ALPHA_OPERATOR, "really", &really).await.status, 200);
    #[cfg(unix)]
    {
        let (status, errors) = tokio::task::block_in_place(|| server.terminate());
        assert!(status.success(), "{errors}");
    }
    partners.stop().await;
}

/// A customer whose second request came to another process was told that an order which is paid and shipped was undone.
#[tokio::test]
async fn one_key_is_no_second_checkout_at_another_process_and_hides_none_on_both_databases() {
    for store in Store::each().await {
        let one = Server::on(store).await;
        let other = Server::beside(&one).await;
        let body = order("alice", 1, 4_900);
        let exists = (409, "order-exists".to_owned());
        let done = one.post("/checkouts?flow=choreographed", ALICE, "flow", &body).await;
        assert_eq!((done.status, &done.json()["answer"]), (200, &json!("completed")), "{}", done.text);
        let id = done.json()["order"].as_str().expect("an id").to_owned();
        assert_eq!(other.post("/checkouts", ALICE, "flow", &body).await.problem(), exists);
        let shown = other.get(&format!("/orders/{id}/checkout"), ALICE).await.json()["standing"].clone();
        assert_eq!((&shown["flow"], &shown["answer"]), (&json!("choreographed"), &json!("completed")), "{shown}");

        let (id, _) = one.place(ALICE, "order", "alice", 4_900).await;
        assert_eq!(other.post("/checkouts", ALICE, "order", &body).await.problem(), exists);
        let none = other.get(&format!("/orders/{id}/checkout"), ALICE).await;
        assert_eq!(none.problem(), (404, "not-found".to_owned()));

        for number in 0..3 {
            let key = format!("both-{number}");
            let (saga, flow) = futures::join!(
                one.post("/checkouts", ALICE, &key, &body),
                other.post("/checkouts?flow=choreographed", ALICE, &key, &body),
            );
            let (won, lost) = if saga.status == 200 { (saga, flow) } else { (flow, saga) };
            assert_eq!((won.status, &won.json()["answer"]), (200, &json!("completed")), "{} {}", won.text, lost.text);
            assert_eq!(lost.problem(), exists, "{}", lost.text);
            let id = won.json()["order"].as_str().expect("an id").to_owned();
            let shown = one.get(&format!("/orders/{id}/checkout"), ALICE).await.json()["standing"].clone();
            assert_eq!(shown["flow"], won.json()["flow"], "{shown}");
        }
    }
}
