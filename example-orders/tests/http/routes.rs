//! Every route, once: an order from its place to its return, and all that can be read of it.

use serde_json::{Value, json};

use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, Answer, OPERATOR, Server, Store, order};

#[tokio::test]
async fn an_order_is_led_to_its_end_and_every_read_shows_it_on_both_databases() {
    for store in Store::each().await {
        let server = Server::on(store).await;
        let (id, _) = server.place(ALICE, "place", "alice", 4_900).await;
        let at = |step: &str| format!("/orders/{id}{step}");
        let euro = |minor: i64| json!({ "minor": minor, "currency": "EUR" });
        let lines = order("alice", 2, 4_900)["lines"].clone();
        let steps: [(&str, &str, &str, Value, &str); 7] = [
            ("PUT", "/lines", ALICE, json!({ "lines": lines }), "placed"),
            ("POST", "/pay", ADMIN, json!({ "payment": "p-1", "amount": euro(9_800) }), "paid"),
            ("POST", "/reserve", ADMIN, json!({ "warehouse": "north" }), "reserved"),
            ("POST", "/ship", ADMIN, json!({ "carrier": "snail", "tracking": "SN-1" }), "shipped"),
            ("POST", "/deliver", ADMIN, json!({ "signed_by": "alice" }), "delivered"),
            ("POST", "/return", ALICE, json!({ "reason": "too loud" }), "returned"),
            ("POST", "/cancel", ALICE, json!({ "reason": "late" }), ""),
        ];
        let mut position = String::new();
        for (method, step, key, body, status) in steps {
            let done = server.write(method, &at(step), key, step.trim_matches('/'), &body).await;
            if status.is_empty() {
                assert_eq!(done.problem(), (409, "order-status".to_owned()));
                let problem = done.json();
                assert_eq!(
                    (&problem["expected"], &problem["actual"]),
                    (&json!(["placed", "paid", "reserved"]), &json!("returned"))
                );
                continue;
            }
            assert_eq!((done.status, &done.json()["status"]), (200, &json!(status)), "{}", done.text);
            position = done.header("x-position").to_owned();
            assert!(!position.is_empty());
        }
        let wrong = server
            .post("/orders/o-1004/pay", ADMIN, "too-little", &json!({ "payment": "p-2", "amount": euro(1) }))
            .await;
        assert_eq!(wrong.problem(), (409, "order-amount".to_owned()));
        assert_eq!(wrong.json()["expected"], euro(1_260));

        let seen = format!("at_least={position}");
        let detail = server.get(&at(&format!("?{seen}")), ALICE).await.json();
        assert_eq!((&detail["status"], &detail["customer_name"]), (&json!("returned"), &json!("Alice Adams")));
        assert_eq!((&detail["total"], &detail["paid"]), (&euro(9_800), &euro(0)));
        assert!(detail["estimated_delivery"].is_string());
        let list = server.get(&format!("/orders?customer=alice&{seen}"), ADMIN).await.json();
        let first = &list["orders"][0];
        assert_eq!((&first["order_id"], &first["pieces"]), (&json!(id), &json!(2)));
        assert_eq!(first["customer_name"], "Alice Adams");
        check_history(&server.get(&at("/history"), ALICE).await);

        let named = server.write("PUT", "/customers/alice", ALICE, "name", &json!({ "name": "Alice Baker" })).await;
        assert_eq!((named.status, &named.json()["name"]), (200, &json!("Alice Baker")));
        let seen = format!("at_least={}", named.header("x-position"));
        let customer = server.get(&format!("/customers/alice?{seen}"), ALICE).await.json();
        assert_eq!((&customer["name"], &customer["orders"]), (&json!("Alice Baker"), &json!(5)));
        assert_eq!(customer["latest"].as_array().map(Vec::len), Some(5));
        assert_eq!(customer["ordered"], json!([euro(2_500 + 3_500 + 4_900 + 6_400 + 9_800)]));
        // Amounts of two currencies are never added.
        let dollars = json!({ "minor": 300, "currency": "USD" });
        let in_dollars = json!({ "lines": [{ "product": "kettle", "quantity": 1, "price": dollars }] });
        let placed = server.post("/orders", ALICE, "dollars", &in_dollars).await;
        let seen = format!("at_least={}", placed.header("x-position"));
        let customer = server.get(&format!("/customers/alice?{seen}"), ALICE).await.json();
        assert_eq!((&customer["orders"], &customer["ordered"][1]), (&json!(6), &dollars), "{}", placed.text);

        let days = server.get(&format!("/analytics/days?{seen}"), ADMIN).await.json();
        let total = &days["totals"][0];
        assert_eq!(
            (&total["orders"], &total["average_order"]),
            (&json!(8), &json!((2_500 + 12_900 + 3_500 + 1_260 + 4_900 + 3_600 + 6_400 + 9_800) / 8))
        );
        assert_eq!(server.get("/analytics/days?from=2020-01-01&to=2020-12-31", ADMIN).await.json()["days"], json!([]));
        let all = server.get(&format!("/operator/sales?{seen}"), OPERATOR).await.json();
        assert_eq!(all["totals"][0]["orders"], 13);
        let of_one_shop = server.get("/operator/sales", ALPHA_OPERATOR).await;
        assert_eq!(of_one_shop.problem(), (403, "all-shops".to_owned()), "what others sell");
        let projections = server.get("/operator/projections", OPERATOR).await.json();
        assert!(projections["projections"].as_array().is_some_and(|all| all.len() == 7), "{projections}");
        assert!(projections["projections"].as_array().into_iter().flatten().all(|one| one["failed"] == false));
    }
}

fn check_history(history: &Answer) {
    let history = history.json();
    let events: Vec<&str> =
        history["events"].as_array().into_iter().flatten().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(
        events,
        [
            "order.placed",
            "order.changed",
            "order.paid",
            "order.reserved",
            "order.shipped",
            "order.delivered",
            "order.returned",
            "order.refunded"
        ]
    );
    let paid = &history["events"][2];
    assert_eq!((&paid["by"], &paid["version"]), (&json!("alpha-admin"), &json!(3)));
    assert!(paid["request_id"].is_string());
    assert_eq!(paid["changed"][1]["after"], "paid");
    let data = |event: usize| &history["events"][event]["data"];
    assert_eq!((&data(0)["customer"], &data(0)["lines"][0]["product"]), (&json!("alice"), &json!("kettle")));
    // The order costs what it did before, and has other lines.
    assert_eq!(data(1)["lines"], order("alice", 2, 4_900)["lines"]);
    assert_eq!(data(4), &json!({ "carrier": "snail", "tracking": "SN-1" }));
    assert_eq!(data(5), &json!({ "signed_by": "alice" }));
}
