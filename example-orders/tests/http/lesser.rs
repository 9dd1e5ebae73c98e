//! Preferences, recommendations, messages, and the switches of them.

use std::time::{Duration, Instant};

use annals::Tenant;
use example_orders::services::{Kind, Server as Service};
use serde_json::json;

use crate::server::{ADMIN, ALICE, ALPHA_OPERATOR, BETA, BOB, OPERATOR, Server, Store};

#[tokio::test]
async fn preferences_and_recommendations_are_known_or_defaults_and_a_switch_is_kept_with_who_and_why_on_both_databases()
{
    for store in Store::each().await {
        let mut server = Server::on(store).await;
        let path = "/customers/alice/preferences";
        let default = json!({ "language": "en", "currency": "EUR", "theme": "light" });
        let known = server.get(path, ALICE).await.json();
        assert_eq!(known, json!({ "preferences": default, "from": "source" }));
        let wanted = json!({ "language": "pt-BR", "currency": "USD", "theme": "dark" });
        let set = server.write("PUT", path, ALICE, "set", &wanted).await;
        assert_eq!((set.status, set.json()), (200, wanted.clone()), "{}", set.text);
        assert_eq!(server.get(path, ADMIN).await.json()["preferences"], wanted);
        assert_eq!(server.get(path, BETA).await.json()["preferences"], default, "of another shop");
        assert_eq!(server.get(path, BOB).await.problem(), (404, "not-found".to_owned()));
        for (number, language) in ["", "e", "english language", "en-", "en_GB", "12"].into_iter().enumerate() {
            let bad = json!({ "language": language, "currency": "EUR", "theme": "light" });
            let refused = server.write("PUT", path, ALICE, &format!("bad-{number}"), &bad).await;
            assert_eq!(refused.status, 422, "{language}: {}", refused.text);
        }
        let tips = server.get("/recommendations", ALICE).await.json();
        assert_eq!(tips, json!({ "products": ["filter papers", "espresso cup", "milk jug"], "from": "source" }));

        let toggle = "/operator/toggles/preferences";
        let off = json!({ "on": false, "reason": "they are slow" });
        for (key, status) in [(ALICE, 403), (ADMIN, 403), (ALPHA_OPERATOR, 403)] {
            assert_eq!(server.write("PUT", toggle, key, "off", &off).await.status, status);
        }
        let none = server.write("PUT", "/operator/toggles/nothing", OPERATOR, "none", &off).await;
        assert_eq!(none.problem(), (404, "not-found".to_owned()));
        let done = server.write("PUT", toggle, OPERATOR, "off", &off).await;
        assert_eq!(done.status, 200, "{}", done.text);
        server.switch("recommendations", false).await;
        assert_eq!(server.get(path, ALICE).await.json(), json!({ "preferences": default, "from": "default" }));
        assert_eq!(server.get("/recommendations", ALICE).await.json()["from"], "default");
        server.crash();
        let all = server.get("/operator/toggles", OPERATOR).await.json();
        let off_ones = all["toggles"].as_array().into_iter().flatten().filter(|toggle| toggle["on"] == false).count();
        assert_eq!(off_ones, 2, "{all}");
        // Somebody switches it on again, and then the first request arrives once more.
        let on = json!({ "on": true, "reason": "they are quick" });
        assert_eq!(server.write("PUT", toggle, OPERATOR, "on", &on).await.status, 200);
        let again = server.write("PUT", toggle, OPERATOR, "off", &off).await;
        assert_eq!((again.status, &again.json()["on"]), (200, &json!(true)), "{}", again.text);
        let changes = server.get(toggle, OPERATOR).await.json()["changes"].clone();
        let told = |change: usize, field: &str| changes[change][field].clone();
        assert_eq!((told(0, "by"), told(0, "reason")), (json!("operator"), json!("they are slow")));
        assert_eq!((told(1, "by"), told(1, "on"), told(2, "by")), (json!("operator"), json!(true), json!(null)));
        assert_eq!(server.get(path, ALICE).await.json(), json!({ "preferences": wanted, "from": "source" }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_get_a_message_for_each_event_that_they_want_to_know_of_unless_messages_are_switched_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = Service::start(Kind::Notification, folder.path(), 0).await.expect("it starts");
    let server = Server::with(Store::file(), &[("ORDERS_SERVICES__NOTIFICATION", &*service.url)]).await;
    let (alpha, end) = (Tenant::new("alpha").expect("a tenant"), Instant::now() + Duration::from_secs(60));
    let handled = async || {
        loop {
            let all = server.get("/operator/projections", OPERATOR).await.json()["projections"].clone();
            let reactor = all.as_array().and_then(|all| all.iter().find(|one| one["name"] == "notifications").cloned());
            let reactor = reactor.expect("it is one of them");
            if reactor["behind"] == 0 {
                return service.sums(&alpha).await.expect("read").entries;
            }
            assert!(Instant::now() < end, "{reactor}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let before = handled().await;
    let (order, _) = server.place(ADMIN, "first", "alice", 100).await;
    server.post(&format!("/orders/{order}/cancel"), ADMIN, "cancel", &json!({ "reason": "late" })).await;
    assert_eq!(handled().await, before + 2);
    server.switch("notifications", false).await;
    server.place(ADMIN, "second", "alice", 100).await;
    assert_eq!(handled().await, before + 2, "it is left out");
    server.switch("notifications", true).await;
    server.place(ADMIN, "third", "alice", 100).await;
    assert_eq!(handled().await, before + 3);
    service.stop().await;
}

#[tokio::test]
async fn a_switch_is_thrown_in_all_processes_by_those_who_run_the_service_and_not_by_those_of_one_shop_on_both_databases()
 {
    for store in Store::each().await {
        let one = Server::on(store).await;
        let other = Server::beside(&one).await;
        let toggle = "/operator/toggles/preferences";
        let off = json!({ "on": false, "reason": "they are slow" });
        let refused = other.write("PUT", toggle, ALPHA_OPERATOR, "mine", &off).await;
        assert_eq!(refused.problem(), (403, "all-shops".to_owned()));
        let untouched = json!({ "name": "preferences", "on": true, "changes": [] });
        assert_eq!(one.get(toggle, ALPHA_OPERATOR).await.json(), untouched);
        for (here, there, on) in [(&one, &other, false), (&other, &one, true), (&one, &other, false)] {
            here.switch("preferences", on).await;
            there.until(toggle, OPERATOR, |answer| answer.json()["on"] == on).await;
            let from = if on { "source" } else { "default" };
            let answer = there.get("/customers/alice/preferences", ALICE).await.json();
            assert_eq!(answer["from"], from, "{answer}");
        }
    }
}
