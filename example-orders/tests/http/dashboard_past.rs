//! The slider of the dashboard: every figure of a page is that of the API at the same time.

use serde_json::Value;

use crate::browser::{Browser, between};
use crate::server::{ADMIN, ALICE, Answer, Server, Store, order};

/// The text of a fact, without elements.
fn fact(page: &str, field: &str) -> String {
    let found = between(page, &format!("data-field=\"{field}\">"), "</dd>");
    let texts = found.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    texts.collect::<String>().trim().to_owned()
}

/// The amount of a fact in minor units.
fn minor(page: &str, field: &str) -> i64 {
    let found = between(page, &format!("data-field=\"{field}\">"), "</dd>");
    between(found, "value=\"", "\"").parse().expect("a number")
}

fn text(value: &Value, none: &str) -> String {
    value.as_str().unwrap_or(none).to_owned()
}

/// The places of the slider, without the last, which is now.
fn moments(page: &str) -> Vec<String> {
    let moments = between(page, "data-moments=\"", "\"").replace("&quot;", "\"");
    let moments: Vec<String> = serde_json::from_str(&moments).expect("JSON");
    assert_eq!(moments.last().map(String::as_str), Some(""));
    moments[..moments.len() - 1].to_vec()
}

#[tokio::test]
async fn every_figure_of_an_order_is_that_of_the_api_at_each_place_of_the_slider_on_both_databases() {
    for store in Store::each().await {
        let server = Server::on(store).await;
        let admin = Browser::of(&server, ADMIN).await;
        admin.send("/dashboard/personal", &[("shows", "true"), ("reason", "a call")]).await;
        let placed = server.post("/checkouts", ALICE, "checkout", &order("alice", 2, 4_900)).await;
        assert_eq!(placed.status, 200, "{}", placed.text);
        let checkout = placed.json()["order"].as_str().expect("an id").to_owned();
        server.get(&format!("/orders?at_least={}", placed.header("x-position")), ADMIN).await;
        for id in ["o-1005", &checkout] {
            let path = format!("/dashboard/orders/{id}");
            let now = admin.page(&path).await;
            let moments = moments(&now);
            let mut seen = 0;
            for moment in moments.iter().map(|moment| format!("?as_of={moment}")).chain([String::new()]) {
                let page = admin.page(&format!("{path}{moment}")).await;
                let answer = server.get(&format!("/orders/{id}{moment}"), ADMIN).await;
                if answer.status == 404 {
                    assert!(!page.contains("data-field="), "{moment}: {page}");
                    continue;
                }
                seen += 1;
                let api = answer.json();
                assert_eq!(fact(&page, "status"), api["status"], "{id}{moment}");
                for field in ["total", "paid"] {
                    assert_eq!(minor(&page, field), api[field]["minor"], "{id}{moment} {field}");
                }
                for field in ["carrier", "tracking"] {
                    assert_eq!(fact(&page, field), text(&api[field], "none yet"), "{id}{moment} {field}");
                }
                assert_eq!(fact(&page, "delivery"), text(&api["estimated_delivery"], "none"), "{id}{moment}");
                for (field, of_api) in [("placed", "placed_at"), ("changed", "changed_at")] {
                    let found = between(&page, &format!("data-field=\"{field}\">"), "</dd>");
                    assert_eq!(between(found, "datetime=\"", "\""), api[of_api], "{id}{moment} {field}");
                }
            }
            assert!(seen > 4, "{id} was looked at {seen} times");
            // A checkout as it was: nothing of what came later is on the page.
            if id == checkout {
                let first = admin.page(&format!("{path}?as_of={}", moments[0])).await;
                assert!(first.contains("checkout started") && !first.contains("fetch is called"), "{first}");
                assert!(
                    now.contains("fetch is done")
                        && now.contains("the pivot is passed: from here on nothing is undone"),
                    "{now}"
                );
            }
        }
        let answer = admin.get("/dashboard/orders/o-1005?as_of=yesterday").await;
        assert_eq!((answer.status, answer.text.contains("as-of-invalid")), (400, true));
        // What was written is said beside the field, on the page as it is now.
        let page = answer.text;
        assert!(page.contains("value=\"yesterday\"") && page.contains("aria-invalid=\"true\""), "{page}");
        assert_eq!(fact(&page, "status"), "returned", "{page}");
        let ahead = admin.get("/dashboard/analytics?as_of=9990-01-01").await;
        assert!(ahead.status == 400 && ahead.text.contains("Back to now"), "{}", ahead.text);
        // As people write it: the shop was empty then.
        let before = admin.page("/dashboard/orders/o-1005?as_of=02.01.2020").await;
        assert!(before.contains("2020-01-02 00:00:00") && !before.contains("data-field="), "{before}");
    }
}

#[tokio::test]
async fn every_figure_of_the_analytics_is_that_of_the_api_at_the_same_time() {
    let server = Server::on(Store::file()).await;
    let admin = Browser::of(&server, ADMIN).await;
    let history = server.get("/orders/o-1005/history", ADMIN).await.json();
    let (_, position) = server.place(ADMIN, "later", "alice", 77_700).await;
    server.get(&format!("/analytics/days?at_least={position}"), ADMIN).await;
    let then = history["events"][0]["at"].as_str().expect("a time");
    for as_of in [format!("?as_of={then}"), String::new()] {
        let page = admin.page(&format!("/dashboard/analytics{as_of}")).await;
        let api = server.get(&format!("/analytics/days{as_of}"), ADMIN).await.json();
        let total = &api["totals"][0];
        for (field, of_api) in
            [("orders", "orders"), ("ordered", "ordered"), ("revenue", "revenue"), ("average", "average_order")]
        {
            assert_eq!(minor(&page, field), total[of_api], "{as_of} {field}");
        }
        for day in api["days"].as_array().expect("days") {
            let id = format!(
                "id=\"day-{}-{}\"",
                day["day"].as_str().expect("a day"),
                day["currency"].as_str().expect("one")
            );
            let row = between(&page, &id, "</tr>");
            let shown: Vec<i64> =
                row.split("value=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
            let wanted =
                ["orders", "ordered", "revenue", "average_order"].map(|field| day[field].as_i64().expect("a number"));
            assert_eq!(shown, wanted, "{as_of}");
        }
    }
    let never = admin.page("/dashboard/analytics?as_of=2020-01-01T00:00:00Z").await;
    assert!(never.contains("Nothing was sold until then."), "{never}");
}

#[tokio::test]
async fn an_order_says_who_when_and_why_and_names_nobody_before_it_is_asked_to() {
    let server = Server::on(Store::file()).await;
    let admin = Browser::of(&server, ADMIN).await;
    let returned = admin.page("/dashboard/orders/o-1005").await;
    assert!(returned.contains("<q>too loud</q>") && returned.contains("Nothing: it was sent back."), "{returned}");
    let (id, _) = server.place(ALICE, "placed", "alice", 100).await;
    let why = serde_json::json!({ "reason": "changed my mind" });
    let cancelled = server.post(&format!("/orders/{id}/cancel"), ADMIN, "cancelled", &why).await;
    server.get(&format!("/orders?at_least={}", cancelled.header("x-position")), ADMIN).await;
    for path in [format!("/dashboard/orders/{id}"), "/dashboard/orders".to_owned()] {
        let page = admin.page(&path).await;
        assert!(!page.to_lowercase().contains("alice"), "{path}: {page}");
    }
    let page = admin.page(&format!("/dashboard/orders/{id}")).await;
    assert!(
        page.contains("changed my mind") && page.contains("by alpha-admin") && page.contains("a customer ("),
        "{page}"
    );
    // The request of the customer, and all that it has led to.
    let link = between(&page, "href=\"/dashboard/correlation?id=", "\"");
    let all = admin.page(&format!("/dashboard/correlation?id={link}")).await;
    assert!(all.contains(&id) && !all.to_lowercase().contains("alice"), "{all}");
    let renamed = server.request("PUT", "/customers/alice", ADMIN).header("x-request-id", "rename-1");
    let renamed = renamed.header("idempotency-key", "rename").json(&serde_json::json!({ "name": "Alice Archer" }));
    assert_eq!(Answer::of(renamed).await.status, 200);
    let all = admin.page("/dashboard/correlation?id=rename-1").await;
    assert!(all.contains("customer.renamed") && !all.to_lowercase().contains("alice"), "{all}");
    admin.send("/dashboard/personal", &[("shows", "true"), ("reason", "a call")]).await;
    let page = admin.page(&format!("/dashboard/orders/{id}")).await;
    assert!(page.contains("Alice Archer") && page.contains("alpha-alice"), "{page}");
    admin.send("/dashboard/personal", &[("shows", "false")]).await;
    let hidden = Answer::of(admin.request("GET", "/dashboard/orders").header("hx-request", "true")).await.text;
    assert!(hidden.starts_with("<title>") && !hidden.contains("Alice Archer"), "{hidden}");
}
