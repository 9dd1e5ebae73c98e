//! Checkouts over HTTP, through a real server.

use annals::Tenant;
use axum::Extension;
use example_orders::checkout::{Checkouts, Visitor, routes};
use example_orders::services::Faults;
use serde_json::{Value, json};

use crate::{quick, start};

/// Serves the routes to a visitor of a shop.
async fn serve(checkouts: &Checkouts, shop: &str, is_operator: bool) -> String {
    let visitor = Visitor { shop: Tenant::new(shop).expect("a tenant"), name: "kim".to_owned(), is_operator };
    let routes = routes(checkouts.clone()).layer(Extension(visitor));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

async fn ask(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_checkout_is_begun_shown_and_decided_about_over_http_each_in_its_own_shop() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let (servers, checkouts) = start::<30>(folder.path(), &store, quick()).await;
    let (north, south) = (serve(&checkouts, "north", true).await, serve(&checkouts, "south", false).await);
    let http = reqwest::Client::new();
    let cart = |quantity| {
        let price = json!({ "minor": 4900, "currency": "EUR" });
        json!({ "customer": "alice", "lines": [{ "product": "kettle", "quantity": quantity, "price": price }] })
    };
    let begin = |url: &str, order: u32, flow: &str, quantity: u32| {
        ask(http.post(format!("{url}/orders/o-{order}/checkout?flow={flow}")).json(&cart(quantity)))
    };
    for (order, flow) in [(1, "orchestrated"), (2, "choreographed")] {
        // The same number in both shops.
        for url in [&north, &south] {
            let (status, standing) = begin(url, order, flow, 2).await;
            assert_eq!((status, &standing["answer"]), (200, &json!("completed")), "{standing}");
        }
        let (status, shown) = ask(http.get(format!("{north}/orders/o-{order}/checkout"))).await;
        assert_eq!((status, &shown["standing"]["flow"]), (200, &json!(flow)), "{shown}");
        assert!(shown["timeline"].as_array().is_some_and(|events| events.len() > 3), "{shown}");
    }
    for shop in ["north", "south"] {
        let sums = servers.payment.sums(&Tenant::new(shop).expect("a tenant")).await.expect("read");
        assert_eq!((sums.entries, sums.open()), (2, 2 * 9_800), "{shop}");
    }
    let (status, again) = begin(&north, 1, "orchestrated", 2).await;
    assert_eq!(status, 200, "the same again: {again}");
    assert_eq!(begin(&north, 1, "orchestrated", 3).await.0, 409, "another cart");
    assert_eq!(begin(&north, 9, "orchestrated", 0).await.0, 422, "no pieces");
    assert_eq!(ask(http.get(format!("{north}/orders/o-9/checkout"))).await.0, 404);

    // Behind the pivot, the carrier is closed: a person decides, after a dry run.
    servers.shipping.faults.set(Faults { closed: true, ..Faults::default() });
    let (status, standing) = begin(&north, 3, "orchestrated", 1).await;
    assert_eq!((status, &standing["answer"]), (202, &json!("waits for a person")), "{standing}");
    servers.shipping.faults.set(Faults::default());
    let decide = |url: &str, body: Value| ask(http.post(format!("{url}/orders/o-3/checkout/decision")).json(&body));
    let retry = json!({ "decision": "retry", "reason": "it is open again" });
    let (status, would) = decide(&north, retry.clone()).await;
    assert_eq!((status, would["would"].as_array().map(Vec::len)), (200, Some(2)), "{would}");
    let stuck = || ask(http.get(format!("{north}/checkouts/stuck")));
    checkouts.sagas.projections().caught_up(std::time::Duration::from_secs(20)).await.expect("caught up");
    assert_eq!(stuck().await.1[0]["id"], json!("checkout-o-3"), "a dry run has changed nothing");
    assert_eq!(decide(&south, retry.clone()).await.0, 403);
    assert_eq!(decide(&north, json!({ "decision": "compensate", "reason": "x", "dry_run": false })).await.0, 409);
    let mut really = retry;
    really["dry_run"] = json!(false);
    assert_eq!(decide(&north, really).await.0, 200);
    let id = annals::sagas::SagaId::new("checkout-o-3").expect("an id");
    let north = Tenant::new("north").expect("a tenant");
    let ended = checkouts.wait(&north, &id, annals::resilience::Deadline::NONE).await.expect("it ends");
    assert_eq!(ended.answer, "completed");
    checkouts.close().await;
    servers.stop().await;
}
